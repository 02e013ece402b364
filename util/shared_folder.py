"""Do processes on several machines write into the same folder?"""

from __future__ import annotations

import platform
import uuid
from pathlib import Path

from util.errors import UserError
from util.files import PART
from util.processes import Processes


def require_shared(folder: Path, flag: str, processes: Processes) -> None:
    """Every process must see what the first one writes into the folder, which is there.

    Raises: UserError where it does not, naming `flag` and the machine.
    """
    if processes.size == 1:
        return
    seen = folder / f"{processes.agreed(uuid.uuid4().hex)}{PART}"

    def check() -> None:
        if not seen.exists():
            raise UserError(
                f"{flag} {folder}: {platform.node()} does not see what the first process writes there; "
                "it must lie on a file system that all machines share"
            )

    processes.alone(seen.touch)
    try:
        processes.together(check)
    finally:
        if processes.first:
            seen.unlink(missing_ok=True)
