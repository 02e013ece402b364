"""PTA: CycleGAN-like training guided by the pretext tasks (docs/method.md section 3; arXiv 2503.05339).

SGP and LSC are trained first, unless their weights are given; then both are frozen. SGP chooses the partners b* of
L_syn. D_B judges an image together with LSC's restoration of it, and gradients reach the generator through R.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from data.batch import BATCH, PAIR, Batch, Levels, Pairs
from models import losses
from models.adversarial_options import Weights
from models.chance import normal, uniform
from models.gan_stage import ByDomain, GANStage
from models.generator_pair import GeneratorPair
from models.lsc_model import LSC, LSCStage
from models.matching import even_pairs
from models.passes import full
from models.pta_options import PTACycleGANOptions, PTAOptions, PTAUnetOptions
from models.refinement import with_refinement
from models.sgp_model import SGP, SGPStage
from models.stage import Stage
from models.update import StepContext
from models.weights import load_weights
from util.processes import Processes

PRETEXT_EPOCHS = 1_000_000  # no limit: the number of steps ends a pretext stage
SYN_NOISE = 0.05  # standard deviation of the noise on both images before the encoder, for --syn_form cos


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
            self.places = BATCH if self.options.sgp_match == "batch" else PAIR

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
        self, low: Iterator[Tensor], high: Iterator[Tensor], levels: Levels, processes: Processes
    ) -> Pairs:
        """`--sgp_match bank`: pairs of slices that are near each other by SGP's embeddings, and by level."""
        assert self.sgp is not None
        o = self.options
        near = self.sgp.nearest(low, high, o.sgp_bank_k, levels, window=o.sgp_window, processes=processes)
        return even_pairs(*near)


class PTAModel(GeneratorPair):
    """`--model pta_hybrid`: SGP and LSC unless their weights are given, the adversarial stage, and the refinement."""

    Options: type[PTAOptions] = PTAOptions
    options: PTAOptions

    def __init__(self, options: PTAOptions, image_size: tuple[int, int]) -> None:
        o = options
        super().__init__(o, image_size, channels_D_B=2 if o.pretext_adv == "concat" else 1)
        self.sgp = SGP(o) if o.uses_sgp else None
        self.lsc = LSC(o) if o.uses_lsc else None
        pretext: list[Stage] = []
        if self.sgp is not None and o.trains_sgp:
            pretext.append(SGPStage(self.sgp, o, PRETEXT_EPOCHS, epochs_before=None))
        if self.lsc is not None and o.trains_lsc:
            pretext.append(LSCStage(self.lsc, o, PRETEXT_EPOCHS, epochs_before=None))
        self.stages = [*pretext, *with_refinement(PTAStage(self, o.weights, self.sgp, self.lsc))]

    def load_given_weights(self) -> None:
        o = self.options
        if self.sgp is not None and o.sgp_weights is not None:
            load_weights(self.sgp.network, o.sgp_weights, "SGP")
        if self.lsc is not None and o.lsc_weights is not None:
            load_weights(self.lsc.network, o.lsc_weights, "LSC")

    def costly_networks(self) -> list[nn.Module]:
        return [*super().costly_networks(), *([self.lsc.network] if self.lsc is not None else [])]

    def exported_networks(self) -> dict[str, nn.Module]:
        pretext = {"SGP": self.sgp, "LSC": self.lsc}
        return {**super().exported_networks(), **{name: part.network for name, part in pretext.items() if part}}


class PTACycleGANModel(PTAModel):
    """`--model pta_cyclegan`: the same with CycleGAN's generator."""

    Options = PTACycleGANOptions


class PTAUnetModel(PTAModel):
    """`--model pta_unet`: the same with pix2pix's generator."""

    Options = PTAUnetOptions
