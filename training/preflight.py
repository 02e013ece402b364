"""Before the first step: what a step keeps in memory, whether the disk has room, and one sentence about both.

Refused is what cannot work: a step that does not fit into memory one image at a time, and a disk without room for the
states that must be there at the same time. Anything else that a run may lack shows when it comes, with its cause: a
loading process that dies, a GPU that is full, a save that finds no room.
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
    """What was measured: activations by stage, for stages whose steps may be split; and a sentence for the log."""

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
    """The needs of a run that is about to begin, or to go on from `newest`.

    Takes the seconds of a forward pass of one image, in mixed precision of three, for each stage to come that can
    split its steps. Changes neither files nor weights nor random numbers.

    Raises:
        UserError: memory or disk cannot do.
    """
    first = 0 if newest is None else position_in(newest.content, newest.path)["stage"]
    context = StepContext(device, micro_batch=1, amp_dtype=amp_dtype, room=known_free_bytes(device))
    stages = [stage for stage in model.stages[first:] if stage.splits]
    activations = {stage.name: _measured(model, stage, dataset, context) for stage in stages}
    check_disk(model, run.run_dir, leftovers(run.run_dir, newest))
    return Needs(activations, _sentence(model, activations))


def middle(dataset: UnalignedMaskDataset, n: int) -> Batch:
    """A batch of the slice of either domain that lies nearest the middle, where heads are largest, n times."""
    a, b = (int(np.abs(folder.p - 0.5).argmin()) for folder in (dataset.A, dataset.B))
    positions = np.full(n, a), np.full(n, b)
    return dataset.__getitems__(Draws(*positions, dataset.A.p[positions[0]], dataset.B.p[positions[1]], np.arange(n)))


def _measured(model: BaseModel, stage: Stage, dataset: UnalignedMaskDataset, context: StepContext) -> Activations:
    try:
        return measure_activations(model, stage, middle(dataset, 2).to(context.device), context)
    except (MemoryError, torch.OutOfMemoryError) as error:
        free = "is free" if context.room is None else f"the {in_words(context.room)} that are free"
        raise UserError(
            f"a step of stage {stage.name} needs more memory than {free} even for one image at a time; "
            f"lower {_either(stage.smaller)}"
        ) from error


def _sentence(model: BaseModel, activations: dict[str, Activations]) -> str:
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    moments = moment_bytes(model)
    steps = "".join(f", a step of {name} keeps {in_words(each.first)} an image" for name, each in activations.items())
    return (
        f"memory: {in_words(weights + moments // 2 + moments)} for networks, gradients and Adam{steps}; "
        f"disk: {in_words(state_bytes(model))} a saved state"
    )


def _either(flags: Sequence[str]) -> str:
    return " or ".join(flags) if flags else "--load_size"
