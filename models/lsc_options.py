"""Options of LSC (models/lsc_model.py), alone or inside the PTA models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from models.base_options import LengthOptions, StepsByDevice
from util.needs import Need, fact, positive
from util.schema import flag

LSC_STEPS = StepsByDevice(gpu=4000, cpu=100)
LSC_BATCH = 8  # slices

USES_LSC = fact("uses_lsc", "--pretext_adv concat or separate")
TRAINS_LSC = (USES_LSC, fact("trains_lsc", "no --lsc_weights", idle="beside --lsc_weights"))
SMALLER_BATCHES = Need("a smaller --batch_size", lambda o: o.batch_size < max(o.lsc_batch_size, LSC_BATCH))
_flag = partial(flag, group="LSC", needs=USES_LSC)


@dataclass(frozen=True)
class LSCTraining:
    """Options of the corruption and of LSC's training, alone or before the adversarial epochs."""

    lsc_blocks: int = _flag(24, "square blocks along the longer side (published: 24 of 5 px on 120)", low=2)
    rotate_ratio: float = _flag(0.5, "probability that a block is rotated", low=0, high=1)
    mask_ratio: float = _flag(0.2, "probability that a block is masked", low=0, high=1)
    lsc_features: int = _flag(16, "channels of R's first scale, doubled four times (published: 16)", low=2, high=256)
    lsc_fill: bool = _flag(
        True,
        "fill masked blocks smoothly before R's U-Net corrects them; without, the U-Net alone fills them (published)",
        needs=(USES_LSC, positive("mask_ratio")),
    )
    lsc_steps: int | None = _flag(None, f"most steps of LSC training; none: {LSC_STEPS}", low=1, needs=TRAINS_LSC)
    lsc_batch_size: int = _flag(
        LSC_BATCH, "LSC's batches hold at least so many slices", low=1, needs=(*TRAINS_LSC, SMALLER_BATCHES)
    )
    lsc_lr: float = _flag(1e-3, "LSC's learning rate (Adam), half a cosine", low=1e-9, high=1, needs=TRAINS_LSC)


@dataclass(frozen=True)
class LSCOptions(LSCTraining, LengthOptions):
    """Options of `--model lsc`."""

    pretext_steps: ClassVar = {"lsc_steps": LSC_STEPS}
    uses_lsc: ClassVar = True
    trains_lsc: ClassVar = True

    @property
    def least_batch(self) -> int:
        return self.lsc_batch_size
