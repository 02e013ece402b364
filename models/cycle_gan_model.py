"""CycleGAN (Zhu et al. 2017): two generators, two discriminators, cycle and identity losses.

`D_B` judges images of domain B; the original code calls that one `D_A`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

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
    kept_bytes,
    micro_batches,
    scheduler,
)
from models.low_field import disturbed, low_field_draws, noise
from models.networks import (
    discriminator_norm,
    make_discriminator,
    make_generator,
)
from models.networks.layers import check_multiple, ema_update, frozen_copy
from models.passes import full, translate, translate_all
from models.training_state import count_in, load_pool
from util.chance import uniform
from util.errors import UserError
from util.image_pool import ImagePool
from util.schema import flag

GAN, REFINE = "gan", "refine"  # the stages' names
# --low_noise times this is put on a and fake_B before G_BA restores a: a's noise must not survive there, or L_cycle and
# L_idt reward G_AB for every bit of it that it lets through. Noise left in the synthesis (high-frequency deviation in
# white matter) after 600 images: .055 at 1, .055 at 2, .047 at 3, .036 at 5, where contrast suffers
HIDING = 3.0
JOINED_PIXELS = 4 * 96 * 96  # of a micro-batch: up to here the identity losses share a pass with the others
REFINE_BATCH = 4  # images a step at least: 34 of 96 px a second on two cores instead of 24 by twos, and as good

Extras = Mapping[str, Tensor]  # of a step's images: random draws, partners
Terms = tuple[dict[str, Tensor], dict[str, Tensor]]  # losses by name, syntheses by domain
Part = Callable[[Batch, Extras, StepContext], Terms]


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
            self.stages += (
                Stage(REFINE, options.n_epochs_refine, least_batch=REFINE_BATCH, epochs_before=adversarial),
            )
            self.optimisers[REFINE] = adam([self.G_AB], options)
            self.schedulers[REFINE] = LambdaLR(
                self.optimisers[REFINE], lambda epoch: 1 - epoch / (options.n_epochs_refine + 1)
            )
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
            for terms_of in self.parts(part):
                terms, synthesised = terms_of(part, rows, context)
                update.add(share * self.total(terms))
                accumulate(L, terms, share)
                for domain, fake in synthesised.items():
                    fakes[domain].append(fake.detach())
        update.send()  # the discriminators need the fakes, not what the generators learn from them
        self._set_requires_grad(discriminators=True)
        fake_A, fake_B = (torch.cat(parts) if parts else batch.A for parts in fakes.values())
        self._discriminator_step(batch, fake_A, fake_B, L, context)
        update.apply()
        self._average_generators()
        return L

    def parts(self, batch: Batch) -> list[Part]:
        """What the generators' loss consists of, in parts that no graph connects.

        One after the other they need a third of the memory, and not one operation more. For small images the identity
        losses join the passes of the others: there the number of operations costs more than their size.
        """
        joined = self.weights.idt > 0 and batch.A.numel() <= JOINED_PIXELS
        parts: list[Part] = [partial(terms, with_idt=joined) for terms in (self.terms_of_fake_B, self.terms_of_fake_A)]
        if self.weights.idt and not joined:
            parts += [partial(self.terms_of_idt, "B"), partial(self.terms_of_idt, "A")]
        return parts

    def terms_of_fake_B(self, batch: Batch, extras: Extras, context: StepContext, *, with_idt: bool) -> Terms:
        """The unweighted losses (method.md section 3) of fake_B and its way back to a; and fake_B."""
        w, (mask_A, mask_B) = self.weights, self._shown_masks(batch, context)
        L: dict[str, Tensor] = {}
        with context.autocast():
            also = [(self._idt_input("B", batch, extras), mask_B)] if with_idt else []
            (fake_B, logits), *idt_B = self._translate_all(self.G_AB, [(batch.A, mask_A), *also])
            if w.cycle:
                rec_A, _ = translate(self.G_BA, disturbed(fake_B, extras.get("noise_fake_B")), mask_A)
                L["cycle"] = losses.cycle_loss(rec_A, batch.A)
            if with_idt:
                L["idt"] = losses.identity_loss(idt_B[0][0], batch.B)
            shown = self.judged_B(fake_B, extras.get("draws_G"))
            L["adv"] = torch.stack([self._adversarial(self.D_B(x), real=True) for x in shown]).sum()
            if logits is not None and w.seg:
                L["seg"] = losses.seg_loss(logits, batch.mask_A)
            L |= self.extra_terms("B", fake_B, extras)
        return L, {"B": fake_B}

    def terms_of_fake_A(self, batch: Batch, extras: Extras, context: StepContext, *, with_idt: bool) -> Terms:
        """The same of fake_A, which a scan's noise and field are put on; and fake_A with them."""
        w, (mask_A, mask_B) = self.weights, self._shown_masks(batch, context)
        L: dict[str, Tensor] = {}
        with context.autocast():
            also = [(self._idt_input("A", batch, extras), mask_A)] if with_idt else []
            (drawn_A, logits), *idt_A = self._translate_all(self.G_BA, [(batch.B, mask_B), *also])
            fake_A = disturbed(drawn_A, extras.get("noise_fake_A"), extras.get("field_fake_A"))
            if w.cycle:
                rec_B, _ = translate(self.G_AB, fake_A, mask_B)
                L["cycle"] = losses.cycle_loss(rec_B, batch.B)
            if with_idt:
                L["idt"] = losses.identity_loss(idt_A[0][0], batch.A)
            L["adv"] = self._adversarial(self.D_A(fake_A), real=True)
            if logits is not None and w.seg:
                L["seg"] = losses.seg_loss(logits, batch.mask_B)
            L |= self.extra_terms("A", drawn_A, extras)
        return L, {"A": fake_A}

    def terms_of_idt(self, domain: str, batch: Batch, extras: Extras, context: StepContext) -> Terms:
        """One half of L_idt, by the generator that makes images of `domain`."""
        masks = dict(zip("AB", self._shown_masks(batch, context), strict=True))
        generator, real = (self.G_BA, batch.A) if domain == "A" else (self.G_AB, batch.B)
        with context.autocast():
            idt, _ = translate(generator, self._idt_input(domain, batch, extras), masks[domain])
            return {"idt": losses.identity_loss(idt, real)}, {}

    def _idt_input(self, domain: str, batch: Batch, extras: Extras) -> Tensor:
        """An image of `domain` as L_idt shows it to the generator of that domain: with the low field's chance on it."""
        if domain == "A":
            return disturbed(batch.A, extras.get("noise_A"))
        return disturbed(batch.B, extras.get("noise_B"), extras.get("field_B"))

    def _translate_all(
        self, generator: nn.Module, inputs: list[tuple[Tensor, Tensor | None]]
    ) -> list[tuple[Tensor, Tensor | None]]:
        return translate_all(generator, inputs, apart=self.options.norm == "batch")

    def _shown_masks(self, batch: Batch, context: StepContext) -> tuple[Tensor | None, Tensor | None]:
        """The true masks, while the generators are still shown them."""
        shown = context.images_seen < getattr(self.options, "structured_shape_iter", 0)
        return (batch.mask_A, batch.mask_B) if shown else (None, None)

    def _refine_step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """One update of G_AB by the B half of L_cycle, by SSIM beside it (Zhao et al. 2017), and by L_seg.

        The finished G_BA's images of B are low-field images with their truth beside them: no other term pulls at G_AB,
        and a step costs a fifth of an adversarial one.
        """
        extras = low_field_draws(self.options, "fake_A", batch.mask_B, batch.key)
        L: dict[str, Tensor] = {}
        update = Update(self.optimisers[REFINE], context)
        for start, part, share in micro_batches(batch, context):
            terms = self.refine_terms(part, {name: x[start : start + len(part)] for name, x in extras.items()}, context)
            update.add(share * self.total(terms))
            accumulate(L, terms, share)
        update.apply()
        ema_update(self.ema_G_AB, self.G_AB, self.updates, self.options.ema_beta)
        self.updates += 1
        return L

    def refine_terms(self, batch: Batch, extras: Extras, context: StepContext) -> dict[str, Tensor]:
        """G_AB's unweighted losses where G_BA is finished."""
        with context.autocast():
            with torch.no_grad():
                fake_A, _ = translate(self.ema_G_BA, batch.B)
                fake_A = disturbed(fake_A, extras.get("noise_fake_A"), extras.get("field_fake_A"))
            rec_B, logits = translate(self.G_AB, fake_A)
            L = {"cycle": losses.cycle_loss(rec_B, batch.B)}
            if self.options.refine_ssim:
                L["ssim"] = losses.ssim_loss(full(rec_B), batch.B, batch.mask_B)
            if logits is not None and self.weights.seg:
                L["seg"] = losses.seg_loss(logits, batch.mask_B)
        return L

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
        """Of the generators' update, which keeps more than that of the discriminators: its largest part."""
        extras = self.begin_step(batch, context)
        self._set_requires_grad(discriminators=False)
        sizes = []
        for part in [self.refine_terms] if stage.name == REFINE else self.parts(batch):
            with kept_bytes(self, context) as storages:
                graph = part(batch, extras, context)
            del graph
            sizes.append(sum(storages.values()))
        self._set_requires_grad(discriminators=True)
        return max(sizes)

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
