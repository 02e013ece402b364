"""The base of models with two directions: a generator for each, a discriminator per domain, averaged generators."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.adversarial_options import AdversarialOptions
from models.averages import Averages
from models.generator_model import GeneratorModel
from models.networks import discriminator_norm, make_discriminator, make_generator
from models.networks.layers import frozen_copy
from models.passes import translate


class GeneratorPair(GeneratorModel):
    """G_AB and G_BA, D_A and D_B, and the averaged generators, which synthesise. Subclasses add `stages`.

    Args:
        channels_D_B: input channels of D_B.
    """

    options: AdversarialOptions

    def __init__(self, options: AdversarialOptions, image_size: tuple[int, int], *, channels_D_B: int = 1) -> None:
        super().__init__(options, image_size)
        self.G_BA = make_generator(options)
        self.norm_D = discriminator_norm(options, options)
        self.D_A = make_discriminator(options, options, options.input_nc)
        self.D_B = make_discriminator(options, options, channels_D_B)
        self.ema_G_BA = frozen_copy(self.G_BA)
        self.averages = Averages(
            {"G_AB": self.ema_G_AB, "G_BA": self.ema_G_BA}, {"G_AB": self.G_AB, "G_BA": self.G_BA}, options.ema_beta
        )
        with torch.no_grad():
            self.D_A(torch.zeros(1, 1, *image_size))  # raises before training if images are too small

    @property
    def generators(self) -> Mapping[str, nn.Module]:
        """By the domain of their images."""
        return {"B": self.G_AB, "A": self.G_BA}

    @property
    def discriminators(self) -> Mapping[str, nn.Module]:
        """By the domain that they judge."""
        return {"A": self.D_A, "B": self.D_B}

    def costly_networks(self) -> list[nn.Module]:
        return [self.G_AB, self.G_BA, self.D_A, self.D_B]

    def exported_networks(self) -> dict[str, nn.Module]:
        return {"G_AB": self.ema_G_AB, "G_BA": self.ema_G_BA, "D_A": self.D_A, "D_B": self.D_B}

    @torch.no_grad()
    def synthesise_back(self, fake_B: Tensor) -> Tensor:
        """Apply G_BA with averaged weights, without a mask; input and output are (N, 1, H, W) in [-1, 1]."""
        return translate(self.ema_G_BA.eval(), fake_B)[0].float()
