"""`--model unsb`: an unpaired neural Schroedinger bridge (Kim et al. 2024).

G_AB sees x_t, an image between A and B, and the time t, and predicts x_1, which is fake_B. Small: any of our
generators, with the time as a second channel, and no latent code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data.batch import Batch
from models.adversarial_options import Weights
from models.base_model import adam
from models.bridge import Predictor, sample_xt, times_of, with_time
from models.chance import normal, uniform
from models.cut_model import CUTModel, CUTStage
from models.gan_stage import ByDomain
from models.generator_model import shows_masks
from models.low_field import LowFieldScan
from models.networks import make_discriminator
from models.passes import frozen, full, translate
from models.unsb_options import UNSBOptions
from models.update import StepContext, Update


@dataclass(frozen=True)
class BridgeState:
    """x_t of a batch, (N, 1, H, W) each, and its times (N,).

    x_t, x_t_other: two samples that begin at the same slices of A. x_t_of_B: one that begins at slices of B. shown: the
    masks that generators see, by domain.
    """

    x_t: Tensor
    x_t_other: Tensor
    x_t_of_B: Tensor
    time: Tensor
    shown: Mapping[str, Tensor | None]


class UNSBStage(CUTStage):
    """CUT's terms at a random time of the bridge, and L_SB with an energy network E that estimates entropy."""

    name = "unsb"
    condition_channels = 1
    options: UNSBOptions

    def __init__(self, model: UNSBModel, weights: Weights) -> None:
        super().__init__(model, weights)
        self.E = model.E
        self.networks.append(model.E)
        self.optimisers["E"] = adam([model.E], model.options)
        self._state: BridgeState | None = None  # of the micro-batch whose loss is computed
        self._samples: list[tuple[Tensor, Tensor]] = []  # (x_t, x_1) twice, of each micro-batch of a step: for E

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """The updates of CUT, then one of E on the same images."""
        self._samples.clear()
        terms = super().step(batch, context)
        update = Update(self.optimisers["E"], context)
        parts = update.micro_batches(batch, split=self.splits)
        for (_, part), (one, other) in zip(parts, self._samples, strict=True):
            with context.autocast():
                time = self._time(part.key, one)
                same, mixed = self._energies(one, one, time), self._energies(one, other, time)
                total = torch.logsumexp(mixed, 1)
                update.add("E", 1.0, (-same.mean(1) + total + total.square()).mean())
        update.apply()
        return terms | update.terms

    def losses(self, batch: Batch, update: Update, partners: ByDomain | None = None) -> dict[str, Tensor]:
        masks = {"A": batch.mask_A, "B": batch.mask_B}
        shown = masks if shows_masks(self.options, update.context) else dict.fromkeys(masks)
        x_t, other = (self._sampled(batch, "A", batch.A, name, shown["A"]) for name in ("a", "other way of a"))
        x_t_of_B = self._sampled(batch, "B", LowFieldScan(self.options, batch).on_real("B", batch.B), "b", shown["B"])
        self._state = BridgeState(x_t, other, x_t_of_B, self._time(batch.key, x_t), shown)
        with frozen(self.E):
            return super().losses(batch, update, partners)

    def source(self, domain: str, batch: Batch) -> Tensor:
        """x_t and t, (N, 2, H, W)."""
        assert self._state is not None
        return with_time(self._state.x_t, self._state.time)

    def conditioned(self, domain: str, image: Tensor, batch: Batch) -> Tensor:
        """The image and its time: what fake_B looks like at an early time differs from what it does late."""
        return with_time(image, self._time(batch.key, image))

    def encoded(self, x: Tensor) -> Tensor:
        """PatchNCE compares hidden states of time 0, as published."""
        return with_time(x, x.new_zeros(len(x)))

    def identity(self, batch: Batch, mask: Tensor | None) -> Tensor:
        assert self._state is not None
        return translate(self.G["B"], with_time(self._state.x_t_of_B, self._state.time), mask)[0]

    def add_terms(self, update: Update, batch: Batch, domain: str, made: Tensor, fake: Tensor) -> None:
        """CUT's, and L_SB = tau (|x_t - fake_B|^2 - (1 - i / steps) H), H the entropy that E estimates."""
        super().add_terms(update, batch, domain, made, fake)
        o, at = self.options, self._state
        assert at is not None
        with torch.no_grad():
            x_1_other, _ = translate(self.G["B"], with_time(at.x_t_other, at.time), at.shown["A"])
        one, other = torch.cat([at.x_t, fake.to(at.x_t)], 1), torch.cat([at.x_t_other, x_1_other.to(at.x_t)], 1)
        self._samples.append((full(one.detach()), full(other)))
        if o.lambda_sb and o.sb_tau:
            energy = self._energies(one, one, at.time).mean(1)
            entropy = energy - torch.logsumexp(self._energies(one, other, at.time), 1)
            left = 1 - self._index(batch.key).to(entropy) / o.sb_steps
            transport = (at.x_t - fake).square().mean((1, 2, 3))
            update.add("sb", o.lambda_sb, (o.sb_tau * (transport - left * entropy)).mean())

    def _energies(self, one: Tensor, other: Tensor, time: Tensor) -> Tensor:
        """E's scores (N, places) of two samples' (x_t, x_1) beside each other."""
        both = torch.cat([one, other], 1)
        return full(self.E(torch.cat([both, with_time(one[:, :1], time)[:, 1:]], 1)).flatten(1))

    def _index(self, keys: Tensor) -> Tensor:
        """i (N,), the step of the bridge that each item is trained at."""
        return (uniform(keys, "step of the bridge", 1)[:, 0] * self.options.sb_steps).long()

    def _time(self, keys: Tensor, like: Tensor) -> Tensor:
        return times_of(self.options.sb_steps)[self._index(keys)].to(like.device)

    def _sampled(self, batch: Batch, domain: str, x_0: Tensor, name: str, mask: Tensor | None) -> Tensor:
        """x_t of slices of a domain, with noise inside the head."""
        o = self.options
        maps = normal(batch.key, f"bridge of {name}", max(o.sb_steps - 1, 1), *x_0.shape[-2:])
        noise = maps.to(x_0.device) * batch.mask(domain)
        index = self._index(batch.key).to(x_0.device)
        return sample_xt(x_0, predictor(self.G["B"], mask), times_of(o.sb_steps), index, noise, o.sb_tau)

    @torch.no_grad()
    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        fake_B = sample_x1(self.averages.averaged["G_AB"], batch.A, self.options)
        return {"real_A": batch.A, "fake_B": fake_B, "real_B": batch.B}


