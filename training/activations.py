"""What autograd keeps of a step, for any number of images, from measuring one or two."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from data.batch import Batch
from models.base_model import BaseModel
from models.kept_memory import kept_bytes
from models.stage import Stage
from models.update import StepContext


@dataclass(frozen=True)
class Activations:
    """Bytes of a step's first image, and of each further one at the same time."""

    first: int
    further: int

    def of(self, images: int) -> int:
        return self.first + (images - 1) * self.further

    def images_in(self, room: int) -> int:
        """How many images at once keep no more than so many bytes; 0: not even one."""
        return 0 if room < self.first else 1 + int((room - self.first) / max(self.further, 1))


def measure_activations(model: BaseModel, stage: Stage, batch: Batch, context: StepContext) -> Activations:
    """Activations of the first image of `batch`, and in mixed precision of the second, for steps that may be split.

    There the first one keeps the weights in the short format too, which are more than an image's own at full size;
    in one format all are alike. Leaves the networks in the stage's modes.

    Raises: MemoryError: not even the first has `context.room`.
    """
    stage.begin(model)
    first = kept_bytes(model, stage, batch.rows(0, 1), context)
    if context.amp_dtype is None or len(batch) == 1:
        return Activations(first, first)
    try:
        both = kept_bytes(model, stage, batch.rows(0, 2), context)
    except (MemoryError, torch.OutOfMemoryError):
        return Activations(first, first)  # at most; one at a time fits in any case
    return Activations(first, max(0, both - first))
