"""The trained runs of a folder and those that are shipped, for users who have mistyped the name of one."""

from __future__ import annotations

from pathlib import Path

from util.errors import UserError
from util.nearest import nearest

OPTIONS_NAME = "options.json"  # in a run folder
RUN_INFO_NAME = "run.json"
WEIGHTS_NAME = "weights.safetensors"  # in a folder of PRETRAINED
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"  # generators that come with the repository
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


def require_pretrained(folder: Path) -> None:
    """Raise UserError, with the names that there are, unless `folder` is one of a pretrained generator."""
    if (folder / WEIGHTS_NAME).is_file():
        return
    found = sorted(place.parent.name for place in folder.parent.glob(f"*/{WEIGHTS_NAME}"))
    listed = f"there are {', '.join(found)}" if len(found) > 1 else f"there is {found[0]}" if found else "there is none"
    raise UserError(f"--pretrained {folder.name}: no model of that name is shipped; {listed}")
