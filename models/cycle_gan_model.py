"""`--model cycle_gan`: two generators, two discriminators, cycle and identity losses (Zhu et al. 2017)."""

from __future__ import annotations

from models.adversarial_options import Weights
from models.cycle_gan_options import CycleGANOptions
from models.gan_stage import GANStage
from models.generator_pair import GeneratorPair
from models.refinement import with_refinement


class CycleGANModel(GeneratorPair):
    """The adversarial stage without pretext tasks, and the refinement if `--n_epochs_refine` asks for it."""

    Options = CycleGANOptions

    def __init__(self, options: CycleGANOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        o = options
        weights = Weights(cycle=o.lambda_cycle, idt=o.lambda_idt, adv=o.lambda_adv, seg=o.lambda_seg)
        self.stages = with_refinement(GANStage(self, weights))
