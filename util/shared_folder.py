"""Check that processes on several machines share a folder."""

from __future__ import annotations

import platform
import uuid
from pathlib import Path

from util.errors import UserError
from util.files import PART
from util.processes import Processes


def require_shared(folder: Path, flag: str, processes: Processes) -> None:
    """Check that every process sees what the first one writes to the existing folder.

    Raises: UserError naming `flag` and the machine of a process that does not.
    """
    if processes.size == 1:
        return
    probe = folder / f"{processes.agreed(uuid.uuid4().hex)}{PART}"

    def check() -> None:
        if not probe.exists():
            raise UserError(
                f"{flag} {folder}: {platform.node()} does not see what the first process writes there; "
                "it must lie on a file system that all machines share"
            )

    processes.alone(probe.touch)
    try:
        processes.together(check)
    finally:
        if processes.first:
            probe.unlink(missing_ok=True)
