"""Checkpoint files: whole or not there, checked by a checksum, read without executing anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from util.checksum import digest
from util.errors import UserError
from util.files import replace_files
from util.torch_file import read_torch, torch_writer

FORMAT = 3
UNFOLDED = 64  # times its file's size: a value of few bytes enters the checksum with its whole place
LATEST, PREVIOUS = "latest", "previous"


class UnusableCheckpoint(UserError):
    """A checkpoint that is absent or damaged; another one of its run may do."""


@dataclass(frozen=True)
class NewestCheckpoint:
    """The state to go on from, its file, the files that should have held a newer one, and what to tell the user."""

    content: dict[str, Any]
    path: Path
    unusable: tuple[Path, ...] = ()
    warning: str = ""


def checkpoint_path(run_dir: Path, epoch: str) -> Path:
    """`OUT/NAME/latest.pt` or `OUT/NAME/5.pt`."""
    return run_dir / f"{epoch}.pt"


def saved_epochs(run_dir: Path) -> list[int]:
    """Numbers of the EPOCH.pt files in a run folder, ascending."""
    return sorted(int(path.stem) for path in run_dir.glob("*.pt") if path.stem.isdecimal())


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """`content` (tensors and plain values) as a checkpoint holds it: with the format and a checksum.

    Raises: TypeError for values of other kinds.
    """
    return {"format": FORMAT, "sha256": digest(content), **content}


def unseal(sealed: dict[str, Any]) -> dict[str, Any]:
    """What `seal` was given."""
    return {name: sealed[name] for name in sealed if name not in ("format", "sha256")}


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write one checkpoint of tensors and plain values. Raises OSError."""
    replace_files({path: torch_writer(seal(content))})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain values are accepted (`weights_only`).

    Raises:
        UnusableCheckpoint: no such file, not one of our checkpoints, or not what was written.
        UserError: a checkpoint of another format, or one that may not be read.
    """
    if not path.is_file():
        raise UnusableCheckpoint(f"{path}: no such checkpoint; --epoch takes latest or a saved epoch's number")
    try:
        content, size = read_torch(path)
        found = int(content["format"])
        intact = found != FORMAT or content["sha256"] == digest(unseal(content), UNFOLDED * size)
    except (PermissionError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', 'out of memory')})") from error
    except Exception as error:  # torch raises many kinds; every one of them means the file is not ours
        raise UnusableCheckpoint(f"{path}: cannot be read as a checkpoint ({type(error).__name__})") from error
    if found != FORMAT:
        raise UserError(f"{path}: checkpoint format {found}, this version reads format {FORMAT}")
    if not intact:
        raise UnusableCheckpoint(f"{path}: damaged, its content does not have the checksum in it")
    return content


def read_newest(run_dir: Path) -> NewestCheckpoint:
    """A run's newest state: latest.pt; if that is unusable what it replaced, previous.pt; else the last saved epoch.

    Raises:
        UserError: none of them can be read, or latest.pt is of another format.
    """
    others = [PREVIOUS, *map(str, reversed(saved_epochs(run_dir)))]
    problems: dict[Path, str] = {}
    for path in (checkpoint_path(run_dir, epoch) for epoch in (LATEST, *others)):
        if path.stem != LATEST and not path.exists():
            continue
        try:
            content = read_checkpoint(path)
        except UnusableCheckpoint as error:
            problems[path] = str(error)
            continue
        first = next(iter(problems.values()), "")
        return NewestCheckpoint(content, path, tuple(problems), first and f"{first}; {path} is used instead")
    raise UnusableCheckpoint("; ".join(problems.values()))
