"""The position of a training: stage, epoch, batch and counts, as checkpoints store it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.stage import Stage
from util.errors import UserError

# stage, epoch in the stage, batches done in the epoch, steps and images in the stage, size of its micro-batches
PARTS = ("stage", "epoch", "batch", "step", "images", "micro_batch")


def start_of(stage: int) -> dict[str, int]:
    """The position before a stage's first step; the size of its micro-batches is not known yet."""
    return {**dict.fromkeys(PARTS, 0), "stage": stage}


def ends_of_stages(stages: Sequence[Stage]) -> frozenset[int]:
    """The epochs, as checkpoints are named, after which another stage goes on with the networks."""
    ended = stages[:-1]
    return frozenset(stage.epochs_before + stage.epochs for stage in ended if stage.epochs_before is not None)


def position_in(content: Mapping[str, Any], path: Path) -> dict[str, int]:
    """The position in a checkpoint's content.

    Raises:
        UserError: it is missing or not valid; the message names the file, `path`.
    """
    position = content.get("position")
    if (
        not isinstance(position, dict)
        or tuple(position) != PARTS
        or not all(type(value) is int and value >= 0 for value in position.values())
    ):
        raise UserError(f"{path}: cannot be continued, it does not say where the training stood")
    return dict(position)
