"""Checks that the disk has room for a run's checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from models.base_model import BaseModel
from models.weights import SUFFIXES, weights_files
from util.checkpoint import LATEST, PREVIOUS, checkpoint_path
from util.errors import UserError


def state_bytes(model: BaseModel) -> int:
    """Approximate size of one checkpoint and its weights files, without image pools and file headers."""
    weights = [_bytes(network.state_dict().values()) for network in model.exported_networks().values()]
    return _bytes(model.state_dict().values()) + moment_bytes(model) + len(SUFFIXES) * sum(weights)


def moment_bytes(model: BaseModel) -> int:
    """The size of Adam's state: two moments per trained weight."""
    groups = [group for optimiser in model.optimisers.values() for group in optimiser.param_groups]
    return 2 * sum(_bytes(group["params"]) for group in groups)


def check_disk(model: BaseModel, run_dir: Path, cleared: Sequence[Path]) -> None:
    """Refuse a run whose disk cannot hold latest.pt, previous.pt and a save in progress, with their weights files.

    EPOCH.pt files are not counted: a save that fails because the disk is full leaves the earlier state unchanged.

    Args: cleared: files that will be removed before the first save.
    Raises: UserError.
    """
    replaced = [checkpoint_path(run_dir, epoch) for epoch in (LATEST, PREVIOUS)]
    reusable = {path for path in (*replaced, *weights_files(run_dir), *cleared) if path.is_file()}
    free = shutil.disk_usage(run_dir).free
    room = free + sum(path.stat().st_size for path in reusable)
    needed = 3 * state_bytes(model)
    if room < needed:
        raise UserError(
            f"{run_dir}: its disk has {in_words(free)} free but needs {in_words(needed)} for latest.pt, previous.pt "
            "and a save in progress, with their weights files; free some space or give another --checkpoints_dir"
        )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def in_words(count: int) -> str:
    """A number of bytes as text: `1.46 GB`, `640 kB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:.0f} {unit}"
    return f"{count} bytes"
