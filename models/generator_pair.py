"""The base of all adversarial models: a generator per direction, a discriminator per domain, averaged generators."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.adversarial_options import AdversarialOptions
from models.averages import Averages
from models.base_model import BaseModel
from models.networks import discriminator_norm, make_discriminator, make_generator
from models.networks.layers import check_multiple, frozen_copy
from models.passes import translate


class GeneratorPair(BaseModel):
    """G_AB and G_BA, D_A and D_B, and the averaged generators, which synthesise. Subclasses add `stages`.

    Args:
        channels_D_B: input channels of D_B.
    """

    options: AdversarialOptions

    def __init__(self, options: AdversarialOptions, image_size: tuple[int, int], *, channels_D_B: int = 1) -> None:
        super().__init__(options, image_size)
        self.G_AB, self.G_BA = make_generator(options), make_generator(options)
        self.norm_D = discriminator_norm(options, options)
        self.D_A = make_discriminator(options, options, options.input_nc)
        self.D_B = make_discriminator(options, options, channels_D_B)
        self.ema_G_AB, self.ema_G_BA = frozen_copy(self.G_AB), frozen_copy(self.G_BA)
        self.averages = Averages(
            {"G_AB": self.ema_G_AB, "G_BA": self.ema_G_BA}, {"G_AB": self.G_AB, "G_BA": self.G_BA}, options.ema_beta
        )
        check_multiple(f"--netG {options.netG}", image_size, self.size_multiple)
        with torch.no_grad():
            self.D_A(torch.zeros(1, 1, *image_size))  # raises before training if images are too small

    def costly_networks(self) -> list[nn.Module]:
        return [self.G_AB, self.G_BA, self.D_A, self.D_B]

    def exported_networks(self) -> dict[str, nn.Module]:
        return {"G_AB": self.ema_G_AB, "G_BA": self.ema_G_BA, "D_A": self.D_A, "D_B": self.D_B}

    @property
    def size_multiple(self) -> int:
        return int(self.G_AB.multiple)  # type: ignore[arg-type]

    @torch.no_grad()
    def synthesise(self, real_A: Tensor) -> Tensor:
        """Apply G_AB with averaged weights, without a mask; input and output are (N, 1, H, W) in [-1, 1]."""
        return translate(self.ema_G_AB.eval(), real_A)[0].float()
