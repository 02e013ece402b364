"""The adversarial stage: docs/method.md section 3 as code. CycleGAN is this stage without L_syn (Zhu et al. 2017).

Models with G_AB and D_B alone (pix2pix, CUT) are this stage with one direction and terms of their own.

`D_B` judges images of domain B; the original CycleGAN code calls that one `D_A`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from data.batch import Batch
from models import losses
from models.adversarial_options import Weights
from models.averages import Averages
from models.base_model import adam, learning_rate
from models.chance import uniform
from models.generator_model import one_way_visuals, shows_masks
from models.image_pool import ImagePool
from models.losses import cycle_loss, identity_loss, seg_loss
from models.low_field import LowFieldScan
from models.passes import frozen, full, translate
from models.stage import Stage
from models.training_state import count_in, load_pool
from models.update import StepContext, Update

DIRECTIONS = (("A", "B"), ("B", "A"))  # source, target
SYN = {"B": "syn", "A": "syn_A"}  # L_syn's name in the log, by the target domain; only the first is published

ByDomain = Mapping[str, Tensor]


class Judged(Protocol):
    """What the stage needs of a model: generators by the domain of their images, discriminators by what they judge."""

    averages: Averages
    norm_D: str
    image_size: tuple[int, int]

    @property
    def options(self) -> Any: ...
    @property
    def generators(self) -> Mapping[str, nn.Module]: ...
    @property
    def discriminators(self) -> Mapping[str, nn.Module]: ...


class GANStage(Stage):
    """Generators against discriminators. PTA (models/pta_model.py) changes the input of D_B and adds L_syn.

    Attributes:
        G: generators by target domain: G["B"] is G_AB; a model with one direction has no other.
        D: discriminators by the domain that they judge.
    """

    name = "gan"
    condition_channels = 0  # of what D sees beside an image, see `conditioned`
    options: Any  # GANOptions, or those of a subclass

    def __init__(self, model: Judged, weights: Weights) -> None:
        o = model.options
        self.G, self.D = dict(model.generators), dict(model.discriminators)
        super().__init__([*self.G.values(), *self.D.values()], o.n_epochs + o.n_epochs_decay)
        self.averages, self.options, self.weights = model.averages, o, weights
        self._norm_D, self._image_size = model.norm_D, model.image_size
        self.splits = "batch" not in (o.norm, model.norm_D)  # batch statistics need the whole batch
        self.smaller = ("--load_size", *(("--hybrid_width",) if o.netG == "hybrid" else ("--ngf",)))
        self.pools = {domain: ImagePool(o.pool_size) for domain in self.D}
        self.optimisers = {"G": adam([*self.G.values()], o), "D": adam([*self.D.values()], o)}

    def learning_rate(self, epoch: int, step: int) -> float:
        return learning_rate(self.options, epoch)

    # what other models change ----------------------------------------------------------------------------------

    def partners(self, batch: Batch, context: StepContext) -> ByDomain:
        """Partners for L_syn, (N, 1, H, W) each: "A" holds a partner b* for every a, "B" a partner for every b."""
        return {"A": batch.B, "B": batch.A}

    def syn_loss(self, domain: str, fake: Tensor, partner: Tensor, keys: Tensor) -> Tensor:
        """L_syn between a synthesised image of `domain` and the partner of its source image."""
        return losses.syn_l1_loss(fake, partner)

    def judged(self, domain: str, image: Tensor, keys: Tensor, by: str) -> list[Tensor]:
        """The inputs that the discriminator of `domain` gets for `image`; `by` names the update."""
        return [image]

    def conditioned(self, domain: str, image: Tensor, batch: Batch) -> Tensor:
        """What is judged, and kept in the pool, of `image` (N, 1, H, W): more channels if D sees something beside."""
        return image

    def source(self, domain: str, batch: Batch) -> Tensor:
        """What the generator of the other domain translates of a slice of `domain`."""
        return batch.image(domain)

    def add_terms(self, update: Update, batch: Batch, domain: str, made: Tensor, fake: Tensor) -> None:
        """Terms of a model's own: `made` has the generator's graph, for `hold`; `fake` is a cut of it, for `add`."""

    # the step --------------------------------------------------------------------------------------------------

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """One update of both generators and one of both discriminators."""
        partners = self.partners(batch, context)
        fakes: dict[str, list[Tensor]] = {domain: [] for domain in self.D}
        update_G = Update(self.optimisers["G"], context)
        for rows, part in update_G.micro_batches(batch, split=self.splits):
            with context.autocast():
                made = self.losses(part, update_G, {domain: x[rows] for domain, x in partners.items()})
            for domain, fake in made.items():
                fakes[domain].append(self.conditioned(domain, fake.detach(), part))
        update_G.send()  # the sum over processes overlaps with the discriminators' update, which does not need it
        update_D = Update(self.optimisers["D"], context)
        pooled = {
            domain: pool.query(full(self._cat(fakes[domain], batch.A)), uniform(batch.key, f"pool of fake_{domain}", 2))
            for domain, pool in self.pools.items()
        }
        for rows, part in update_D.micro_batches(batch, split=self.splits):
            with context.autocast():
                self.discriminator_losses(part, update_D, {domain: x[rows] for domain, x in pooled.items()})
        update_D.apply()
        update_G.apply()
        self.averages.update(*self.averages.averaged)
        return update_G.terms | update_D.terms

    def losses(self, batch: Batch, update: Update, partners: ByDomain | None = None) -> dict[str, Tensor]:
        """The generators' loss, docs/method.md section 3.3. Returns the synthesised images by domain.

        L = lambda_cycle L_cycle + lambda_adv L_adv + lambda_seg L_seg + lambda_syn L_syn + lambda_idt L_idt
        """
        w, G, scan = self.weights, self.G, LowFieldScan(self.options, batch)
        lambda_syn = {"B": w.syn, "A": w.syn_A}
        real, mask = {"A": batch.A, "B": batch.B}, {"A": batch.mask_A, "B": batch.mask_B}
        partner = partners or self.partners(batch, update.context)
        with_masks = shows_masks(self.options, update.context)
        shown: dict[str, Tensor | None] = dict(mask) if with_masks else dict.fromkeys(mask)
        fake: dict[str, Tensor] = {}

        with frozen(*self.D.values()):
            for a, b in (each for each in DIRECTIONS if each[1] in G):
                made, logits = translate(G[b], self.source(a, batch), shown[a])  # fake_B = G_AB(a)
                fake[b] = update.cut(scan.on_fake(b, made))
                if w.cycle:
                    rec, _ = translate(G[a], scan.on_way_back(b, fake[b]), shown[a])  # rec_A = G_BA(fake_B)
                    update.add("cycle", w.cycle, cycle_loss(rec, real[a]))
                judged = self.conditioned(b, fake[b], batch)
                update.add("adv", w.adv, self._generator_adv_loss(b, judged, batch.key))
                if w.seg and logits is not None:
                    update.hold("seg", w.seg, seg_loss(logits, mask[a]))
                if lambda_syn[b]:
                    update.hold(SYN[b], lambda_syn[b], self.syn_loss(b, made, partner[a], batch.key))
                self.add_terms(update, batch, b, made, fake[b])
                update.join(fake[b])
            if w.idt:
                for b in G:
                    idt, _ = translate(G[b], scan.on_real(b, real[b]), shown[b])  # idt_B = G_AB(b)
                    update.add("idt", w.idt, identity_loss(idt, real[b]))
        return fake

    def discriminator_losses(self, batch: Batch, update: Update, fakes: ByDomain) -> None:
        """The discriminators' loss L_D (docs/method.md section 3.4) on real images and on images from the pools."""
        keys = torch.cat([batch.key, batch.key])
        for domain in self.D:
            with torch.no_grad():
                real = self.conditioned(domain, batch.image(domain), batch)
                shown = self.judged(domain, torch.cat([real, fakes[domain]]), keys, "discriminators")
            terms = [self._discriminator_loss(domain, both, batch.key, update.context) for both in shown]
            update.add(f"D_{domain}", 1.0, torch.stack(terms).sum())

    def _generator_adv_loss(self, domain: str, fake: Tensor, keys: Tensor) -> Tensor:
        """L_adv of the generators: the discriminator of `domain` should take `fake` for real."""
        shown = self.judged(domain, fake, keys, "generators")
        return torch.stack([self._adversarial(self.D[domain](x), real=True) for x in shown]).sum()

    def _discriminator_loss(self, domain: str, both: Tensor, keys: Tensor, context: StepContext) -> Tensor:
        """Half the sum of D's losses on real and fake images; with wgangp the whole sum plus the gradient penalty.

        `both`: the real images, then the fake ones, along the batch dimension.
        """
        D, (real, fake) = self.D[domain], both.chunk(2)
        if self._norm_D == "batch":  # two passes, so that real and fake images do not share batch statistics
            real_scores, fake_scores = D(real), D(fake)
        else:
            real_scores, fake_scores = D(both).chunk(2)
        loss = self._adversarial(real_scores, real=True) + self._adversarial(fake_scores, real=False)
        if self.options.gan_mode != "wgangp":
            return 0.5 * loss
        with context.float32():
            penalty = losses.gradient_penalty(D, full(real), full(fake), uniform(keys, "penalty"))
        return loss + self.options.lambda_gp * penalty

    def _adversarial(self, scores: Tensor, *, real: bool) -> Tensor:
        o = self.options
        label = o.real_label if real else o.fake_label
        return losses.adversarial_loss(full(scores), real=real, mode=o.gan_mode, label=label)

    # around the step -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        """Real, synthesised and, with two directions, reconstructed images, by the averaged generators."""
        if "A" not in self.G:
            return one_way_visuals(self.averages.averaged["G_AB"], batch)
        G_AB, G_BA = self.averages.averaged["G_AB"], self.averages.averaged["G_BA"]
        fake_B, fake_A = translate(G_AB, batch.A)[0], translate(G_BA, batch.B)[0]
        rec_A, rec_B = translate(G_BA, fake_B)[0], translate(G_AB, fake_A)[0]
        return {
            "real_A": batch.A, "fake_B": fake_B, "rec_A": rec_A, "real_B": batch.B, "fake_A": fake_A, "rec_B": rec_B
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {"updates": self.averages.updates}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.averages.updates = count_in(state["updates"], "updates")

    def process_state(self) -> dict[str, Any]:
        return {"pools": {name: pool.state_dict() for name, pool in self.pools.items()}}

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        dtype = next(self.networks[0].parameters()).dtype
        for name, pool in self.pools.items():
            load_pool(pool, state["pools"][name], (1 + self.condition_channels, *self._image_size), dtype, name)

    def _cat(self, parts: list[Tensor], empty: Tensor) -> Tensor:
        """The parts as one tensor; `empty` if there are none because this process has no images of the batch."""
        return torch.cat(parts) if parts else empty.expand(-1, 1 + self.condition_channels, -1, -1)
