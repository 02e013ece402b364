"""What a low-field scan has and no network can foresee: noise and a receive field, drawn anew for every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from util.schema import flag

WAVES = 6  # of a receive field
WAVES_PER_SIDE = 1.0  # highest spatial frequency of a receive field: a head coil's sensitivity varies over decimetres


@dataclass(frozen=True)
class LowFieldOptions:
    """Strength of the two."""

    low_noise: float = flag(
        0.0,
        "standard deviation of low-field noise on fake_A and on b in L_idt; thrice that on what G_BA restores a from",
        group="loss",
        low=0,
        high=1,
    )
    low_bias: float = flag(
        0.0,
        "standard deviation of the logarithm of a smooth random receive field on fake_A and on b in L_idt",
        group="loss",
        low=0,
        high=1,
    )


def receive_field(images: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """For images (N, C, H, W) factors (N, 1, H, W) whose logarithm is a smooth Gaussian process of that deviation.

    The sum of `WAVES` plane waves with random directions, lengths and amplitudes.
    """
    n, (height, width) = len(images), images.shape[-2:]
    places = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    frequencies = WAVES_PER_SIDE * (2 * torch.rand(n, WAVES, 2, generator=generator) - 1)
    phase = 2 * math.pi * torch.einsum("nkd,dhw->nkhw", frequencies, torch.stack(places))
    sine, cosine = torch.randn(2, n, WAVES, 1, 1, generator=generator)
    waves = sine * torch.sin(phase) + cosine * torch.cos(phase)
    return torch.exp(deviation * waves.sum(1, keepdim=True) / math.sqrt(WAVES)).to(images.device)


def noise(mask: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """White Gaussian noise inside the masks (N, 1, H, W); 0 outside."""
    return deviation * mask * torch.randn(mask.shape, generator=generator).to(mask.device)


def disturbed(x: Tensor, noise: Tensor | None = None, field: Tensor | None = None) -> Tensor:
    """x in [-1, 1], where -1 is no signal, times a receive field, plus noise, kept in [-1, 1]."""
    if field is not None:
        x = (x + 1) * field - 1
    return x if noise is None and field is None else (x if noise is None else x + noise).clamp(-1, 1)
