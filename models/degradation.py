"""A low-field scan of a high-field slice, by random physics: tone, receive field, contrast, resolution and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.chance import uniform
from models.low_field import band_window, disturbed, noise, passed, receive_field
from models.low_field_options import Strengths
from models.shading import shading

BROAD = 0.08  # standard deviation in parts of the side: what is broader is no local contrast


class HasPhysics(Protocol):
    """Options that tell the physics of a low-field scan."""

    @property
    def strengths(self) -> Strengths: ...
    @property
    def sharpness(self) -> tuple[float, float]: ...
    @property
    def tone(self) -> tuple[float, ...]: ...
    @property
    def lf_spread(self) -> float: ...


@dataclass(frozen=True)
class Physics:
    """How a low-field scan differs from a high-field one, and the relative half-width of the ranges of the numbers.

    contrast: the least; with a range every image has one between it and 1.
    """

    strengths: Strengths
    resolution: float
    contrast: float
    tone: tuple[float, ...]
    spread: float = 0.0

    @classmethod
    def of(cls, options: HasPhysics) -> Physics:
        """Raises: ValueError: a number is still `auto`."""
        return cls(options.strengths, *options.sharpness, options.tone, options.lf_spread)


@torch.autocast("cpu", enabled=False)  # called within a step, whose mixed precision would round the numbers
def degraded(
    b: Tensor, mask: Tensor, keys: Tensor, physics: Physics, partner: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """A low-field scan (N, 1, H, W) in [-1, 1] of every high-field slice; outside the masks it is -1.

    Args: b: (N, 1, H, W) in [-1, 1]. mask: (N, 1, H, W) in {0, 1}. keys: as in models.chance. partner: low-field slices
        and their masks, whose shading the scans get in place of a random receive field.
    """
    if not len(b):
        return b
    drawn = (2 * uniform(keys, "low-field physics", 5) - 1).tolist()
    each = [slice(i, i + 1) for i in range(len(b))]
    beside = [None if partner is None else (partner[0][i], partner[1][i]) for i in each]
    return torch.cat(
        [_scan(b[i], mask[i], keys[i], physics, drawn[i.start], a) for i, a in zip(each, beside, strict=True)]
    )


def _scan(
    b: Tensor, mask: Tensor, key: Tensor, physics: Physics, drawn: Sequence[float], a: tuple[Tensor, Tensor] | None
) -> Tensor:
    """One slice's scan. drawn: five numbers in [-1, 1), where each quantity lies in its range. a: its partner."""
    wide, narrow, strengths = physics.spread, physics.spread / 2, physics.strengths
    level, bias = (1 + wide * drawn[0]) * strengths.noise, (1 + wide * drawn[1]) * strengths.bias
    resolution = min(1.0, (1 + narrow * drawn[2]) * physics.resolution)
    between = (drawn[3] + 1) / 2 if wide else 0.0
    contrast = physics.contrast + (1 - physics.contrast) * between
    x = toned((b + 1) / 2, physics.tone) ** (1 + narrow * drawn[4])
    if a is not None:
        x = x * shading(2 * x - 1, mask, *a)
    elif bias:
        x = x * receive_field(mask, bias, key, "field of a degraded b")
    x = filtered(x * mask, mask, resolution, contrast)
    added = noise(mask, level, strengths.band, key, "noise of a degraded b") if level else None
    return disturbed(2 * x.clamp(0, 1) - 1, added).masked_fill(mask == 0, -1.0)


def toned(x: Tensor, curve: Sequence[float]) -> Tensor:
    """Grey values x in [0, 1] on a curve through evenly spaced knots, linear in between."""
    knots = torch.tensor(curve).to(x, non_blocking=True)
    place = x.clamp(0, 1) * (len(curve) - 1)
    below = place.floor().long().clamp(max=len(curve) - 2)
    return torch.lerp(knots[below], knots[below + 1], place - below)


def filtered(x: Tensor, mask: Tensor, resolution: float, contrast: float) -> Tensor:
    """x (N, 1, H, W), 0 outside the mask, with less local contrast and only the central part of its k-space.

    Local contrast is how many times a pixel is brighter than the head's mean around it. A power of this ratio is taken,
    so what is dark stays dark and broad structure keeps its contrast.
    """
    height, width = x.shape[-2:]
    if contrast < 1:
        rows, columns = (_gaussian(n, BROAD * max(height, width)).to(x, non_blocking=True) for n in (height, width))
        broad = rows[:, None] * columns[None, :]
        mean = passed(x, broad) / passed(mask, broad).clamp(min=1e-3)
        mean = mean.clamp(min=1e-3) * mask
        x = x**contrast * mean ** (1 - contrast)
    if resolution < 1:
        x = passed(x, band_window((height, width), resolution))
    return x


def _gaussian(n: int, sigma: float) -> Tensor:
    """Transfer function (n,) of a Gaussian blur of `sigma` pixels, in the order of `torch.fft.fftfreq`."""
    return torch.exp(-2 * (torch.pi * sigma * torch.fft.fftfreq(n)) ** 2)
