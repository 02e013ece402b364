"""PTA: CycleGAN-like training guided by the pretext tasks (method.md section 3; arXiv 2503.05339).

SGP and LSC are trained first, unless their weights are given; then both are frozen. SGP chooses the partners b* of
L_syn; D_B judges an image together with what LSC makes of it, and the generator feels that through R.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.batch import Batch
from models import losses
from models.adversarial_options import AdversarialOptions, Weights
from models.base_model import Stage, StepContext
from models.chance import normal, uniform
from models.cycle_gan_model import GAN, CycleGANModel
from models.lsc_model import (
    LSC,
    LSCModel,
    LSCTraining,
    MemoryWatch,
    lsc_activation_bytes,
    lsc_optimiser,
    lsc_stage,
    lsc_step,
    lsc_visuals,
)
from models.sgp_model import (
    SGP,
    SGPModel,
    SGPTraining,
    sgp_activation_bytes,
    sgp_figures,
    sgp_optimiser,
    sgp_stage,
    sgp_step,
)
from models.weights import load_weights
from util.processes import Processes
from util.schema import flag

# method.md section 3; `balanced` is ours, the best of some twenty single trials on simulated subjects. L_idt is in it
# because one demo without it shifted the head by a pixel or two, which no other term forbids.
LOSS_PRESETS = {
    "paper": Weights(syn=0.5, idt=0.0, cycle=0.2, adv=0.3, seg=0.5),
    "released": Weights(syn=0.0, idt=5.0, cycle=10.0, adv=1.0, seg=0.5),
    "balanced": Weights(syn=2.0, syn_A=2.0, idt=1.0, cycle=5.0, adv=1.0, seg=0.5),
}
PRETEXT_EPOCHS = 1_000_000  # pretext stages end by their number of steps
SYN_NOISE = 0.05  # standard deviation of the noise that E_B sees on both images of L_syn


@dataclass(frozen=True)
class PTAOptions(SGPTraining, LSCTraining, AdversarialOptions):
    """Options of the PTA models."""

    loss_preset: str = flag(
        "balanced", "set of lambdas; an explicit --lambda_* wins", group="loss", choices=LOSS_PRESETS
    )
    lambda_syn: float | None = flag(None, "weight of L_syn; none: the preset's", group="loss", low=0)
    lambda_syn_A: float | None = flag(
        None, "weight of L_syn of the other direction, G_BA(b*) and a; none: the preset's", group="loss", low=0
    )
    lambda_idt: float | None = flag(None, "weight of L_idt; none: the preset's", group="loss", low=0)
    lambda_cycle: float | None = flag(None, "weight of L_cycle; none: the preset's", group="loss", low=0)
    lambda_adv: float | None = flag(None, "weight of L_adv; none: the preset's", group="loss", low=0)
    lambda_seg: float | None = flag(None, "weight of L_seg; none: the preset's", group="loss", low=0)
    sgp_match: str = flag(
        "bank", "partner b*: k nearest in all of B, Hungarian in the batch, or level p alone", group="SGP",
        choices=("bank", "batch", "none"),
    )  # fmt: skip
    sgp_bank_k: int = flag(8, "nearest slices that --sgp_match bank draws from", group="SGP", low=1)
    syn_form: str = flag("l1", "L_syn: distance of pixels, or of E_B's embeddings", group="loss", choices=("l1", "cos"))
    pretext_adv: str = flag(
        "concat", "D_B judges x with R(C(x)), both one after the other, or x alone", group="LSC",
        choices=("concat", "separate", "none"),
    )  # fmt: skip
    sgp_weights: str | None = flag(None, "run folder or .pth of a trained SGP; none: train it first", group="SGP")
    lsc_weights: str | None = flag(None, "run folder or .pth of a trained LSC; none: train it first", group="LSC")


class PTAModel(CycleGANModel):
    """`--model pta_hybrid`."""

    Options: type = PTAOptions
    pretext_steps: ClassVar = SGPModel.pretext_steps | LSCModel.pretext_steps
    dataset_mode = "unaligned_mask"
    supports_BtoA = False  # R and the bank know the high field only

    options: PTAOptions

    def __init__(self, options: PTAOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        o = options
        uses_syn_embedding = (self.weights.syn > 0 or self.weights.syn_A > 0) and o.syn_form == "cos"
        self.sgp = SGP(o) if o.sgp_match != "none" or uses_syn_embedding else None
        self.lsc = LSC(o) if o.pretext_adv != "none" else None
        self.watch = MemoryWatch()
        before: list[Stage] = []
        if self.sgp is not None and o.sgp_weights is not None:
            load_weights(self.sgp.network, o.sgp_weights, "SGP")
        elif self.sgp is not None:
            before.append(sgp_stage(o, PRETEXT_EPOCHS))
            self._add_optimiser(*sgp_optimiser(self.sgp, o))
        if self.lsc is not None and o.lsc_weights is not None:
            load_weights(self.lsc.network, o.lsc_weights, "LSC")
        elif self.lsc is not None:
            before.append(lsc_stage(o, PRETEXT_EPOCHS))
            self._add_optimiser(*lsc_optimiser(self.lsc, o))
        self.stages = (*(replace(stage, epochs_before=None) for stage in before), *self.stages)

    def _add_optimiser(self, optimisers: dict[str, Any], schedulers: dict[str, Any]) -> None:
        self.optimisers |= optimisers
        self.schedulers |= schedulers

    # stages ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        if stage.name == "sgp" and self.sgp is not None:
            return sgp_step(self.sgp, self.optimisers["sgp"], self.schedulers["sgp"], batch, context)
        if stage.name == "lsc" and self.lsc is not None:
            return lsc_step(self.lsc, self.optimisers["lsc"], self.schedulers["lsc"], batch, context, self.watch)
        return super().training_step(batch, stage, context)

    def splits(self, stage: Stage) -> bool:
        """The adversarial stages alone: SGP's loss couples a batch's rows, LSC's network is small."""
        return stage.name not in ("sgp", "lsc") and super().splits(stage)

    def activation_bytes(self, batch: Batch, stage: Stage, context: StepContext) -> int:
        if stage.name == "sgp" and self.sgp is not None:
            return sgp_activation_bytes(self, self.sgp, batch, context)
        if stage.name == "lsc" and self.lsc is not None:
            return lsc_activation_bytes(self, self.lsc, batch, context)
        return super().activation_bytes(batch, stage, context)

    def stage_networks(self, stage: Stage) -> list[nn.Module]:
        """Networks of the stage; the pretext networks are frozen once the adversarial stage begins."""
        pretext: dict[str, nn.Module | None] = {"sgp": self.sgp, "lsc": self.lsc}
        for name, part in pretext.items():
            if part is not None:
                part.requires_grad_(stage.name == name)
        chosen = pretext.get(stage.name)
        return [chosen] if chosen is not None else super().stage_networks(stage)

    def costly_networks(self) -> list[nn.Module]:
        return [*super().costly_networks(), *([self.lsc.network] if self.lsc is not None else [])]

    def validate(self, stage: Stage, batches: Iterator[Batch], context: StepContext) -> dict[str, float]:
        if stage.name == "sgp" and self.sgp is not None:
            return sgp_figures(self.sgp, batches, context)
        if stage.name == "lsc" and self.lsc is not None:
            return self.watch.figures(self.lsc, batches, context)
        return {}

    def wants_to_stop(self, stage: Stage) -> str:
        return self.watch.verdict if stage.name == "lsc" else ""

    def wants_partners(self, stage: Stage) -> bool:
        return stage.name == GAN and self.options.sgp_match == "bank"

    def partners(
        self, low: Iterator[Tensor], high: Iterator[Tensor], totals: tuple[int, int], processes: Processes
    ) -> NDArray[np.int64]:
        assert self.sgp is not None
        return self.sgp.nearest(low, high, self.options.sgp_bank_k, totals, processes)

    def partner_bytes(self, low: int, high: int) -> int:
        bank = self.sgp is not None and self.options.sgp_match == "bank"
        return self.sgp.nearest_bytes(low, high, self.options.sgp_bank_k) if bank and self.sgp is not None else 0

    def visuals(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        if stage.name == "lsc" and self.lsc is not None:
            return lsc_visuals(self.lsc, batch)
        return {"real_A": batch.A, "real_B": batch.B} if stage.name == "sgp" else super().visuals(batch, stage, context)

    # the adversarial step ---------------------------------------------------------------------------------------

    @property
    def channels_D_B(self) -> int:
        return 2 if self.options.pretext_adv == "concat" else 1

    def make_weights(self) -> Weights:
        o, preset = self.options, LOSS_PRESETS[self.options.loss_preset]
        chosen = {name: getattr(o, f"lambda_{name}") for name in ("syn", "syn_A", "idt", "cycle", "adv", "seg")}
        return Weights(**{name: getattr(preset, name) if v is None else v for name, v in chosen.items()})

    def begin_step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """The step's C for the generators, and what L_syn compares with: drawn once for the whole batch."""
        extras = super().begin_step(batch, context)
        if self.lsc is not None:
            extras["draws_G"] = self.lsc.draw(batch.B, batch.key, "C of the generators")
        if self.weights.syn > 0 or self.weights.syn_A > 0:
            extras["partner_of_A"], extras["partner_of_B"] = self._partners_in_step(batch, context)
            if self.options.syn_form == "cos":
                noise = normal(batch.key, "noise of L_syn", *batch.B.shape[1:])
                extras["noise"] = SYN_NOISE * noise.to(batch.B, non_blocking=True)
                extras["corners"] = uniform(batch.key, "crop of L_syn", 2)
        return extras

    def _partners_in_step(self, batch: Batch, context: StepContext) -> tuple[Tensor, Tensor]:
        """b* of every a, and a of every b*, (N, 1, H, W) both; --sgp_match batch looks for them in all processes."""
        if self.options.sgp_match != "batch" or self.sgp is None:
            return batch.B, batch.A
        counts, mine = context.rows(batch), context.processes.part(context.images or len(batch))
        order = self.sgp.assign(batch, context)
        every_A, every_B = (torch.cat(context.processes.gather_rows(x, counts)) for x in (batch.A, batch.B))
        return every_B[order[mine]], every_A[order.argsort()[mine]]

    def draw_for_discriminator(self, batch: Batch) -> Tensor | None:
        return None if self.lsc is None else self.lsc.draw(batch.B, batch.key, "C of the discriminators")

    def judged_B(self, x: Tensor, draws: Tensor | None) -> list[Tensor]:
        """`concat`: (N, 2, H, W) of x and R(C(x)); `separate`: one after the other, as released; `none`: x."""
        if self.lsc is None or draws is None:
            return [x]
        restored = self.lsc(x, draws)
        if self.options.pretext_adv == "separate":
            return [x, restored]
        return [torch.cat([x, restored], 1)]

    def extra_terms(self, domain: str, fake: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """L_syn between fake_B = G_AB(a) and a's partner b*; `syn_A`, ours: between fake_A = G_BA(b*) and a.

        The second gives G_BA the low field's tones within a few hundred images; D_A alone needs thousands.
        """
        if domain == "B":
            return {"syn": self._syn_loss("B", fake, extras["partner_of_A"], extras)} if self.weights.syn else {}
        return {"syn_A": self._syn_loss("A", fake, extras["partner_of_B"], extras)} if self.weights.syn_A else {}

    def _syn_loss(self, domain: str, fake: Tensor, partner: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """By pixels, or by that domain's SGP encoder on the same crop and noise of both."""
        if self.options.syn_form == "l1":
            return losses.syn_l1_loss(fake, partner)
        assert self.sgp is not None
        pair = (fake + extras["noise"], partner + extras["noise"])
        u, v = (self.sgp.network(x, domain, extras["corners"]) for x in pair)
        return losses.syn_cos_loss(u, v)

    def training_state(self) -> dict[str, Any]:
        return {**super().training_state(), "watch": self.watch.state_dict()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        super().load_training_state(state)
        self.watch.load_state_dict(state["watch"])

    def exported_networks(self) -> dict[str, nn.Module]:
        pretext = {"SGP": self.sgp, "LSC": self.lsc}
        return {**super().exported_networks(), **{name: part.network for name, part in pretext.items() if part}}
