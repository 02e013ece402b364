"""Options of models whose G_AB learns from images with a known truth (models/restoration.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.adversarial_options import SynthesisOptions
from util.needs import chosen
from util.schema import flag


@dataclass(frozen=True)
class RestorationOptions(SynthesisOptions):
    """Weights of the terms beside the L1 distance, whose weight is 1: those of the refinement, relative to it."""

    supports_BtoA: ClassVar = False  # there is no truth of B's slices, and no low field of A's

    lambda_ssim: float = flag(1.0, "weight of 1 - SSIM beside the L1 distance to the truth", group="loss", low=0)
    lambda_seg: float = flag(
        0.1, "weight of L_seg beside the L1 distance to the truth", group="loss", low=0, needs=chosen(netG=("hybrid",))
    )
