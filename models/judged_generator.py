"""The base of models with one direction and a discriminator: G_AB and D_B."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from models.adversarial_options import GANOptions
from models.generator_model import GeneratorModel
from models.networks import discriminator_norm, make_discriminator


class JudgedGenerator(GeneratorModel):
    """G_AB, its average, and D_B. Subclasses add `stages`.

    Args: channels_G, channels_D_B: input channels of G_AB and of D_B.
    """

    options: GANOptions

    def __init__(
        self, options: GANOptions, image_size: tuple[int, int], *, channels_G: int = 1, channels_D_B: int = 1
    ) -> None:
        super().__init__(options, image_size, channels_G=channels_G)
        self.norm_D = discriminator_norm(options, options)
        self.D_B = make_discriminator(options, options, channels_D_B)
        with torch.no_grad():
            self.D_B(torch.zeros(1, channels_D_B, *image_size))  # raises before training if images are too small

    @property
    def generators(self) -> Mapping[str, nn.Module]:
        """By the domain of their images."""
        return {"B": self.G_AB}

    @property
    def discriminators(self) -> Mapping[str, nn.Module]:
        """By the domain that they judge."""
        return {"B": self.D_B}

    def costly_networks(self) -> list[nn.Module]:
        return [self.G_AB, self.D_B]

    def exported_networks(self) -> dict[str, nn.Module]:
        return {"G_AB": self.ema_G_AB, "D_B": self.D_B}
