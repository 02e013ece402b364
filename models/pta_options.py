"""Options of the PTA models (models/pta_model.py)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from models.adversarial_options import AdversarialOptions, Weights
from models.low_field_options import PARTNER
from models.lsc_options import LSC_STEPS, USES_LSC, LSCTraining
from models.sgp_options import SGP_STEPS, USES_SGP, SGPTraining
from util.needs import Need, chosen
from util.schema import flag

# docs/method.md section 3.3; `balanced` is ours, the best of some twenty single trials on simulated subjects. It
# includes L_idt because one demo without it shifted the head by a pixel or two, which no other term penalises.
LOSS_PRESETS = {
    "paper": Weights(syn=0.5, idt=0.0, cycle=0.2, adv=0.3, seg=0.5),
    "released": Weights(syn=0.0, idt=5.0, cycle=10.0, adv=1.0, seg=0.5),
    "balanced": Weights(syn=2.0, syn_A=2.0, idt=1.0, cycle=5.0, adv=1.0, seg=0.5),
}


@dataclass(frozen=True)
class PTAOptions(SGPTraining, LSCTraining, AdversarialOptions):
    """Options of the PTA models."""

    supports_BtoA: ClassVar = False  # R and the bank know the high field only
    pretext_steps: ClassVar = {"sgp_steps": SGP_STEPS, "lsc_steps": LSC_STEPS}

    loss_preset: str = flag(
        "balanced",
        "set of lambdas; an explicit --lambda_* wins",
        group="loss",
        choices=LOSS_PRESETS,
        needs=Need("a --lambda_* that is not given", lambda o: o.takes_weights_of_preset),
    )
    lambda_syn: float | None = flag(None, "weight of L_syn; none: the preset's", group="loss", low=0)
    lambda_syn_A: float | None = flag(
        None, "weight of L_syn of the other direction, G_BA(b*) and a; none: the preset's", group="loss", low=0
    )
    lambda_idt: float | None = flag(None, "weight of L_idt; none: the preset's", group="loss", low=0)
    lambda_cycle: float | None = flag(None, "weight of L_cycle; none: the preset's", group="loss", low=0)
    lambda_adv: float | None = flag(None, "weight of L_adv; none: the preset's", group="loss", low=0)
    lambda_seg: float | None = flag(
        None, "weight of L_seg; none: the preset's", group="loss", low=0, needs=chosen(netG=("hybrid",))
    )
    sgp_match: str = flag(
        "bank",
        "partner b*: near in all of B, each equally often; Hungarian in the batch; or level p alone",
        group="SGP",
        choices=("bank", "batch", "none"),
    )
    sgp_bank_k: int = flag(
        16,
        "--sgp_match bank pairs every slice with so many nearest ones of the other field",
        group="SGP",
        low=1,
        needs=chosen(sgp_match=("bank",)),
    )
    sgp_window: float = flag(
        0.0,
        "--sgp_match bank looks for partners within this difference of levels (--align_levels); 0: at all levels",
        group="SGP",
        low=0,
        high=1,
        needs=chosen(sgp_match=("bank",)),
    )
    syn_form: str = flag(
        "l1",
        "L_syn: distance of pixels, or of E_B's embeddings",
        group="loss",
        choices=("l1", "cos"),
        needs=Need("a --lambda_syn or --lambda_syn_A above 0", lambda o: o.has_syn),
    )
    pretext_adv: str = flag(
        "concat", "D_B judges x with R(C(x)), both one after the other, or x alone", group="LSC",
        choices=("concat", "separate", "none"),
    )  # fmt: skip
    sgp_weights: str | None = flag(
        None, "run folder or .pth of a trained SGP; none: train it first", group="SGP", needs=USES_SGP
    )
    lsc_weights: str | None = flag(
        None, "run folder or .pth of a trained LSC; none: train it first", group="LSC", needs=USES_LSC
    )

    # derived from the options; the `needs` of options refer to these

    @property
    def weights(self) -> Weights:
        """The lambdas of --loss_preset; an explicit --lambda_* replaces its value."""
        given = {each.name: getattr(self, f"lambda_{each.name}") for each in fields(Weights)}
        given = {name: value for name, value in given.items() if value is not None}
        return replace(LOSS_PRESETS[self.loss_preset], **given)

    @property
    def takes_weights_of_preset(self) -> bool:
        names = {each.name for each in fields(Weights)} - ({"seg"} if self.netG != "hybrid" else set())
        return any(getattr(self, f"lambda_{name}") is None for name in names)

    @property
    def has_syn(self) -> bool:
        return self.weights.syn > 0 or self.weights.syn_A > 0

    @property
    def uses_sgp(self) -> bool:
        return self.sgp_match != "none" or (self.has_syn and self.syn_form == "cos")

    @property
    def trains_sgp(self) -> bool:
        return self.uses_sgp and self.sgp_weights is None

    @property
    def uses_lsc(self) -> bool:
        return self.pretext_adv != "none"

    @property
    def trains_lsc(self) -> bool:
        return self.uses_lsc and self.lsc_weights is None

    @property
    def pairs_by_level(self) -> bool:
        """Whether some stage pairs slices by level and not by SGP's table."""
        refines_by_level = self.n_epochs_refine > 0 and self.lf_shading != PARTNER
        return self.sgp_match != "bank" or self.trains_sgp or self.trains_lsc or refines_by_level


def _netG(default: str) -> Any:
    """--netG with another default."""
    (declared,) = (each for each in fields(PTAOptions) if each.name == "netG")
    return field(default=default, metadata=declared.metadata)


@dataclass(frozen=True)
class PTACycleGANOptions(PTAOptions):
    """Options of `--model pta_cyclegan`."""

    keeps: ClassVar = frozenset({"netG"})

    netG: str = _netG("resnet_9blocks")


@dataclass(frozen=True)
class PTAUnetOptions(PTAOptions):
    """Options of `--model pta_unet`."""

    keeps: ClassVar = frozenset({"netG"})

    netG: str = _netG("unet_256")
