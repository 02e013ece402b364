"""Options that models with generators share: of the generator, of a discriminator's loss, of two directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.base_options import OptimiserOptions
from models.low_field_options import NO_SCAN, PARTNER, SHADINGS, LowFieldOptions, Strengths
from models.networks import DiscriminatorOptions, GeneratorOptions
from models.physics_options import PhysicsOptions
from util.needs import chosen, positive
from util.schema import flag

GAN_MODES = ("lsgan", "vanilla", "wgangp")
LABELLED = chosen(gan_mode=("lsgan", "vanilla"))  # those of models.losses.LABELLED_LOSSES


@dataclass(frozen=True)
class Weights:
    """The lambdas: the weight of each term in the generators' loss. A term of weight 0 is not computed."""

    cycle: float = 0.0
    adv: float = 0.0
    seg: float = 0.0
    syn: float = 0.0
    syn_A: float = 0.0
    idt: float = 0.0


@dataclass(frozen=True)
class SynthesisOptions(GeneratorOptions, OptimiserOptions):
    """Options of a model with a generator G_AB."""

    can_synthesise: ClassVar = True

    ema_beta: float = flag(
        0.999, "decay of the averaged generators that test.py uses", group="optimisation", low=0, high=1
    )


@dataclass(frozen=True)
class GANOptions(DiscriminatorOptions, SynthesisOptions):
    """Options of a model whose generators are judged by discriminators."""

    gan_mode: str = flag("lsgan", "adversarial loss", group="loss", choices=GAN_MODES)
    real_label: float = flag(0.9, "soft label of real images", group="loss", low=0, high=1, needs=LABELLED)
    fake_label: float = flag(0.1, "soft label of syntheses", group="loss", low=0, high=1, needs=LABELLED)
    lambda_gp: float = flag(
        10.0, "weight of wgangp's gradient penalty", group="loss", low=0, needs=chosen(gan_mode=("wgangp",))
    )
    pool_size: int = flag(50, "earlier syntheses kept for the discriminators; 0: none", group="loss", low=0)

    @property
    def strengths(self) -> Strengths:
        """Noise and receive field that are added to images: none, unless the model has options for them."""
        return NO_SCAN


@dataclass(frozen=True)
class AdversarialOptions(LowFieldOptions, PhysicsOptions, GANOptions):
    """Options of a model with two generators and two discriminators."""

    n_epochs_refine: int = flag(
        0,
        "epochs after all others in which G_AB alone learns, to restore b from the finished G_BA's fake_A",
        group="optimisation",
        low=0,
    )
    refine_ssim: float = flag(
        1.0,
        "weight of 1 - SSIM of the restored b, beside its L1 distance, in the epochs of --n_epochs_refine",
        group="loss",
        low=0,
        needs=positive("n_epochs_refine"),
    )
    lf_shading: str = flag(
        PARTNER,
        "what changes smoothly in the fake_A of the refinement; partner: the local mean of a, at the same level of "
        "another head; random: b's own, times a receive field of --lf_bias",
        group="loss",
        choices=SHADINGS,
        needs=positive("n_epochs_refine"),
    )
    refine_physics: float = flag(
        0.0,
        "part of the refinement's images that are scans of b by estimated physics, as of --model degrade, and not "
        "G_BA's",
        group="loss",
        low=0,
        high=1,
        needs=positive("n_epochs_refine"),
    )

    @property
    def uses_physics(self) -> bool:
        return self.n_epochs_refine > 0 and self.refine_physics > 0
