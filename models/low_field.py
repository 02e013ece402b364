"""What a low-field scan has and no network can foresee: noise and a receive field, drawn anew for every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from data.batch import Batch
from models.chance import drawn, normal, uniform
from util.needs import positive
from util.schema import flag

TAPER = 0.25  # outer part of the measured k-space that rolls off, as scanners filter against ringing
WAVES = 6  # of a receive field
WAVES_PER_SIDE = 1.0  # highest spatial frequency of a receive field: a head coil's sensitivity varies over decimetres

# --lf_noise times this is put on a and fake_B before G_BA restores a: a's noise must not survive there, or L_cycle and
# L_idt reward G_AB for every bit of it that it lets through. Noise left in the synthesis (high-frequency deviation in
# white matter) after 600 images: .055 at 1, .055 at 2, .047 at 3, .036 at 5, where contrast suffers
HIDING = 3.0


@dataclass(frozen=True)
class LowFieldOptions:
    """Strength of the two, and the noise's colour."""

    lf_noise: float = flag(
        0.0,
        "standard deviation of low-field noise on fake_A and on b in L_idt; thrice that on what G_BA restores a from",
        group="loss",
        low=0,
        high=1,
        alias=("low_noise",),
    )
    lf_band: float = flag(
        1.0,
        "part of each axis' k-space that the low-field scanner measured, and its noise fills: below 1 if zero-filled",
        group="loss",
        low=0.1,
        high=1,
        alias=("low_band",),
        needs=positive("lf_noise"),
    )
    lf_bias: float = flag(
        0.0,
        "standard deviation of the logarithm of a smooth random receive field on fake_A and on b in L_idt",
        group="loss",
        low=0,
        high=1,
        alias=("low_bias",),
    )


class LowFieldChance:
    """The chance of a low-field scan, drawn for one batch and wrapped around the images that need it.

    Without it G_BA would have to invent noise to pass D_A, and G_AB to hide a's noise in fake_B so that the cycle
    finds it again (Chu et al. 2017): it would keep what it should remove. With it G_BA draws what is under the noise,
    and G_AB learns to see through both. Every image's chance follows from its key, whatever batch it is in. What has
    strength 0 changes nothing.
    """

    def __init__(self, options: LowFieldOptions, batch: Batch) -> None:
        self._o, self._masks, self._keys = options, {"A": batch.mask_A, "B": batch.mask_B}, batch.key

    def on_fake(self, domain: str, image: Tensor) -> Tensor:
        """A synthesis as its discriminator and the way back see it: fake_A with a scan's noise and field."""
        return self._scanned("B", image, "fake_A") if domain == "A" else image

    def on_way_back(self, domain: str, image: Tensor) -> Tensor:
        """A synthesis before the cycle is closed: a's own noise must not survive in fake_B (see `HIDING`)."""
        return self._scanned("A", image, "fake_B", HIDING, field=False) if domain == "B" else image

    def on_real(self, domain: str, image: Tensor) -> Tensor:
        """A real image as L_idt shows it to the generator of its own domain."""
        if domain == "A":
            return self._scanned("A", image, "A", HIDING, field=False)
        return self._scanned("B", image, "B")

    def _scanned(self, anatomy: str, image: Tensor, name: str, times: float = 1.0, *, field: bool = True) -> Tensor:
        """`image`, which shows the anatomy of the batch's A or B, times a receive field, plus noise, in [-1, 1]."""
        o, mask = self._o, self._masks[anatomy]
        noise_draw = field_draw = None
        if o.lf_noise:
            noise_draw = noise(mask, times * o.lf_noise, o.lf_band, self._keys, f"noise_{name}")
        if field and o.lf_bias:
            field_draw = receive_field(mask, o.lf_bias, self._keys, f"field_{name}")
        return disturbed(image, noise_draw, field_draw)


@torch.autocast("cpu", enabled=False)  # drawn within a step, whose mixed precision would round it
def receive_field(images: Tensor, deviation: float, keys: Tensor, purpose: str) -> Tensor:
    """For images (N, C, H, W) factors (N, 1, H, W) whose logarithm is a smooth Gaussian process of that deviation.

    The sum of `WAVES` plane waves with random directions, lengths and amplitudes; `keys`, `purpose`: see models.chance.
    """
    height, width = images.shape[-2:]
    places = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    frequencies = WAVES_PER_SIDE * (2 * uniform(keys, f"{purpose}: waves", WAVES, 2) - 1)
    phase = 2 * math.pi * torch.einsum("nkd,dhw->nkhw", frequencies, torch.stack(places))
    sine, cosine = normal(keys, purpose, 2, WAVES, 1, 1).unbind(1)
    waves = sine * torch.sin(phase) + cosine * torch.cos(phase)
    return torch.exp(deviation * waves.sum(1, keepdim=True) / math.sqrt(WAVES)).to(images.device, non_blocking=True)


def noise(mask: Tensor, deviation: float, band: float, keys: Tensor, purpose: str) -> Tensor:
    """Gaussian noise inside the masks (N, 1, H, W), of that deviation and with a scanner's spectrum; 0 outside.

    White within `band` of each axis' k-space but for a Tukey roll-off at its edge, and nothing beyond; `keys` and
    `purpose` as in models.chance.
    """
    height, width = (_measured(n, band) for n in mask.shape[-2:])
    window = height[:, None] * width[None, :]
    window = window / window.square().mean().sqrt()

    def coloured(generator: torch.Generator) -> Tensor:
        white = torch.randn(mask.shape[1:], generator=generator)
        return torch.fft.ifft2(torch.fft.fft2(white) * window).real

    return deviation * mask * drawn(keys, purpose, coloured).to(mask.device, non_blocking=True)


def _measured(n: int, band: float) -> Tensor:
    """Weight (n,) of each frequency of one axis, in the order of `torch.fft.fftfreq`."""
    radius = torch.fft.fftfreq(n).abs() * 2 / band
    roll = ((radius - (1 - TAPER)) / TAPER).clamp(0, 1)
    return 0.5 * (1 + torch.cos(math.pi * roll))


def disturbed(x: Tensor, noise: Tensor | None = None, field: Tensor | None = None) -> Tensor:
    """x in [-1, 1], where -1 is no signal, times a receive field, plus noise, kept in [-1, 1]."""
    if noise is None and field is None:
        return x
    if field is not None:
        x = (x + 1) * field - 1
    if noise is not None:
        x = x + noise
    return x.clamp(-1, 1)
