"""`--model supervised`: G_AB learns from pairs, without a discriminator. An upper bound for unpaired models."""

from __future__ import annotations

from collections.abc import Iterator

from data.batch import Batch
from models.generator_model import GeneratorModel
from models.restoration import RestorationStage, psnr_of_pairs
from models.supervised_options import SupervisedOptions
from models.update import StepContext


class SupervisedStage(RestorationStage):
    """G_AB(a) against the true b, by the L1 distance and SSIM."""

    name = "supervised"

    def validate(self, unseen: Iterator[Batch], seen: Iterator[Batch], context: StepContext) -> dict[str, float]:
        return psnr_of_pairs(self.averages.averaged["G_AB"], unseen, seen, context)


class SupervisedModel(GeneratorModel):
    """`--model supervised`; needs --dataset_mode aligned."""

    Options = SupervisedOptions

    def __init__(self, options: SupervisedOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        self.stages = [SupervisedStage(self, options)]
