"""Options of SGP (models/sgp_model.py), alone or inside the PTA models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from models.base_options import LengthOptions, StepsByDevice
from util.needs import Need, fact
from util.schema import flag

SGP_STEPS = StepsByDevice(gpu=4000, cpu=400)
SGP_BATCH = 16  # levels, published

USES_SGP = fact("uses_sgp", "--sgp_match bank or batch, or an L_syn with --syn_form cos")
TRAINS_SGP = (USES_SGP, fact("trains_sgp", "no --sgp_weights", idle="beside --sgp_weights"))
SMALLER_BATCHES = Need("a smaller --batch_size", lambda o: o.batch_size < max(o.sgp_batch_size, SGP_BATCH))
_flag = partial(flag, group="SGP", needs=USES_SGP)
_training = partial(flag, group="SGP", needs=TRAINS_SGP)


@dataclass(frozen=True)
class SGPSizes:
    """Sizes of the slice encoders; the defaults are the published ones (docs/facts.md section 5)."""

    sgp_input: int = _flag(120, "slices are resized to this side", low=32, high=1024)
    sgp_patch: int = _flag(16, "patch side; the input is cropped to a multiple of it", low=4, high=256)
    sgp_width: int = _flag(256, "token width", low=16, high=8192)
    sgp_depth: int = _flag(6, "transformer layers", low=1, high=64)
    sgp_heads: int = _flag(4, "attention heads; divides the width", low=1, high=64)
    sgp_embedding: int = _flag(512, "embedding length", low=8, high=8192)


@dataclass(frozen=True)
class SGPTraining(SGPSizes):
    """Options of SGP's training, alone or before the adversarial epochs."""

    sgp_steps: int | None = _training(None, f"most steps of SGP training; none: {SGP_STEPS}", low=1)
    sgp_batch_size: int = _training(
        SGP_BATCH, "SGP's batches hold at least so many levels", low=2, needs=(*TRAINS_SGP, SMALLER_BATCHES)
    )
    sgp_views: int = _training(
        1, "random views of every slice in a batch; more make a batch larger, but need no more slices", low=1, high=64
    )
    sgp_lr: float = _training(1e-4, "SGP's learning rate (AdamW), warmed up, then half a cosine", low=1e-9, high=1)
    sgp_soft_sigma: float = _training(
        0.05, "width in p of soft targets; 0: the slice's own partner alone", low=0, high=1
    )


@dataclass(frozen=True)
class SGPOptions(SGPTraining, LengthOptions):
    """Options of `--model sgp`."""

    pretext_steps: ClassVar = {"sgp_steps": SGP_STEPS}
    uses_sgp: ClassVar = True
    trains_sgp: ClassVar = True
    supports_BtoA: ClassVar = False  # a test takes each field's encoder by the name of its folder
    takes_slices_in_turn: ClassVar = False  # its batches hold slices of distinct levels

    @property
    def least_batch(self) -> int:
        return self.sgp_batch_size
