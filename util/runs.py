"""The trained runs of a folder, for users who have mistyped the name of one."""

from __future__ import annotations

from pathlib import Path

from util.nearest import nearest

OPTIONS_NAME = "options.json"  # in a run folder
RUN_INFO_NAME = "run.json"
MOST_LISTED = 10


def runs_there(folder: Path, wanted: str) -> str:
    """A phrase that names the runs in a --checkpoints_dir, those most like the wanted name first."""
    try:
        found = sorted(place.parent.name for place in folder.glob(f"*/{OPTIONS_NAME}"))
    except OSError:
        found = []
    if not found:
        return f"there are no runs in {folder}"
    ordered = list(dict.fromkeys([*nearest(wanted, found, MOST_LISTED), *found]))
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return f"{'runs' if len(found) > 1 else 'the only run'} in {folder}: {', '.join(ordered[:MOST_LISTED])}{more}"
