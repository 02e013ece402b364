"""Options of `--model cycle_gan` (models/cycle_gan_model.py)."""

from __future__ import annotations

from dataclasses import dataclass

from models.adversarial_options import AdversarialOptions
from util.needs import chosen
from util.schema import flag


@dataclass(frozen=True)
class CycleGANOptions(AdversarialOptions):
    """Options of `--model cycle_gan`."""

    lambda_cycle: float = flag(10.0, "weight of L_cycle", group="loss", low=0)
    lambda_idt: float = flag(5.0, "weight of L_idt", group="loss", low=0)
    lambda_adv: float = flag(1.0, "weight of L_adv", group="loss", low=0)
    lambda_seg: float = flag(0.5, "weight of L_seg", group="loss", low=0, needs=chosen(netG=("hybrid",)))
