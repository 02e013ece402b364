"""Resolution, random noise and receive field of a low-field scan (docs/method.md section 3.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from data.batch import Batch
from models.chance import drawn, normal, uniform
from models.low_field_options import Strengths
from models.passes import full

TAPER = 0.25  # outer part of the measured k-space that rolls off: scanners filter it to reduce ringing
FILLED = 1 - TAPER * 5 / 8  # share of the power of white noise that the roll-off leaves of a measured axis
WAVES = 6  # plane waves in a receive field
WAVES_PER_SIDE = 2.0  # highest spatial frequency of a receive field: a coil's sensitivity changes over some 10 cm

# Noise of this many times --lf_noise is added to a and fake_B before G_BA restores a. It hides a's own noise; otherwise
# L_cycle and L_idt reward G_AB for the noise that it lets through. Noise left in the synthesised image (high-frequency
# deviation in white matter) after 600 images: .055 at 1, .055 at 2, .047 at 3, .036 at 5, where contrast suffers
HIDING = 3.0


class HasStrengths(Protocol):
    """Options that tell how strong noise and receive field are."""

    @property
    def strengths(self) -> Strengths: ...


class LowFieldScan:
    """Gives the images of one batch what a low-field scanner does to every image: resolution, noise, receive field.

    Without noise and field G_BA would have to invent noise to fool D_A, and G_AB would hide a's noise in fake_B so that
    G_BA could restore it (Chu et al. 2017): it would keep what it should remove. With them G_BA draws the image without
    noise, and G_AB learns to remove noise and field. The scanner has measured a part of k-space only; a fake_A that
    showed more would ask G_AB for less than a real scan does. The random numbers follow from each image's key, whatever
    batch it is in. Strength 0 changes nothing.
    """

    def __init__(self, options: HasStrengths, batch: Batch) -> None:
        self._strengths, self._masks, self._keys = options.strengths, {"A": batch.mask_A, "B": batch.mask_B}, batch.key

    def on_fake(self, domain: str, image: Tensor, shading: Tensor | None = None) -> Tensor:
        """A synthesised image for the discriminator and the second generator: fake_A gets the scanner's properties.

        shading: factors (N, 1, H, W) in place of a random receive field.
        """
        if domain == "B":
            return image
        o = self._strengths
        if o.noise and o.band < 1:
            image = band_limited(image, o.band)
        if shading is not None:
            image = disturbed(image, field=shading)
        return self._scanned("B", image, "fake_A", field=shading is None)

    def on_way_back(self, domain: str, image: Tensor) -> Tensor:
        """A synthesised image before the second generator: fake_B gets noise that hides a's own (see `HIDING`)."""
        return self._scanned("A", image, "fake_B", HIDING, field=False) if domain == "B" else image

    def on_real(self, domain: str, image: Tensor) -> Tensor:
        """A real image before the generator of its own domain, for L_idt."""
        if domain == "A":
            return self._scanned("A", image, "A", HIDING, field=False)
        return self._scanned("B", image, "B")

    def _scanned(self, anatomy: str, image: Tensor, name: str, times: float = 1.0, *, field: bool = True) -> Tensor:
        """`image`, of the same anatomy as the batch's A or B, times a receive field, plus noise, in [-1, 1]."""
        o, mask = self._strengths, self._masks[anatomy]
        noise_draw = field_draw = None
        if o.noise:
            noise_draw = noise(mask, times * o.noise, o.band, self._keys, f"noise_{name}")
        if field and o.bias:
            field_draw = receive_field(mask, o.bias, self._keys, f"field_{name}")
        return disturbed(image, noise_draw, field_draw)


@torch.autocast("cpu", enabled=False)  # called within a step, whose mixed precision would round the numbers
def receive_field(images: Tensor, deviation: float, keys: Tensor, purpose: str) -> Tensor:
    """Factors (N, 1, H, W) for images (N, C, H, W); their logarithm is a smooth random field of that std deviation.

    A sum of `WAVES` plane waves of random direction, length and amplitude. `keys`, `purpose`: as in models.chance.
    """
    height, width = images.shape[-2:]
    places = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    frequencies = WAVES_PER_SIDE * (2 * uniform(keys, f"{purpose}: waves", WAVES, 2) - 1)
    phase = 2 * math.pi * torch.einsum("nkd,dhw->nkhw", frequencies, torch.stack(places))
    sine, cosine = normal(keys, purpose, 2, WAVES, 1, 1).unbind(1)
    waves = sine * torch.sin(phase) + cosine * torch.cos(phase)
    return torch.exp(deviation * waves.sum(1, keepdim=True) / math.sqrt(WAVES)).to(images.device, non_blocking=True)


def noise(mask: Tensor, deviation: float, band: float, keys: Tensor, purpose: str) -> Tensor:
    """Gaussian noise of standard deviation `deviation` inside the masks (N, 1, H, W), 0 outside.

    It has a scanner's spectrum: white within the fraction `band` of each k-space axis, with a Tukey roll-off at the
    edge, and nothing beyond. `keys`, `purpose`: as in models.chance.
    """
    window = band_window(mask.shape[-2:], band)
    window = window / window.square().mean().sqrt()

    def coloured(generator: torch.Generator) -> Tensor:
        white = torch.randn(mask.shape[1:], generator=generator)
        return passed(white, window)

    return deviation * mask * drawn(keys, purpose, coloured).to(mask.device, non_blocking=True)


def band_limited(image: Tensor, band: float) -> Tensor:
    """Images (N, 1, H, W) in [-1, 1], -1 being no signal, without the part of k-space beyond `band`. Float32."""
    return passed(full(image) + 1, band_window(image.shape[-2:], band)) - 1


def passed(signal: Tensor, transfer: Tensor) -> Tensor:
    """Images (N, 1, H, W) through a filter: weights (H, W) of k-space, in the order of `torch.fft.fftfreq`."""
    return torch.fft.ifft2(torch.fft.fft2(signal) * transfer.to(signal, non_blocking=True)).real


def band_window(size: Sequence[int], band: float) -> Tensor:
    """Weights (H, W) of k-space: the fraction `band` of each axis with a Tukey roll-off at its edge, nothing beyond."""
    rows, columns = (_kept_frequencies(n, band) for n in size)
    return rows[:, None] * columns[None, :]


def _kept_frequencies(n: int, band: float) -> Tensor:
    """Weight (n,) of each frequency of one axis, in the order of `torch.fft.fftfreq`."""
    radius = torch.fft.fftfreq(n).abs() * 2 / band
    roll = ((radius - (1 - TAPER)) / TAPER).clamp(0, 1)
    return 0.5 * (1 + torch.cos(math.pi * roll))


def disturbed(x: Tensor, noise: Tensor | None = None, field: Tensor | None = None) -> Tensor:
    """x in [-1, 1] (-1 is no signal) times a receive field, plus noise, clamped to [-1, 1]."""
    if noise is None and field is None:
        return x
    if field is not None:
        x = (x + 1) * field - 1
    if noise is not None:
        x = x + noise
    return x.clamp(-1, 1)
