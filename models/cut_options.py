"""Options of `--model cut` (models/cut_model.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.adversarial_options import GANOptions
from models.low_field_options import LowFieldOptions
from util.needs import Need, chosen
from util.schema import flag

USES_NCE = Need("a --lambda_nce or --lambda_nce_idt above 0", lambda o: o.lambda_nce > 0 or o.lambda_nce_idt > 0)


@dataclass(frozen=True)
class CUTOptions(LowFieldOptions, GANOptions):
    """Options of `--model cut`. It has no G_BA, so there are no epochs of refinement, which need one."""

    keeps: ClassVar = frozenset({"pool_size"})

    pool_size: int = flag(0, "earlier syntheses kept for D_B; 0: none", group="loss", low=0)
    lambda_adv: float = flag(1.0, "weight of L_adv", group="loss", low=0)
    lambda_nce: float = flag(0.5, "weight of PatchNCE between a and fake_B", group="loss", low=0)
    lambda_nce_idt: float = flag(0.5, "weight of PatchNCE between b and G_AB(b)", group="loss", low=0)
    lambda_seg: float = flag(0.5, "weight of L_seg", group="loss", low=0, needs=chosen(netG=("hybrid",)))
    nce_tau: float = flag(0.07, "temperature of PatchNCE", group="loss", low=0.001, high=10, needs=USES_NCE)
    nce_patches: int = flag(
        256, "places of each hidden state that PatchNCE compares, at most", group="loss", low=2, needs=USES_NCE
    )
