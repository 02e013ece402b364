"""CycleGAN (Zhu et al. 2017): two generators, two discriminators, cycle and identity losses.

`D_B` judges images of domain B; the original code calls that one `D_A`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from data.batch import Batch
from models import losses
from models.base_model import (
    BaseModel,
    OptimiserOptions,
    Stage,
    StepContext,
    accumulate,
    adam,
    micro_batches,
    scheduler,
)
from models.low_field import LowFieldOptions, disturbed, low_field_draws, noise
from models.networks import (
    DiscriminatorOptions,
    GeneratorOptions,
    discriminator_norm,
    make_discriminator,
    make_generator,
)
from models.networks.hybrid import HybridGenerator
from models.networks.layers import check_multiple, ema_update, frozen_copy
from util.errors import UserError
from util.image_pool import ImagePool
from util.schema import flag

GAN, REFINE = "gan", "refine"  # the stages' names
# --low_noise times this is put on a and fake_B before G_BA restores a: a's noise must not survive there, or L_cycle and
# L_idt reward G_AB for every bit of it that it lets through. Noise left in the synthesis (high-frequency deviation in
# white matter) after 600 images: .055 at 1, .055 at 2, .047 at 3, .036 at 5, where contrast suffers
HIDING = 3.0
REFINE_BATCH = 4  # images a step at least: 34 of 96 px a second on two cores instead of 24 by twos, and as good


@dataclass(frozen=True)
class AdversarialOptions(DiscriminatorOptions, GeneratorOptions, LowFieldOptions, OptimiserOptions):
    """What every model with two generators and two discriminators shares."""

    gan_mode: str = flag("lsgan", "adversarial loss", group="loss", choices=losses.GAN_MODES)
    real_label: float = flag(0.9, "soft label of real images (lsgan, vanilla)", group="loss", low=0, high=1)
    fake_label: float = flag(0.1, "soft label of syntheses (lsgan, vanilla)", group="loss", low=0, high=1)
    lambda_gp: float = flag(10.0, "weight of wgangp's gradient penalty", group="loss", low=0)
    pool_size: int = flag(50, "earlier syntheses kept for the discriminators; 0: none", group="loss", low=0)
    ema_beta: float = flag(
        0.999, "decay of the averaged generators that test.py uses", group="optimisation", low=0, high=1
    )
    n_epochs_refine: int = flag(
        0,
        "epochs after all others in which G_AB alone learns, to restore b from the finished G_BA's fake_A",
        group="optimisation",
        low=0,
    )
    refine_ssim: float = flag(
        1.0,
        "weight of 1 - SSIM of the restored b, beside its L1 distance, in the epochs of --n_epochs_refine",
        group="loss",
        low=0,
    )


@dataclass(frozen=True)
class CycleGANOptions(AdversarialOptions):
    """Options of `--model cycle_gan`."""

    lambda_cycle: float = flag(10.0, "weight of L_cycle", group="loss", low=0)
    lambda_idt: float = flag(5.0, "weight of L_idt", group="loss", low=0)
    lambda_adv: float = flag(1.0, "weight of L_adv", group="loss", low=0)
    lambda_seg: float = flag(0.5, "weight of L_seg (hybrid generator only)", group="loss", low=0)


@dataclass(frozen=True)
class Weights:
    """The lambdas of one run, resolved."""

    cycle: float
    idt: float
    adv: float
    seg: float
    syn: float = 0.0
    syn_A: float = 0.0


class CycleGANModel(BaseModel):
    """`--model cycle_gan`. Subclasses change what the discriminators are shown and add terms."""

    Options: type = CycleGANOptions
    dataset_mode = "unaligned"
    can_synthesise = True

    def __init__(self, options: AdversarialOptions, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.options = options
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
                extras[name] = noise(batch.mask_A, HIDING * o.low_noise, o.low_band, context.generator)
        for name in ("fake_A", "B"):
            extras |= low_field_draws(o, name, batch.mask_B, context.generator)
        return extras

    def judged_B(self, x: Tensor, draws: Tensor | None) -> list[Tensor]:
        """What D_B is shown of images x of domain B: plainly x."""
        return [x]

    def extra_terms(self, fake_A: Tensor, fake_B: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Further generator losses by name."""
        return {}

    # the step --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        """One update of the generators, then one of the discriminators; of G_AB alone in the last epochs."""
        if stage.name == REFINE:
            return self._refine_step(batch, context)
        extras = self.begin_step(batch, context)
        L: dict[str, Tensor] = {}
        fakes_A, fakes_B = [], []
        self._set_requires_grad(discriminators=False)
        self.optimisers["G"].zero_grad(set_to_none=True)
        for start, part, share in micro_batches(batch, context.micro_batch):
            rows = {name: value[start : start + len(part)] for name, value in extras.items()}
            terms, fake_A, fake_B = self.generator_terms(part, rows, context)
            (share * self.total(terms)).backward()
            accumulate(L, terms, share)
            fakes_A.append(fake_A.detach())
            fakes_B.append(fake_B.detach())
        self.optimisers["G"].step()
        self._set_requires_grad(discriminators=True)
        self._discriminator_step(batch, torch.cat(fakes_A), torch.cat(fakes_B), L, context)
        self._average_generators()
        return L

    def generator_terms(
        self, batch: Batch, extras: Mapping[str, Tensor], context: StepContext
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The generators' unweighted losses (method.md section 3), and fake_A, fake_B with graph."""
        w = self.weights
        shown = context.images_seen < getattr(self.options, "structured_shape_iter", 0)
        mask_A, mask_B = (batch.mask_A, batch.mask_B) if shown else (None, None)
        L: dict[str, Tensor] = {}
        with context.autocast():
            also_B = [(disturbed(batch.B, extras.get("noise_B"), extras.get("field_B")), mask_B)] if w.idt else []
            also_A = [(disturbed(batch.A, extras.get("noise_A")), mask_A)] if w.idt else []
            (fake_B, logits_A), *idt_B = self._translate_all(self.G_AB, [(batch.A, mask_A), *also_B])
            (drawn_A, logits_B), *idt_A = self._translate_all(self.G_BA, [(batch.B, mask_B), *also_A])
            fake_A = disturbed(drawn_A, extras.get("noise_fake_A"), extras.get("field_fake_A"))
            if w.cycle:
                rec_A, _ = translate(self.G_BA, disturbed(fake_B, extras.get("noise_fake_B")), mask_A)
                rec_B, _ = translate(self.G_AB, fake_A, mask_B)
                L["cycle"] = losses.cycle_loss(rec_A, batch.A) + losses.cycle_loss(rec_B, batch.B)
            if w.idt:
                L["idt"] = losses.identity_loss(idt_B[0][0], batch.B) + losses.identity_loss(idt_A[0][0], batch.A)
            adv_A = self._adversarial(self.D_A(fake_A), real=True)
            shown_B = self.judged_B(fake_B, extras.get("draws_G"))
            adv_B = sum(
                (self._adversarial(self.D_B(x), real=True) for x in shown_B), torch.zeros((), device=fake_B.device)
            )
            L["adv"] = adv_A + adv_B
            if logits_A is not None and logits_B is not None and w.seg:
                seg_A, seg_B = losses.seg_loss(logits_A, batch.mask_A), losses.seg_loss(logits_B, batch.mask_B)
                L["seg"] = seg_A + seg_B
            L |= self.extra_terms(drawn_A, fake_B, extras)
        return L, fake_A, fake_B

    def _refine_step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """One update of G_AB by the B half of L_cycle, by SSIM beside it (Zhao et al. 2017), and by L_seg.

        The finished G_BA's images of B are low-field images with their truth beside them: no other term pulls at G_AB,
        and a step costs a fifth of an adversarial one.
        """
        extras = low_field_draws(self.options, "fake_A", batch.mask_B, context.generator)
        L: dict[str, Tensor] = {}
        self.optimisers[REFINE].zero_grad(set_to_none=True)
        for start, part, share in micro_batches(batch, context.micro_batch):
            terms = self.refine_terms(part, {name: x[start : start + len(part)] for name, x in extras.items()}, context)
            (share * self.total(terms)).backward()
            accumulate(L, terms, share)
        self.optimisers[REFINE].step()
        ema_update(self.ema_G_AB, self.G_AB, self.updates, self.options.ema_beta)
        self.updates += 1
        return L

    def refine_terms(self, batch: Batch, extras: Mapping[str, Tensor], context: StepContext) -> dict[str, Tensor]:
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

    def _translate_all(
        self, generator: nn.Module, inputs: list[tuple[Tensor, Tensor | None]]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """`translate` of several (image, mask), in one pass unless batch statistics would mix them."""
        if self.options.norm == "batch" or len({image.shape[1:] for image, _ in inputs}) > 1:
            return [translate(generator, image, mask) for image, mask in inputs]
        masks = [mask for _, mask in inputs if mask is not None]
        images, logits = translate(generator, torch.cat([x for x, _ in inputs]), torch.cat(masks) if masks else None)
        sizes = [len(image) for image, _ in inputs]
        each_logits = [None] * len(inputs) if logits is None else logits.split(sizes)
        return list(zip(images.split(sizes), each_logits, strict=True))

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
        draws = self.draw_for_discriminator(batch, context)
        self.optimisers["D"].zero_grad(set_to_none=True)
        for start, part, share in micro_batches(batch, context.micro_batch):
            rows = slice(start, start + len(part))
            with torch.no_grad(), context.autocast():
                both = None if draws is None else draws[rows].repeat(2, 1, 1, 1)
                pairs = [shown.chunk(2) for shown in self.judged_B(torch.cat([part.B, pool_B[rows]]), both)]
            terms = {
                "D_A": self._judge(self.D_A, part.A, pool_A[rows], context),
                "D_B": torch.stack(
                    [self._judge(self.D_B, real_B, false_B, context) for real_B, false_B in pairs]
                ).sum(),
            }
            (share * (terms["D_A"] + terms["D_B"])).backward()
            accumulate(L, terms, share)
        self.optimisers["D"].step()

    def draw_for_discriminator(self, batch: Batch, context: StepContext) -> Tensor | None:
        """A fresh C for the discriminator's step, where there is a C."""
        return None

    def _judge(self, discriminator: nn.Module, real: Tensor, fake: Tensor, context: StepContext) -> Tensor:
        """Half the sum of the losses on real and fake; wgangp takes the whole sum and its penalty."""
        with context.autocast():
            if self.norm_D == "batch":
                of_real, of_fake = discriminator(real), discriminator(fake)
            else:  # one pass, as no statistics would mix them
                of_real, of_fake = discriminator(torch.cat([real, fake])).chunk(2)
            loss = self._adversarial(of_real, real=True) + self._adversarial(of_fake, real=False)
        if self.options.gan_mode != "wgangp":
            return 0.5 * loss
        penalty = losses.gradient_penalty(discriminator, full(real), full(fake), context.generator)
        return loss + self.options.lambda_gp * penalty

    def _set_requires_grad(self, *, discriminators: bool) -> None:
        self.D_A.requires_grad_(discriminators)
        self.D_B.requires_grad_(discriminators)

    def _average_generators(self) -> None:
        for average, network in ((self.ema_G_AB, self.G_AB), (self.ema_G_BA, self.G_BA)):
            ema_update(average, network, self.updates, self.options.ema_beta)
        self.updates += 1

    def activation_bytes(self, batch: Batch, stage: Stage, context: StepContext) -> int:
        """Bytes that autograd keeps for the generators' step on one image; batch statistics forbid splitting."""
        if stage.name not in (GAN, REFINE) or "batch" in (self.options.norm, self.norm_D):
            return 0
        terms = self.refine_terms if stage.name == REFINE else self.generator_terms
        own = {parameter.untyped_storage().data_ptr() for parameter in self.parameters()}
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                storages[place] = tensor.untyped_storage().nbytes()
            return tensor

        state = context.generator.get_state()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            kept = terms(batch, self.begin_step(batch, context), context)
        context.generator.set_state(state)
        del kept
        return sum(storages.values())

    # around the step -------------------------------------------------------------------------------------------

    def stage_networks(self, stage: Stage) -> list[nn.Module]:
        return [self.G_AB] if stage.name == REFINE else [self.G_AB, self.G_BA, self.D_A, self.D_B]

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

    def training_state(self) -> dict[str, Any]:
        pools = {name: pool.state_dict() for name, pool in self.pools.items()}
        return {**super().training_state(), "pools": pools, "updates": self.updates}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        super().load_training_state(state)
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name])
        self.updates = state["updates"]

    def exported_networks(self) -> dict[str, nn.Module]:
        """The averaged generators, which are the ones to use, and the discriminators."""
        return {"G_AB": self.ema_G_AB, "G_BA": self.ema_G_BA, "D_A": self.D_A, "D_B": self.D_B}


def full(x: Tensor) -> Tensor:
    """x in float32 if mixed precision made it shorter; float64 stays."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def translate(generator: nn.Module, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Any generator on x (N, 1, H, W): the image, and the hybrid's foreground logits or None."""
    if isinstance(generator, HybridGenerator):
        return generator(x, mask)
    return generator(x), None
