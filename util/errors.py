"""The one exception a user may see as a sentence instead of a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from util.standard_streams import lossy_streams

MOST_CHARACTERS = 1000  # of a message; what is longer is cut in the middle
USER_ERROR_STATUS = 2  # the status argparse itself uses for a bad command line


class UserError(ValueError):
    """Something the user can mend: the message names the flag or path, its value and what is allowed."""

    def __init__(self, message: str) -> None:
        text = printable(message)
        if len(text) > MOST_CHARACTERS:  # a damaged file's values may be quoted in it
            text = f"{text[: MOST_CHARACTERS // 2]} ... {text[-MOST_CHARACTERS // 4 :]}"
        super().__init__(text)


def printable(text: str) -> str:
    """`text` on one line: file names may hold line breaks, terminal control and what is not Unicode; it is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def warn(text: str) -> None:
    """One line on stderr for what the user should know and the program can go on with."""
    print(f"{Path(sys.argv[0]).name}: warning: {text}", file=sys.stderr)


def run_cli(main: Callable[[Sequence[str]], int | None], program: str) -> None:
    """Run `main(argv)` and leave with its status; a UserError becomes one line on stderr and status 2.

    Ctrl-C, unless `main` takes care of it, kills the process as it does any other: without a traceback.
    """
    with lossy_streams():
        try:
            status = main(sys.argv[1:]) or 0
        except UserError as error:
            print(f"{program}: error: {error}", file=sys.stderr)
            status = USER_ERROR_STATUS
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
    sys.exit(status)
