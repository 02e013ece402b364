"""`--model unsb`: an unpaired neural Schroedinger bridge (Kim et al. 2024).

G_AB sees an image somewhere on its way from A to B, and at which time, and pictures where the way ends. Small: any of
our generators, with the time as a second channel, and no latent code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data.batch import Batch
from models.adversarial_options import Weights
from models.base_model import adam
from models.bridge import Picture, times_of, walked, with_time
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
class Place:
    """Where a batch is on its ways. a, other: two ways of the slices of A. b: of the slices of B. time: (N,)."""

    a: Tensor
    other: Tensor
    b: Tensor
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
        self._place: Place | None = None  # of the micro-batch whose loss is computed
        self._ways: list[tuple[Tensor, Tensor]] = []  # what E judges of each micro-batch of a step

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """The updates of CUT, then one of E on the same images."""
        self._ways.clear()
        terms = super().step(batch, context)
        update = Update(self.optimisers["E"], context)
        parts = update.micro_batches(batch, split=self.splits)
        for (_, part), (one, other) in zip(parts, self._ways, strict=True):
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
        a, other = (self._walked(batch, "A", batch.A, name, shown["A"]) for name in ("a", "other way of a"))
        b = self._walked(batch, "B", LowFieldScan(self.options, batch).on_real("B", batch.B), "b", shown["B"])
        self._place = Place(a, other, b, self._time(batch.key, a), shown)
        with frozen(self.E):
            return super().losses(batch, update, partners)

    def source(self, domain: str, batch: Batch) -> Tensor:
        """x_t and t, (N, 2, H, W)."""
        assert self._place is not None
        return with_time(self._place.a, self._place.time)

    def conditioned(self, domain: str, image: Tensor, batch: Batch) -> Tensor:
        """The image and its time: what fake_B looks like early on the way differs from what it does late."""
        return with_time(image, self._time(batch.key, image))

    def encoded(self, x: Tensor) -> Tensor:
        """PatchNCE compares hidden states of time 0, as published."""
        return with_time(x, x.new_zeros(len(x)))

    def identity(self, batch: Batch, mask: Tensor | None) -> Tensor:
        assert self._place is not None
        return translate(self.G["B"], with_time(self._place.b, self._place.time), mask)[0]

    def add_terms(self, update: Update, batch: Batch, domain: str, made: Tensor, fake: Tensor) -> None:
        """CUT's, and L_SB = tau (|x_t - fake_B|^2 - (1 - i / steps) H), H the entropy that E estimates."""
        super().add_terms(update, batch, domain, made, fake)
        o, place = self.options, self._place
        assert place is not None
        with torch.no_grad():
            end, _ = translate(self.G["B"], with_time(place.other, place.time), place.shown["A"])
        one, other = torch.cat([place.a, fake.to(place.a)], 1), torch.cat([place.other, end.to(place.other)], 1)
        self._ways.append((full(one.detach()), full(other)))
        if o.lambda_sb and o.sb_tau:
            energy = self._energies(one, one, place.time).mean(1)
            entropy = energy - torch.logsumexp(self._energies(one, other, place.time), 1)
            left = 1 - self._index(batch.key).to(entropy) / o.sb_steps
            transport = (place.a - fake).square().mean((1, 2, 3))
            update.add("sb", o.lambda_sb, (o.sb_tau * (transport - left * entropy)).mean())

    def _energies(self, one: Tensor, other: Tensor, time: Tensor) -> Tensor:
        """E's scores (N, places) of two ways' (x_t, x_1) beside each other."""
        both = torch.cat([one, other], 1)
        return full(self.E(torch.cat([both, with_time(one[:, :1], time)[:, 1:]], 1)).flatten(1))

    def _index(self, keys: Tensor) -> Tensor:
        """The step (N,) of the way at which each item is looked at."""
        return (uniform(keys, "step of the bridge", 1)[:, 0] * self.options.sb_steps).long()

    def _time(self, keys: Tensor, like: Tensor) -> Tensor:
        return times_of(self.options.sb_steps)[self._index(keys)].to(like.device)

    def _walked(self, batch: Batch, domain: str, start: Tensor, name: str, mask: Tensor | None) -> Tensor:
        """x_t of slices of a domain that begin at `start`, with noise inside the head."""
        o = self.options
        maps = normal(batch.key, f"bridge of {name}", max(o.sb_steps - 1, 1), *start.shape[-2:])
        noise = maps.to(start.device) * batch.mask(domain)
        index = self._index(batch.key).to(start.device)
        return walked(start, picture_by(self.G["B"], mask), times_of(o.sb_steps), index, noise, o.sb_tau)

    @torch.no_grad()
    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        fake_B = end_of_bridge(self.averages.averaged["G_AB"], batch.A, self.options.sb_steps)
        return {"real_A": batch.A, "fake_B": fake_B, "real_B": batch.B}


class UNSBModel(CUTModel):
    """`--model unsb`."""

    Options = UNSBOptions
    options: UNSBOptions
    channels_G, channels_D_B = 2, 2  # the image and its time

    def __init__(self, options: UNSBOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        self.E = make_discriminator(options, options, 5)  # x_t and x_1 of two ways, and the time
        self.stages = [UNSBStage(self, self.weights)]

    @torch.no_grad()
    def synthesise(self, real_A: Tensor) -> Tensor:
        """The end of the mean way, by averaged weights; input and output are (N, 1, H, W) in [-1, 1]."""
        return end_of_bridge(self.ema_G_AB.eval(), real_A, self.options.sb_steps)


def picture_by(G_AB: nn.Module, mask: Tensor | None = None) -> Picture:
    """The generator's picture of where the way of x ends."""
    return lambda x, time: translate(G_AB, with_time(x, time), mask)[0]


def end_of_bridge(G_AB: nn.Module, real_A: Tensor, steps: int) -> Tensor:
    """fake_B after all steps, without noise: (N, 1, H, W)."""
    picture, times = picture_by(G_AB), times_of(steps)
    last = torch.full((len(real_A),), steps - 1, device=real_A.device)
    x = walked(real_A, picture, times, last, None, 0.0)
    return picture(x, times[steps - 1].expand(len(x))).float()
