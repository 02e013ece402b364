"""The exception that users see as one sentence instead of a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from util.standard_streams import lossy_streams

MOST_CHARACTERS = 1000  # of a message; longer ones are cut in the middle
USER_ERROR_STATUS = 2  # argparse's own status for a bad command line
ON_WINDOWS = (
    "this needs Linux, or macOS, where it is untested; "
    "on Windows use WSL 2 (`wsl --install`, then the same commands inside it)"
)


class UserError(ValueError):
    """A mistake that the user can correct: the message names the flag or path, its value and what is allowed."""

    def __init__(self, message: str) -> None:
        text = printable(message)
        if len(text) > MOST_CHARACTERS:  # it may quote values of a damaged file
            text = f"{text[: MOST_CHARACTERS // 2]} ... {text[-MOST_CHARACTERS // 4 :]}"
        super().__init__(text)


def printable(text: str) -> str:
    """`text` on one line: line breaks, control characters and invalid Unicode, as in file names, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def warn(text: str) -> None:
    """Print a warning as one line on stderr."""
    print(f"{Path(sys.argv[0]).name}: warning: {text}", file=sys.stderr)


def run_cli(main: Callable[[Sequence[str]], int | None], program: str) -> None:
    """Run `main(argv)` and exit with its status; a UserError becomes one line on stderr and status 2.

    Ctrl-C ends the process by SIGINT, without a traceback, unless `main` handles it. On Windows it says what is
    supported: file locks, signals and process groups work otherwise there.
    """
    with lossy_streams():
        try:
            if sys.platform == "win32":
                raise UserError(ON_WINDOWS)
            status = main(sys.argv[1:]) or 0
        except UserError as error:
            print(f"{program}: error: {error}", file=sys.stderr)
            status = USER_ERROR_STATUS
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
    sys.exit(status)
