"""PTA: CycleGAN-like training guided by the pretext tasks (docs/method.md section 3; arXiv 2503.05339).

SGP and LSC are trained first, unless their weights are given; then both are frozen. SGP chooses the partners b* of
L_syn. D_B judges an image together with LSC's restoration of it, and gradients reach the generator through R.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from data.batch import Batch, Pairs
from models import losses
from models.adversarial_options import AdversarialOptions
from models.chance import normal, uniform
from models.gan_stage import ByDomain, GANStage, Weights
from models.generator_pair import GeneratorPair
from models.lsc_model import LSC, USES_LSC, LSCModel, LSCStage, LSCTraining
from models.matching import even_pairs
from models.networks.sgp import USES_SGP
from models.passes import full
from models.refinement import with_refinement
from models.sgp_model import SGP, SGPModel, SGPStage, SGPTraining
from models.stage import Stage
from models.update import StepContext
from models.weights import load_weights
from util.needs import Need, chosen
from util.processes import Processes
from util.schema import flag

# docs/method.md section 3.3; `balanced` is ours, the best of some twenty single trials on simulated subjects. It
# includes L_idt because one demo without it shifted the head by a pixel or two, which no other term penalises.
LOSS_PRESETS = {
    "paper": Weights(syn=0.5, idt=0.0, cycle=0.2, adv=0.3, seg=0.5),
    "released": Weights(syn=0.0, idt=5.0, cycle=10.0, adv=1.0, seg=0.5),
    "balanced": Weights(syn=2.0, syn_A=2.0, idt=1.0, cycle=5.0, adv=1.0, seg=0.5),
}
PRETEXT_EPOCHS = 1_000_000  # no limit: the number of steps ends a pretext stage
SYN_NOISE = 0.05  # standard deviation of the noise on both images before the encoder, for --syn_form cos


@dataclass(frozen=True)
class PTAOptions(SGPTraining, LSCTraining, AdversarialOptions):
    """Options of the PTA models."""

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
        given = {field.name: getattr(self, f"lambda_{field.name}") for field in fields(Weights)}
        given = {name: value for name, value in given.items() if value is not None}
        return replace(LOSS_PRESETS[self.loss_preset], **given)

    @property
    def takes_weights_of_preset(self) -> bool:
        names = {field.name for field in fields(Weights)} - ({"seg"} if self.netG != "hybrid" else set())
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
        return self.sgp_match != "bank" or self.trains_sgp or self.trains_lsc or self.n_epochs_refine > 0


class PTAStage(GANStage):
    """The adversarial stage guided by the pretext tasks: what differs from CycleGAN's (docs/method.md section 3).

    D_B judges x together with R(C(x)), LSC's restoration of a corrupted x; gradients reach the generator through R.
    SGP chooses the partners for L_syn. Both pretext networks are frozen; None: the task is not used.
    """

    options: PTAOptions

    def __init__(self, model: GeneratorPair, weights: Weights, sgp: SGP | None, lsc: LSC | None) -> None:
        super().__init__(model, weights)
        self.sgp, self.lsc = sgp, lsc
        self.chooses_partners = self.options.sgp_match == "bank"
        if self.options.has_syn:
            self.places = "batch" if self.options.sgp_match == "batch" else "pair"

    def judged(self, domain: str, image: Tensor, keys: Tensor, by: str) -> list[Tensor]:
        """`concat`: x and R(C(x)) as (N, 2, H, W); `separate`: both, one by one, as released; `none`, and for A: x.

        C is drawn anew for the generators' and the discriminators' update, and is the same for a real image and the
        synthesised one compared with it.
        """
        if domain == "A" or self.lsc is None:
            return [image]
        restored = self.lsc(image, self.lsc.draw(image, keys, f"C of the {by}"))
        if self.options.pretext_adv == "separate":
            return [image, restored]
        return [torch.cat([image, restored], 1)]

    def syn_loss(self, domain: str, fake: Tensor, partner: Tensor, keys: Tensor) -> Tensor:
        """L_syn between fake_B = G_AB(a) and a's partner b*. L_syn_A, ours: between fake_A = G_BA(b) and b's partner.

        L_syn_A teaches G_BA the grey values of the low field within a few hundred images; D_A alone needs thousands.
        `l1` compares pixels; `cos` compares embeddings by the SGP encoder of `domain`, with the same crop and noise.
        """
        if self.options.syn_form == "l1" or self.sgp is None:
            return losses.syn_l1_loss(fake, partner)
        noise = (SYN_NOISE * normal(keys, "noise of L_syn", *fake.shape[1:])).to(fake.device, non_blocking=True)
        corners = uniform(keys, "crop of L_syn", 2)
        u, v = (full(self.sgp.network(x + noise, domain, corners)) for x in (fake, partner))
        return losses.syn_cos_loss(u, v)

    def partners(self, batch: Batch, context: StepContext) -> ByDomain:
        """The batch's own partners, or with --sgp_match batch the best assignment within the batch of all processes."""
        if self.options.sgp_match != "batch" or self.sgp is None or not (self.weights.syn or self.weights.syn_A):
            return super().partners(batch, context)
        counts, mine = context.images_by_process(batch), context.processes.part(context.images or len(batch))
        order = self.sgp.assign(batch, context)
        every_A, every_B = (torch.cat(context.processes.gather_rows(x, counts)) for x in (batch.A, batch.B))
        return {"A": every_B[order[mine]], "B": every_A[order.argsort()[mine]]}

    def partners_from(
        self, low: Iterator[Tensor], high: Iterator[Tensor], totals: tuple[int, int], processes: Processes
    ) -> Pairs:
        """`--sgp_match bank`: pairs of slices that are near each other by SGP's embeddings."""
        assert self.sgp is not None
        return even_pairs(*self.sgp.nearest(low, high, self.options.sgp_bank_k, totals, processes))


class PTAModel(GeneratorPair):
    """`--model pta_hybrid`: SGP and LSC unless their weights are given, the adversarial stage, and the refinement."""

    Options: type = PTAOptions
    pretext_steps: ClassVar = SGPModel.pretext_steps | LSCModel.pretext_steps
    dataset_mode = "unaligned_mask"
    supports_BtoA = False  # R and the bank know the high field only

    def __init__(self, options: PTAOptions, image_size: tuple[int, int]) -> None:
        o = options
        super().__init__(o, image_size, channels_D_B=2 if o.pretext_adv == "concat" else 1)
        self.sgp = SGP(o) if o.uses_sgp else None
        self.lsc = LSC(o) if o.uses_lsc else None
        pretext: list[Stage] = []
        if self.sgp is not None and o.sgp_weights is not None:
            load_weights(self.sgp.network, o.sgp_weights, "SGP")
        elif self.sgp is not None:
            pretext.append(SGPStage(self.sgp, o, PRETEXT_EPOCHS, epochs_before=None))
        if self.lsc is not None and o.lsc_weights is not None:
            load_weights(self.lsc.network, o.lsc_weights, "LSC")
        elif self.lsc is not None:
            pretext.append(LSCStage(self.lsc, o, PRETEXT_EPOCHS, epochs_before=None))
        self.stages = [*pretext, *with_refinement(PTAStage(self, o.weights, self.sgp, self.lsc))]

    def costly_networks(self) -> list[nn.Module]:
        return [*super().costly_networks(), *([self.lsc.network] if self.lsc is not None else [])]

    def exported_networks(self) -> dict[str, nn.Module]:
        pretext = {"SGP": self.sgp, "LSC": self.lsc}
        return {**super().exported_networks(), **{name: part.network for name, part in pretext.items() if part}}
