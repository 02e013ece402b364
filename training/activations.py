"""The memory that autograd keeps in a step, for any number of images, from measurements of one or two."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from data.batch import Batch
from models.base_model import BaseModel
from models.stage import Stage
from models.update import StepContext
from training.kept_memory import kept_bytes


@dataclass(frozen=True)
class Activations:
    """Bytes that autograd keeps for the first image of a step and for each further image in the same micro-batch."""

    first: int
    further: int

    def of(self, images: int) -> int:
        return self.first + (images - 1) * self.further

    def images_in(self, room: int) -> int:
        """The number of images that fit in `room` bytes at once; 0 if not even one does."""
        return 0 if room < self.first else 1 + int((room - self.first) / max(self.further, 1))


def measure_activations(model: BaseModel, stage: Stage, batch: Batch, context: StepContext) -> Activations:
    """Measure the first image of `batch` and, in mixed precision, the first two; for stages that can split steps.

    In mixed precision the first image also counts the weights cast to 16 bits, which at full size take more than the
    image itself. In float32 all images take the same. Leaves the networks in the stage's training modes.

    Raises: MemoryError: not even one image fits in `context.room`.
    """
    stage.begin(model)
    first = kept_bytes(model, stage, batch.rows(0, 1), context)
    if context.amp_dtype is None or len(batch) == 1:
        return Activations(first, first)
    try:
        both = kept_bytes(model, stage, batch.rows(0, 2), context)
    except (MemoryError, torch.OutOfMemoryError):
        return Activations(first, first)  # an upper bound; one image at a time fits
    return Activations(first, max(0, both - first))