class UNSBModel(CUTModel):
    """`--model unsb`."""

    Options = UNSBOptions
    options: UNSBOptions
    channels_G, channels_D_B = 2, 2  # the image and its time

    def __init__(self, options: UNSBOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        self.E = make_discriminator(options, options, 5)  # x_t and x_1 of two samples, and the time
        self.stages = [UNSBStage(self, self.weights)]

    @torch.no_grad()
    def synthesise(self, real_A: Tensor) -> Tensor:
        """x_1 of the mean path, by averaged weights; input and output are (N, 1, H, W) in [-1, 1]."""
        return sample_x1(self.ema_G_AB.eval(), real_A, self.options)


def predictor(G_AB: nn.Module, mask: Tensor | None = None) -> Predictor:
    """x_1 as a generator predicts it."""
    return lambda x, time: translate(G_AB, with_time(x, time), mask)[0]


def sample_x1(G_AB: nn.Module, real_A: Tensor, options: UNSBOptions) -> Tensor:
    """fake_B of the mean path, without noise: (N, 1, H, W). Every pass predicts it; the last of `passes` is taken."""
    predict, times = predictor(G_AB), times_of(options.sb_steps)
    last = torch.full((len(real_A),), options.passes - 1, device=real_A.device)
    x = sample_xt(real_A, predict, times, last, None, 0.0)
    return predict(x, times[options.passes - 1].expand(len(x))).float()
