"""Measures the memory of a step and checks the disk before the first step.

A run is refused if a step does not fit into memory one image at a time, for stages that can split their steps, or if
the disk has no room for the three states that exist during a save. Other shortages are reported when they occur: a
loading process that dies, a GPU that is full, a save that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.batch import Batch
from data.sampling import Draws
from data.unaligned_dataset import UnalignedMaskDataset
from models.base_model import BaseModel
from models.stage import Stage
from models.update import StepContext
from options.train_options import RunOptions
from training.activations import Activations, measure_activations
from training.disk import check_disk, in_words, moment_bytes, state_bytes
from training.memory import known_free_bytes
from training.position import position_in
from training.run_folder import leftovers
from util.checkpoint import NewestCheckpoint
from util.errors import UserError


@dataclass(frozen=True)
class Needs:
    """Activations by stage, for stages that can split their steps, and a sentence about memory and disk for the log."""

    activations: dict[str, Activations]
    sentence: str


def preflight(
    run: RunOptions,
    model: BaseModel,
    dataset: UnalignedMaskDataset,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    newest: NewestCheckpoint | None,
) -> Needs:
    """Measure the needs of a run that is about to start, or to continue from `newest`.

    For each remaining stage that can split its steps, this computes the gradients of one image, in mixed precision of
    three. Files, weights and random states do not change.

    Raises:
        UserError: not enough memory or disk space.
    """
    first = 0 if newest is None else position_in(newest.content, newest.path)["stage"]
    context = StepContext(device, micro_batch=1, amp_dtype=amp_dtype, room=known_free_bytes(device))
    stages = [stage for stage in model.stages[first:] if stage.splits]
    activations = {stage.name: _measured(model, stage, dataset, context) for stage in stages}
    check_disk(model, run.run_dir, leftovers(run.run_dir, newest))
    return Needs(activations, _sentence(model, activations))


def middle(dataset: UnalignedMaskDataset, n: int) -> Batch:
    """A batch with n copies of each domain's slice nearest the middle, where heads are largest."""
    a, b = (int(np.abs(folder.p - 0.5).argmin()) for folder in (dataset.A, dataset.B))
    positions, keys = (np.full(n, a), np.full(n, b)), np.arange(n)
    return dataset.__getitems__(
        Draws(*positions, dataset.A.p[positions[0]], dataset.B.p[positions[1]], keys, keys, keys)
    )


def _measured(model: BaseModel, stage: Stage, dataset: UnalignedMaskDataset, context: StepContext) -> Activations:
    try:
        return measure_activations(model, stage, middle(dataset, 2).to(context.device), context)
    except (MemoryError, torch.OutOfMemoryError) as error:
        free = "" if context.room is None else f" ({in_words(context.room)})"
        raise UserError(
            f"a step of stage {stage.name} does not fit into the free memory{free}, even one image at a time; "
            f"lower {_either(stage.smaller)}"
        ) from error


def _sentence(model: BaseModel, activations: dict[str, Activations]) -> str:
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    moments = moment_bytes(model)
    steps = "".join(f", {in_words(each.first)} per image in a step of {name}" for name, each in activations.items())
    return (
        f"memory: {in_words(weights + moments // 2 + moments)} for networks, gradients and Adam{steps}; "
        f"disk: {in_words(state_bytes(model))} per saved state"
    )


def _either(flags: Sequence[str]) -> str:
    return " or ".join(flags) if flags else "--load_size"
