"""Options of `--model pix2pix` (models/pix2pix_model.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.adversarial_options import GAN_MODES, LABELLED, GANOptions
from util.needs import chosen
from util.schema import flag


@dataclass(frozen=True)
class Pix2PixOptions(GANOptions):
    """Options of `--model pix2pix`; the weights and the adversarial loss are the published ones."""

    dataset_mode: ClassVar = "aligned"
    paired: ClassVar = True
    pairs_by_level: ClassVar = False
    supports_BtoA: ClassVar = False  # B's slices have no truth
    keeps: ClassVar = frozenset({"gan_mode", "real_label", "fake_label", "pool_size"})

    gan_mode: str = flag("vanilla", "adversarial loss", group="loss", choices=GAN_MODES)
    real_label: float = flag(1.0, "label of real images", group="loss", low=0, high=1, needs=LABELLED)
    fake_label: float = flag(0.0, "label of syntheses", group="loss", low=0, high=1, needs=LABELLED)
    pool_size: int = flag(0, "earlier syntheses, each with its a, kept for D_B; 0: none", group="loss", low=0)
    lambda_l1: float = flag(100.0, "weight of the L1 distance to the truth", group="loss", low=0)
    lambda_adv: float = flag(1.0, "weight of L_adv", group="loss", low=0)
    lambda_seg: float = flag(5.0, "weight of L_seg", group="loss", low=0, needs=chosen(netG=("hybrid",)))
