"""`--model cycle_gan`: two generators, two discriminators, cycle and identity losses (Zhu et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from models.adversarial_options import AdversarialOptions
from models.gan_stage import GANStage, Weights
from models.generator_pair import GeneratorPair
from models.refinement import with_refinement
from util.needs import chosen
from util.schema import flag


@dataclass(frozen=True)
class CycleGANOptions(AdversarialOptions):
    """Options of `--model cycle_gan`."""

    lambda_cycle: float = flag(10.0, "weight of L_cycle", group="loss", low=0)
    lambda_idt: float = flag(5.0, "weight of L_idt", group="loss", low=0)
    lambda_adv: float = flag(1.0, "weight of L_adv", group="loss", low=0)
    lambda_seg: float = flag(0.5, "weight of L_seg", group="loss", low=0, needs=chosen(netG=("hybrid",)))


class CycleGANModel(GeneratorPair):
    """The adversarial stage without pretext tasks, and the refinement if `--n_epochs_refine` asks for it."""

    Options: type = CycleGANOptions

    def __init__(self, options: CycleGANOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        o = options
        weights = Weights(cycle=o.lambda_cycle, idt=o.lambda_idt, adv=o.lambda_adv, seg=o.lambda_seg)
        self.stages = with_refinement(GANStage(self, weights))
