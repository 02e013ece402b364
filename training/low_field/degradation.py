"""How the low field's grey values, contrast and resolution differ from the high field's, from unpaired slices.

1. Tone: pooled quantiles of A's heads against those of B's, both smoothed, so that noise does not widen A's.
2. Contrast: how strong structures of medium size are in A, relative to B with A's tone, by power spectra of patches
   inside the heads. A curve of grey values alone makes them too strong: tissues that are alike in B differ in A, and
   the reverse, which no curve can follow, and receive fields widen A's quantiles.
3. Resolution: the part of k-space which, kept of B with A's tone, contrast and noise, gives A's spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from data.transforms import to_network
from models.degradation import Physics, degraded
from models.low_field_options import NO_SCAN, Strengths
from training.low_field.noise import frequency_radius, mean_power

KNOTS = 17  # of the tone curve
SMOOTHING = 0.012  # standard deviation in parts of the side
RANKS = np.linspace(0.002, 0.998, 999)
TOP = 0.05  # part of the ranks whose slope goes on beyond the last quantile
PATCH = 24  # px; smaller where heads are small
SMALL_PATCH = 16
MEDIUM = (0.08, 0.35)  # radii, in parts of the Nyquist frequency, of structures of medium size
CONTRASTS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # that are tried
COARSE = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # resolutions that are tried,
FINE = (-0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06)  # and steps around the best of them
MOST_SLICES = 64  # of either domain
BINS = 12  # of radii, for comparing spectra

Slices = tuple[NDArray[np.float32], NDArray[np.bool_]]  # (N, H, W) in [0, 1], and foreground


@dataclass(frozen=True)
class ToneAndSharpness:
    """`--lf_tone`, and `--lf_contrast` and `--lf_resolution`, None where heads are too small or too few to measure."""

    tone: tuple[float, ...]
    contrast: float | None
    resolution: float | None


def estimate_degradation(
    low: Slices, high: Slices, strengths: Strengths, *, preprocess: str, load_size: int
) -> ToneAndSharpness | None:
    """Estimates in the network's input; None without any head.

    Args: low, high: slices of A and of B as stored. strengths: of A's noise and field in the network's input.
        preprocess, load_size: as for `to_network`.
    """
    (a, in_a), (b, in_b) = (
        to_network(images[::step], masks[::step], preprocess=preprocess, load_size=load_size)
        for images, masks in (low, high)
        for step in (-(-len(images) // MOST_SLICES),)
    )
    if not in_a.any() or not in_b.any():
        return None
    tone = tone_between(a, in_a, b, in_b)
    side = PATCH
    wanted = _spectrum(a, in_a, side)
    if wanted is None:
        side, wanted = SMALL_PATCH, _spectrum(a, in_a, SMALL_PATCH)
    if wanted is None or _spectrum(b, in_b, side) is None:
        return ToneAndSharpness(tone, None, None)
    where = frequency_radius((side, side))

    def error(contrast: float, resolution: float, lowest: float = 0.0, highest: float = 1.0) -> float:
        scans = _simulated(b, in_b, strengths, tone, contrast, resolution)
        return _unlike(wanted, _spectrum(scans, in_b, side), (where > lowest) & (where < highest), where)

    contrast = min(CONTRASTS, key=lambda value: error(value, 1.0, *MEDIUM))
    about = min(COARSE, key=partial(error, contrast))
    near = [about + step for step in FINE if COARSE[0] <= about + step <= 1]
    return ToneAndSharpness(tone, contrast, min(near, key=partial(error, contrast)))


def tone_between(a: Tensor, in_a: Tensor, b: Tensor, in_b: Tensor) -> tuple[float, ...]:
    """Grey values of A for KNOTS evenly spaced ones of B, from 0 to 1: those of the same rank in all heads together."""
    of_a, of_b = (_quantiles(x, mask) for x, mask in ((a, in_a), (b, in_b)))
    levels = np.linspace(0, 1, KNOTS)
    curve = np.interp(levels, of_b, of_a)
    dark, bright = levels < of_b[0], levels > of_b[-1]
    curve[dark] = of_a[0] * levels[dark] / of_b[0]
    n = int(TOP * len(RANKS))
    slope = (of_a[-1] - of_a[-n]) / (of_b[-1] - of_b[-n])
    curve[bright] = of_a[-1] + slope * (levels[bright] - of_b[-1])
    return tuple(np.maximum.accumulate(curve.clip(0, 1)).round(3).tolist())


def _quantiles(x: Tensor, mask: Tensor) -> NDArray[np.floating]:
    """Quantiles (999,) of the heads' smoothed grey values in [0, 1], growing."""
    grey, inside = ((x[:, 0] + 1) / 2 * mask[:, 0]).numpy(), mask[:, 0].numpy()
    sigma = (0, *[SMOOTHING * max(grey.shape[1:])] * 2)
    smooth = gaussian_filter(grey, sigma) / np.maximum(gaussian_filter(inside, sigma), 1e-3)
    return np.quantile(smooth[inside > 0], RANKS) + 1e-9 * np.arange(len(RANKS))


def _simulated(
    b: Tensor, mask: Tensor, strengths: Strengths, tone: tuple[float, ...], contrast: float, resolution: float
) -> Tensor:
    """b with A's noise and no random field, for patches show none."""
    noise_alone = Strengths(strengths.noise, strengths.band, NO_SCAN.bias)
    return degraded(b, mask, torch.arange(len(b)), Physics(noise_alone, resolution, contrast, tone))


def _spectrum(x: Tensor, mask: Tensor, side: int) -> NDArray[np.floating] | None:
    """Mean power (side, side) of patches inside the heads; None if there are too few."""
    return mean_power(x[:, 0].numpy(), mask[:, 0].numpy() > 0, side)


def _unlike(
    wanted: NDArray[np.floating],
    found: NDArray[np.floating] | None,
    counts: NDArray[np.bool_],
    where: NDArray[np.floating],
) -> float:
    """Mean difference of the logarithms of two radial spectra, of the frequencies that count."""
    if found is None:
        return np.inf
    ring = np.minimum((where * BINS).astype(int), BINS)
    rings = [(ring == k) & counts for k in range(BINS)]
    return float(np.mean([abs(np.log(wanted[r].mean() / found[r].mean())) for r in rings if r.any()]))
