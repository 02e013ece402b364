"""`--model pix2pix`: G_AB learns from pairs, and a conditional discriminator judges it (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from data.batch import Batch
from models.adversarial_options import Weights
from models.gan_stage import GANStage
from models.judged_generator import JudgedGenerator
from models.losses import restoration_loss
from models.pix2pix_options import Pix2PixOptions
from models.restoration import L1, psnr_of_pairs
from models.update import StepContext, Update


class Pix2PixStage(GANStage):
    """The adversarial stage with one direction. D_B judges an image together with the low-field slice that it is of."""

    name = "pix2pix"
    condition_channels = 1
    options: Pix2PixOptions

    def conditioned(self, domain: str, image: Tensor, batch: Batch) -> Tensor:
        """The low-field slice and the image, as (N, 2, H, W)."""
        return torch.cat([batch.A, image], 1)

    def add_terms(self, update: Update, batch: Batch, domain: str, made: Tensor, fake: Tensor) -> None:
        """|G_AB(a) - b|, b the true high-field slice of a."""
        update.hold(L1, self.options.lambda_l1, restoration_loss(made, batch.B))

    def validate(self, unseen: Iterator[Batch], seen: Iterator[Batch], context: StepContext) -> dict[str, float]:
        return psnr_of_pairs(self.averages.averaged["G_AB"], unseen, seen, context)


class Pix2PixModel(JudgedGenerator):
    """`--model pix2pix`; needs --dataset_mode aligned."""

    Options = Pix2PixOptions

    def __init__(self, options: Pix2PixOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size, channels_D_B=2)
        self.stages = [Pix2PixStage(self, Weights(adv=options.lambda_adv, seg=options.lambda_seg))]
