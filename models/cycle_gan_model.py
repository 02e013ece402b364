"""CycleGAN (Zhu et al. 2017): two generators, two discriminators, cycle and identity losses.

`D_B` judges images of domain B; the original code calls that one `D_A`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from data.batch import Batch
from models import losses
from models.adversarial_options import AdversarialOptions, Weights
from models.base_model import (
    BaseModel,
    Stage,
    StepContext,
    Update,
    accumulate,
    adam,
    micro_batches,
    scheduler,
)
from models.chance import uniform
from models.image_pool import ImagePool
from models.kept_memory import kept_memory
from models.low_field import disturbed, low_field_draws, noise
from models.networks import (
    discriminator_norm,
    make_discriminator,
    make_generator,
)
from models.networks.layers import check_multiple, ema_update, frozen_copy
from models.passes import full, translate, translate_all
from models.refinement import REFINE, refine_optimiser, refine_stage, refine_terms
from models.training_state import count_in, load_pool
from util.errors import UserError
from util.schema import flag

GAN = "gan"  # the stage's name
# --low_noise times this is put on a and fake_B before G_BA restores a: a's noise must not survive there, or L_cycle and
# L_idt reward G_AB for every bit of it that it lets through. Noise left in the synthesis (high-frequency deviation in
# white matter) after 600 images: .055 at 1, .055 at 2, .047 at 3, .036 at 5, where contrast suffers
HIDING = 3.0
JOINED_PIXELS = 128 * 128  # of an image: up to here the identity losses share a pass with the others

OTHER = {"A": "B", "B": "A"}
Extras = Mapping[str, Tensor]  # of a step's images: random draws, partners


@dataclass(frozen=True)
class Part:
    """A part of the generators' loss: unweighted terms by name, and finished syntheses by domain.

    `through`: a synthesis and the copy of it that earlier parts have seen, whose gradient goes on through it.
    """

    terms: dict[str, Tensor]
    fakes: dict[str, Tensor] = field(default_factory=dict)
    through: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class CycleGANOptions(AdversarialOptions):
    """Options of `--model cycle_gan`."""

    lambda_cycle: float = flag(10.0, "weight of L_cycle", group="loss", low=0)
    lambda_idt: float = flag(5.0, "weight of L_idt", group="loss", low=0)
    lambda_adv: float = flag(1.0, "weight of L_adv", group="loss", low=0)
    lambda_seg: float = flag(0.5, "weight of L_seg (hybrid generator only)", group="loss", low=0)


class CycleGANModel(BaseModel):
    """`--model cycle_gan`. Subclasses change what the discriminators are shown and add terms."""

    Options: type = CycleGANOptions
    dataset_mode = "unaligned"
    can_synthesise = True

    def __init__(self, options: AdversarialOptions, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.options, self.image_size = options, image_size
        self.weights = self.make_weights()
        self.G_AB, self.G_BA = make_generator(options), make_generator(options)
        self.norm_D = discriminator_norm(options, options)
        self.D_A = make_discriminator(options, options, options.input_nc)
        self.D_B = make_discriminator(options, options, self.channels_D_B)
        self.ema_G_AB, self.ema_G_BA = frozen_copy(self.G_AB), frozen_copy(self.G_BA)
        check_multiple(f"--netG {options.netG}", image_size, self.size_multiple)
        with torch.no_grad():
            self.D_A(torch.zeros(1, 1, *image_size))  # refuses images that are too small, before training
        self.pools = {"A": ImagePool(options.pool_size, seed=1), "B": ImagePool(options.pool_size, seed=2)}
        adversarial = options.n_epochs + options.n_epochs_decay
        self.stages = (Stage(GAN, adversarial),)
        self.optimisers = {"G": adam([self.G_AB, self.G_BA], options), "D": adam([self.D_A, self.D_B], options)}
        self.schedulers = {name: scheduler(optimiser, options) for name, optimiser in self.optimisers.items()}
        if options.n_epochs_refine:
            if not self.weights.cycle:
                raise UserError(f"--n_epochs_refine {options.n_epochs_refine} needs a --lambda_cycle above 0")
            self.stages += (refine_stage(options),)
            self.optimisers[REFINE], self.schedulers[REFINE] = refine_optimiser(self.G_AB, options)
        self.updates = 0  # generator updates so far, for the average's decay

    # what PTA changes ------------------------------------------------------------------------------------------

    @property
    def channels_D_B(self) -> int:
        """Channels of what D_B is shown."""
        return 1

    def make_weights(self) -> Weights:
        o = self.options
        assert isinstance(o, CycleGANOptions)
        return Weights(cycle=o.lambda_cycle, idt=o.lambda_idt, adv=o.lambda_adv, seg=o.lambda_seg)

    def begin_step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """Per-image extras of a step, (N, …) each: random draws, partners. Cut into micro-batches with the batch."""
        o = self.options
        extras: dict[str, Tensor] = {}
        if o.low_noise:
            for name in ("noise_A", "noise_fake_B"):
                extras[name] = noise(batch.mask_A, HIDING * o.low_noise, o.low_band, batch.key, name)
        for name in ("fake_A", "B"):
            extras |= low_field_draws(o, name, batch.mask_B, batch.key)
        return extras

    def judged_B(self, x: Tensor, draws: Tensor | None) -> list[Tensor]:
        """What D_B is shown of images x of domain B: plainly x."""
        return [x]

    def extra_terms(self, domain: str, fake: Tensor, extras: Extras) -> dict[str, Tensor]:
        """Further generator losses by name, of the synthesis `fake` of `domain`, without noise."""
        return {}

    # the step --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        """One update of the generators and one of the discriminators; of G_AB alone in the last epochs."""
        if stage.name == REFINE:
            return self._refine_step(batch, context)
        extras = self.begin_step(batch, context)
        L: dict[str, Tensor] = {}
        fakes: dict[str, list[Tensor]] = {"A": [], "B": []}
        self._set_requires_grad(discriminators=False)
        update = Update(self.optimisers["G"], context)
        for start, part, share in micro_batches(batch, context):
            rows = {name: value[start : start + len(part)] for name, value in extras.items()}
            for piece in self.parts(part, rows, context):
                update.add(share * self.total(piece.terms) if piece.terms else None, piece.through)
                accumulate(L, piece.terms, share)
                for domain, fake in piece.fakes.items():
                    fakes[domain].append(fake)
        update.send()  # the discriminators need the fakes, not what the generators learn from them
        self._set_requires_grad(discriminators=True)
        fake_A, fake_B = (torch.cat(parts) if parts else batch.A for parts in fakes.values())
        self._discriminator_step(batch, fake_A, fake_B, L, context)
        update.apply()
        self._average_generators()
        return L

    def parts(self, batch: Batch, extras: Extras, context: StepContext) -> Iterator[Part]:
        """The generators' loss (method.md section 3) in parts; each wants its gradients before the next is computed.

        No graph connects them, so that they need a third of the memory, and not one operation more. For small images
        the identity losses join the syntheses' passes: there the number of operations costs more than their size.
        """
        joined = self.weights.idt > 0 and batch.A.shape[-2:].numel() <= JOINED_PIXELS
        for domain in "BA":
            yield from self._parts_towards(domain, batch, extras, context, with_idt=joined)
        if self.weights.idt and not joined:
            for domain in "BA":
                yield Part({"idt": self._identity_loss(domain, batch, extras, context)})

    def _parts_towards(
        self, domain: str, batch: Batch, extras: Extras, context: StepContext, *, with_idt: bool
    ) -> Iterator[Part]:
        """The synthesis of `domain`: its way back, its discriminator's verdict, and what its own pass is for.

        A synthesis of A is given a scan's noise and field; one of B only noise, and only on its way back.
        """
        made, own_terms = self._synthesis(domain, batch, extras, context, with_idt=with_idt)
        drawn = disturbed(made, extras.get("noise_fake_A"), extras.get("field_fake_A")) if domain == "A" else made
        fake = drawn.detach().requires_grad_()
        if self.weights.cycle:
            sent_back = disturbed(fake, extras.get("noise_fake_B")) if domain == "B" else fake
            yield Part({"cycle": self._cycle_loss(OTHER[domain], sent_back, batch, context)})
        yield Part({"adv": self._fooling_loss(domain, fake, extras, context)})
        yield Part(own_terms, {domain: fake.detach()}, through=(drawn, fake))

    def _synthesis(
        self, domain: str, batch: Batch, extras: Extras, context: StepContext, *, with_idt: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A generator's pass to `domain`, and the losses of its result that need no other pass."""
        source, L = OTHER[domain], {}
        masks = self._shown_masks(batch, context)
        with context.autocast():
            also = [(self._idt_input(domain, batch, extras), masks[domain])] if with_idt else []
            inputs = [(batch.image(source), masks[source]), *also]
            (made, logits), *idt = translate_all(self.generator(domain), inputs, apart=self.options.norm == "batch")
            if with_idt:
                L["idt"] = losses.identity_loss(idt[0][0], batch.image(domain))
            if logits is not None and self.weights.seg:
                L["seg"] = losses.seg_loss(logits, batch.mask(source))
            L |= self.extra_terms(domain, made, extras)
        return made, L

    def _cycle_loss(self, domain: str, sent_back: Tensor, batch: Batch, context: StepContext) -> Tensor:
        with context.autocast():
            restored, _ = translate(self.generator(domain), sent_back, self._shown_masks(batch, context)[domain])
            return losses.cycle_loss(restored, batch.image(domain))

    def _fooling_loss(self, domain: str, fake: Tensor, extras: Extras, context: StepContext) -> Tensor:
        """L_adv of the generators: their discriminator should take `fake` for real."""
        with context.autocast():
            if domain == "A":
                return self._adversarial(self.D_A(fake), real=True)
            shown = self.judged_B(fake, extras.get("draws_G"))
            return torch.stack([self._adversarial(self.D_B(x), real=True) for x in shown]).sum()

    def _identity_loss(self, domain: str, batch: Batch, extras: Extras, context: StepContext) -> Tensor:
        """One half of L_idt, by the generator that makes images of `domain`."""
        with context.autocast():
            shown, mask = self._idt_input(domain, batch, extras), self._shown_masks(batch, context)[domain]
            return losses.identity_loss(translate(self.generator(domain), shown, mask)[0], batch.image(domain))

    def generator(self, domain: str) -> nn.Module:
        """The generator that makes images of `domain`."""
        return self.G_BA if domain == "A" else self.G_AB

    def _idt_input(self, domain: str, batch: Batch, extras: Extras) -> Tensor:
        """An image of `domain` as L_idt shows it to the generator of that domain: with the low field's chance on it."""
        if domain == "A":
            return disturbed(batch.A, extras.get("noise_A"))
        return disturbed(batch.B, extras.get("noise_B"), extras.get("field_B"))

    def _shown_masks(self, batch: Batch, context: StepContext) -> dict[str, Tensor | None]:
        """The true masks by domain, while the generators are still shown them."""
        shown = context.images_seen < getattr(self.options, "structured_shape_iter", 0)
        return {domain: batch.mask(domain) if shown else None for domain in "AB"}

    def _refine_step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """One update of G_AB alone (models/refinement.py)."""
        extras = low_field_draws(self.options, "fake_A", batch.mask_B, batch.key)
        L: dict[str, Tensor] = {}
        update = Update(self.optimisers[REFINE], context)
        for start, part, share in micro_batches(batch, context):
            rows = {name: x[start : start + len(part)] for name, x in extras.items()}
            terms = self._refine_terms(part, rows, context)
            update.add(share * self.total(terms))
            accumulate(L, terms, share)
        update.apply()
        ema_update(self.ema_G_AB, self.G_AB, self.updates, self.options.ema_beta)
        self.updates += 1
        return L

    def _refine_terms(self, batch: Batch, extras: Extras, context: StepContext) -> dict[str, Tensor]:
        return refine_terms(
            self.G_AB,
            self.ema_G_BA,
            batch,
            extras,
            context,
            ssim=self.options.refine_ssim > 0,
            seg=self.weights.seg > 0,
        )

    def total(self, L: Mapping[str, Tensor]) -> Tensor:
        """L = lambda_syn L_syn + lambda_idt L_idt + lambda_cycle L_cycle + lambda_adv L_adv + lambda_seg L_seg.

        Ours beside these: `syn_A`, L_syn of the other direction, and `ssim` beside the refinement's L1.
        """
        lambdas = {**asdict(self.weights), "ssim": self.weights.cycle * self.options.refine_ssim}
        return torch.stack([lambdas[name] * full(term) for name, term in L.items()]).sum()

    def _adversarial(self, scores: Tensor, *, real: bool) -> Tensor:
        o = self.options
        label = o.real_label if real else o.fake_label
        return losses.adversarial_loss(full(scores), real=real, mode=o.gan_mode, label=label)

    def _discriminator_step(
        self, batch: Batch, fake_A: Tensor, fake_B: Tensor, L: dict[str, Tensor], context: StepContext
    ) -> None:
        """Both discriminators on reals and pooled fakes; what D_B is shown of either shares one draw of C."""
        pool_A, pool_B = self.pools["A"].query(full(fake_A)), self.pools["B"].query(full(fake_B))
        draws = self.draw_for_discriminator(batch)
        update = Update(self.optimisers["D"], context)
        for start, part, share in micro_batches(batch, context):
            rows = slice(start, start + len(part))
            with torch.no_grad(), context.autocast():
                both = None if draws is None else draws[rows].repeat(2, 1, 1, 1)
                pairs = [shown.chunk(2) for shown in self.judged_B(torch.cat([part.B, pool_B[rows]]), both)]
            judged_B = [self._judge(self.D_B, real, false, part.key, context) for real, false in pairs]
            terms = {
                "D_A": self._judge(self.D_A, part.A, pool_A[rows], part.key, context),
                "D_B": torch.stack(judged_B).sum(),
            }
            update.add(share * (terms["D_A"] + terms["D_B"]))
            accumulate(L, terms, share)
        update.apply()

    def draw_for_discriminator(self, batch: Batch) -> Tensor | None:
        """A fresh C for the discriminator's step, where there is a C."""
        return None

    def _judge(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, keys: Tensor, context: StepContext
    ) -> Tensor:
        """Half the sum of the losses on real and fake; wgangp takes the whole sum and its penalty."""
        with context.autocast():
            if self.norm_D == "batch":
                of_real, of_fake = discriminator(real), discriminator(fake)
            else:  # one pass, as no statistics would mix them
                of_real, of_fake = discriminator(torch.cat([real, fake])).chunk(2)
            loss = self._adversarial(of_real, real=True) + self._adversarial(of_fake, real=False)
        if self.options.gan_mode != "wgangp":
            return 0.5 * loss
        penalty = losses.gradient_penalty(discriminator, full(real), full(fake), uniform(keys, "penalty"))
        return loss + self.options.lambda_gp * penalty

    def _set_requires_grad(self, *, discriminators: bool) -> None:
        self.D_A.requires_grad_(discriminators)
        self.D_B.requires_grad_(discriminators)

    def _average_generators(self) -> None:
        for average, network in ((self.ema_G_AB, self.G_AB), (self.ema_G_BA, self.G_BA)):
            ema_update(average, network, self.updates, self.options.ema_beta)
        self.updates += 1

    def splits(self, stage: Stage) -> bool:
        """Always, unless batch statistics forbid it."""
        return "batch" not in (self.options.norm, self.norm_D)

    def activation_bytes(self, batch: Batch, stage: Stage, context: StepContext) -> int:
        """Of the generators' update, which keeps more than that of the discriminators: at its height."""
        extras = self.begin_step(batch, context)
        self._set_requires_grad(discriminators=False)
        with kept_memory(self, context) as memory:
            if stage.name == REFINE:
                self._refine_terms(batch, extras, context)
            else:
                deque(self.parts(batch, extras, context), maxlen=0)  # each is dropped before the next is computed
        self._set_requires_grad(discriminators=True)
        return memory.most

    def pool_bytes(self, image_bytes: int) -> int:
        return sum(pool.size for pool in self.pools.values()) * image_bytes

    # around the step -------------------------------------------------------------------------------------------

    def stage_networks(self, stage: Stage) -> list[nn.Module]:
        return [self.G_AB] if stage.name == REFINE else [self.G_AB, self.G_BA, self.D_A, self.D_B]

    def costly_networks(self) -> list[nn.Module]:
        return [self.G_AB, self.G_BA, self.D_A, self.D_B]

    def step_schedulers(self, stage: Stage) -> None:
        for name in {GAN: ("G", "D"), REFINE: (REFINE,)}.get(stage.name, ()):
            self.schedulers[name].step()

    @torch.no_grad()
    def visuals(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        """real, fake and reconstruction of both domains, by the averaged generators."""
        fake_B, _ = translate(self.ema_G_AB, batch.A)
        fake_A, _ = translate(self.ema_G_BA, batch.B)
        rec_A, _ = translate(self.ema_G_BA, fake_B)
        rec_B, _ = translate(self.ema_G_AB, fake_A)
        names = ("real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B")
        return dict(zip(names, (batch.A, fake_B, rec_A, batch.B, fake_A, rec_B), strict=True))

    @torch.no_grad()
    def synthesise(self, real_A: Tensor) -> Tensor:
        """G_AB with averaged weights: (N, 1, H, W) in [-1, 1] to the same; never sees a mask."""
        return translate(self.ema_G_AB.eval(), real_A)[0].float()

    @property
    def size_multiple(self) -> int:
        return int(self.G_AB.multiple)  # type: ignore[arg-type]

    def process_state(self) -> dict[str, Any]:
        return {"pools": {name: pool.state_dict() for name, pool in self.pools.items()}}

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        for name, pool in self.pools.items():
            load_pool(pool, state["pools"][name], (1, *self.image_size), next(self.parameters()).dtype, name)

    def training_state(self) -> dict[str, Any]:
        return {**super().training_state(), "updates": self.updates}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        super().load_training_state(state)
        self.updates = count_in(state["updates"], "updates")

    def exported_networks(self) -> dict[str, nn.Module]:
        """The averaged generators, which are the ones to use, and the discriminators."""
        return {"G_AB": self.ema_G_AB, "G_BA": self.ema_G_BA, "D_A": self.D_A, "D_B": self.D_B}
