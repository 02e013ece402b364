"""The one exception a user may see as a sentence instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

USER_ERROR_STATUS = 2  # the status argparse itself uses for a bad command line


class UserError(ValueError):
    """Something the user can mend: the message names the flag or path, its value and what is allowed."""


def run_cli(main: Callable[[Sequence[str]], int | None], program: str) -> None:
    """Run `main(argv)` and leave with its status; a UserError becomes one line on stderr and status 2."""
    try:
        status = main(sys.argv[1:]) or 0
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        status = USER_ERROR_STATUS
    sys.exit(status)
