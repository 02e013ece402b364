"""`--model degrade`: no adversary. G_AB learns to restore b from what a low-field scanner would have made of it.

The physics of that scanner is estimated from unpaired slices of A and B (training/low_field) and varies from image to
image, as in SynthSR and its like (Iglesias et al. 2021), but without label maps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from data.batch import PAIR, Batch
from models.degradation import Physics, degraded
from models.degrade_options import DegradeOptions
from models.generator_model import GeneratorModel
from models.low_field_options import PARTNER
from models.restoration import RestorationStage


class DegradeStage(RestorationStage):
    """G_AB(degraded b) against b, by the L1 distance and SSIM. Slices of A give their shading, or nothing."""

    name = "degrade"
    options: DegradeOptions

    def __init__(self, model: GeneratorModel, options: DegradeOptions) -> None:
        super().__init__(model, options)
        if options.lf_shading == PARTNER:
            self.places = PAIR

    @torch.no_grad()
    def low_field(self, batch: Batch) -> tuple[Tensor, Tensor]:
        partner = (batch.A, batch.mask_A) if self.options.lf_shading == PARTNER else None
        return degraded(batch.B, batch.mask_B, batch.key, Physics.of(self.options), partner), batch.mask_B

    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        """As of one direction, and what b is restored from."""
        return {**super().visuals(batch), "degraded_B": self.low_field(batch)[0]}


class DegradeModel(GeneratorModel):
    """`--model degrade`."""

    Options = DegradeOptions

    def __init__(self, options: DegradeOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        self.stages = [DegradeStage(self, options)]
