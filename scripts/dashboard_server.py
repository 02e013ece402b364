"""The dashboard's server, on 127.0.0.1 only: `bash scripts/dashboard.sh`.

It is visdom's own server, started after its browser files are complete (scripts/dashboard_assets.py), so that it asks
for nothing on the internet. All options are visdom's: `-port 8098`, `-env_path FOLDER`, `-readonly`; `--help` has all.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

from scripts import dashboard_assets
from util.errors import UserError, run_cli


def main(argv: Sequence[str]) -> None:
    """Serve until the process is stopped.

    Raises:
        UserError: visdom or a browser file is missing and cannot be had, or the port is taken.
    """
    dashboard_assets.main([])
    from visdom.server import run_server  # imported here: optional, and only whole with its browser files

    sys.argv = ["dashboard.sh", "-bind_local", "--hostname", "127.0.0.1", *argv]
    try:
        run_server.main()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise UserError(
            "the port is taken, perhaps by a dashboard that runs already; "
            "take another one with -port N here and --display_port N for train.py"
        ) from error


if __name__ == "__main__":
    run_cli(main, "dashboard.sh")
