"""Level and spectrum of the noise in low-field slices, estimated inside the head, without a truth.

1. Power spectra of small patches inside the head; those with the least power at low frequencies hold least anatomy.
2. From their mean spectrum: the part of k-space that the scanner measured. Slices are cut to that part, so that noise
   fills it, whatever zeros the scanner or a resampling added.
3. The spectrum of the quietest patches, less what they still hold of anatomy, which is extrapolated from somewhat less
   quiet ones. At low frequencies, where anatomy cannot be told from noise, noise is taken to be white.
4. Noise of that spectrum is resized as slices are, which gives its level and band in the network's input.
5. Where pixels are coarse, folds and texture look like noise even in quiet patches. If the air is real and has less
   noise, that level is taken. Often it is not: windows cut it off, masks and scanners blank it.

How close the estimates come: docs/low_field.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from data.transforms import to_network
from models.low_field import FILLED

PATCH = 16  # side in pixels of the patches
FINE_PATCH = 24  # and of those that show the measured part of k-space, in slices of at least
FINE_SIDE = 160  # this many pixels
MOST_PATCHES = 40_000
FEWEST_PATCHES = 400  # fewer tell nothing
DIM = 0.2  # part of the patches, the darkest ones, that is left out: magnitudes near zero have less noise
LOW = 0.45  # radius, in parts of the Nyquist frequency, of the low frequencies that show anatomy
QUIET = 0.05  # part of the patches that is quiet; as many again, three times, are somewhat less quiet
LOWEST = 0.5  # part of the powers of each frequency that is averaged: the lower ones hold less anatomy
LOWEST_MEAN = 1 + (1 - LOWEST) * np.log(1 - LOWEST) / LOWEST  # of exponentially distributed powers of mean 1
PLATEAU = (0.35, 0.6)  # radii between which noise is measured for the frequencies below
CUT = 0.1  # beyond the measured k-space there is less power than this, relative to the least within
INSIDE = 0.95  # part of a pixel that must be head after a resampling
AIR = (0.7, 0.9, 0.97)  # quantiles of the air; the window cuts only lower ones off
AIR_SPREAD = 0.58  # from the first to the second, in deviations of one channel: 0.59 for one coil, 0.57 for four
AIR_TAIL = (
    0.65,
    1.1,
)  # from the second to the third, in spreads: 0.85 for one coil, 0.82 for four; else it is not real
AIR_MARGIN = 4  # pixels around the mask that are no air yet
FEWEST_AIR = 1000  # pixels
LEAST_AIR = 0.1  # air with less noise than this, relative to the head, has been filtered
DRAWN = 8  # slices of noise that are drawn to see what resizing makes of it

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class NoiseEstimate:
    """`--lf_noise` and `--lf_band`."""

    deviation: float
    band: float


@dataclass(frozen=True)
class _Spectra:
    """Power (n, PATCH, PATCH) of patches, in the order of `texture` (n,), their power at low frequencies."""

    power: FloatArray
    texture: FloatArray

    def between(self, start: float, stop: float) -> tuple[FloatArray, float]:
        """Mean power and texture of the patches between two parts of the order; the higher powers are left out."""
        part = slice(int(start * len(self.texture)), int(stop * len(self.texture)))
        lowest = np.sort(self.power[part], 0)[: max(1, int(LOWEST * len(self.texture[part])))]
        return lowest.mean(0) / LOWEST_MEAN, float(self.texture[part].mean())


def estimate_noise(
    images: FloatArray, masks: NDArray[np.bool_], *, preprocess: str, load_size: int
) -> NoiseEstimate | None:
    """The noise of slices in the network's input; None if the heads are too small, too few or empty.

    Args: images: (N, H, W) in [0, 1], as stored; masks: (N, H, W). preprocess, load_size: as for `to_network`.
    """
    in_air = _air_noise(images, masks)
    images = np.where(masks, 2 * images - 1, -1)
    first = _spectra(images, masks, FINE_PATCH if min(images.shape[1:]) >= FINE_SIDE else PATCH)
    if first is None:
        return None
    measured = _measured_part(first.between(0, 2 * QUIET)[0])
    cut = _cut(images, measured)
    spectra = _spectra(cut, _resized(masks, cut.shape[1:]), PATCH)
    if spectra is None:
        return None
    density = _density(spectra)
    if not density.mean() > 0:
        return None
    if in_air is not None and LEAST_AIR**2 < in_air**2 / density.mean() < 1:
        density = density * (in_air**2 / density.mean())
    return _in_network(density, cut.shape[1:], images.shape[1:], preprocess, load_size)


def mean_power(images: FloatArray, masks: NDArray[np.bool_], side: int) -> FloatArray | None:
    """Mean power (side, side) of patches inside the masks, but for the darkest ones; None if there are too few.

    Args: images: (N, H, W) in [-1, 1].
    """
    spectra = _spectra(images, masks, side)
    return None if spectra is None else spectra.power.mean(0)


def _air_noise(images: FloatArray, masks: NDArray[np.bool_]) -> float | None:
    """Deviation of one channel's noise in [-1, 1], from the air; None if it is blank, or not distributed like noise."""
    air = ~ndimage.binary_dilation(masks, np.ones((1, 3, 3), bool), iterations=AIR_MARGIN)
    air &= images.any(1, keepdims=True) & images.any(2, keepdims=True)  # padding is none
    if air.sum() < FEWEST_AIR:
        return None
    low, middle, high = np.quantile(images[air], AIR)
    if not 0 < low < middle or not AIR_TAIL[0] < (high - middle) / (middle - low) < AIR_TAIL[1]:
        return None
    return 2 * float(middle - low) / AIR_SPREAD


def _spectra(images: FloatArray, masks: NDArray[np.bool_], side: int) -> _Spectra | None:
    """Spectra of patches that lie inside the masks; None if there are too few."""
    powers, levels = [], []
    window = np.outer(*[np.hanning(side + 2)[1:-1]] * 2)
    for patches in _patches(images, masks, side):
        level = (patches * window).sum((-2, -1), keepdims=True) / window.sum()
        transform = np.fft.fft2((patches - level) * window)
        powers.append((np.abs(transform) ** 2 / (window**2).sum()).astype(np.float32))
        levels.append(level[:, 0, 0])
    if sum(map(len, powers)) < FEWEST_PATCHES:
        return None
    power, level = np.concatenate(powers), np.concatenate(levels)
    power = power[level >= np.quantile(level, DIM)]
    radius = frequency_radius((side, side))
    texture = power[:, (radius > 0) & (radius < LOW)].mean(1)
    order = np.argsort(texture)
    return _Spectra(power[order], texture[order])


def _patches(images: FloatArray, masks: NDArray[np.bool_], side: int) -> Iterator[FloatArray]:
    """Patches (n, side, side) of each slice, overlapping, no more than MOST_PATCHES in all."""
    if min(images.shape[1:]) < side:
        return
    step = side // 4
    inside = np.asarray(sliding_window_view(masks, (side, side), (1, 2))[:, ::step, ::step].all((-2, -1)))
    thinned = -(-int(inside.sum()) // MOST_PATCHES) or 1
    for image, places in zip(images, inside, strict=True):
        found = np.argwhere(places)[::thinned] * step
        if len(found):
            yield sliding_window_view(image, (side, side))[found[:, 0], found[:, 1]]


def frequency_radius(shape: tuple[int, ...]) -> FloatArray:
    """Distance of every frequency from zero, in parts of the Nyquist frequency."""
    return np.hypot(*np.meshgrid(*(2 * np.fft.fftfreq(n) for n in shape), indexing="ij"))


def _measured_part(power: FloatArray) -> tuple[float, float]:
    """The part of either axis of k-space that holds power; 1 where no edge shows."""
    return _edge(power), _edge(power.T)


def _edge(power: FloatArray) -> float:
    """The frequency along the first axis beyond which there is nearly no power."""
    n = len(power)
    aside = [k for k in range(n) if 2 <= min(k, n - k) <= max(3, n // 6)]
    profile = [power[[k, -k % n]][:, aside].mean() for k in range(n // 2 + 1)]
    for k in range(3, n // 2 + 1):
        if max(profile[k:]) < CUT * min(profile[2 : max(3, int(0.7 * k)) + 1]):
            return 2 * k / n
    return 1.0


def _cut(images: FloatArray, part: tuple[float, float]) -> FloatArray:
    """The images (N, h, w) that the central part of their k-space makes; the noise in it keeps its deviation."""
    sides = images.shape[1:]
    kept = [2 * int(np.ceil(side * share / 2)) for side, share in zip(sides, part, strict=True)]
    if all(share == 1 for share in part):
        return images
    first = [side // 2 - n // 2 for side, n in zip(sides, kept, strict=True)]
    rows, columns = (slice(start, start + n) for start, n in zip(first, kept, strict=True))
    scale = kept[0] * kept[1] / (sides[0] * sides[1])
    cut = np.empty((len(images), *kept), np.float32)
    for image, out in zip(images, cut, strict=True):
        centred = np.fft.fftshift(np.fft.fft2(image))[rows, columns]
        out[...] = np.fft.ifft2(np.fft.ifftshift(centred)).real * scale
    return cut


def _resized(masks: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    soft = torch.from_numpy(masks.astype(np.float32))[:, None]
    return (F.interpolate(soft, shape, mode="bilinear", antialias=True)[:, 0] > INSIDE).numpy()


def _density(spectra: _Spectra) -> FloatArray:
    """Power of the noise at each frequency of a patch, (PATCH, PATCH); its mean is the variance."""
    radius = frequency_radius(spectra.power.shape[1:])
    plateau = (radius >= PLATEAU[0]) & (radius < PLATEAU[1])
    (quiet, low), (busier, high) = spectra.between(0, QUIET), spectra.between(QUIET, 4 * QUIET)
    density = quiet
    for _ in range(5):  # the texture of noise alone is its density, which this finds
        excess = max(0.0, (low - float(np.median(density[plateau]))) / max(high - low, 1e-12))
        density = np.maximum(quiet - excess * (busier - quiet), 0.02 * quiet)
    return np.where(radius < PLATEAU[0], np.median(density[plateau]), density)


def _in_network(
    density: FloatArray, cut: tuple[int, ...], stored: tuple[int, ...], preprocess: str, load_size: int
) -> NoiseEstimate:
    """Level and band, in the network's input, of noise whose spectrum is known in the cut k-space of stored slices."""
    axes = [2 * np.fft.fftfreq(n) * n / m for n, m in zip(stored, cut, strict=True)]  # in parts of the cut k-space
    amplitude = np.sqrt(_between_frequencies(density, *axes))
    white = np.random.default_rng(0).standard_normal((DRAWN, *stored))
    noise = np.fft.ifft2(np.fft.fft2(white) * amplitude).real
    faint = 0.05 / noise.std()  # far from black and white
    image = (0.5 + faint * noise / 2).astype(np.float32)
    shown, inside = to_network(image, np.ones(image.shape, bool), preprocess=preprocess, load_size=load_size)
    rows, columns = (np.flatnonzero(inside[0, 0].amax(axis).numpy()) for axis in (1, 0))
    found = shown[:, 0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].numpy()
    found = found - found.mean((1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(found)) ** 2 / found[0].size
    radius = frequency_radius(found.shape[1:])
    share = np.sqrt(power.mean() / power[:, (radius > 0) & (radius < 0.2)].mean())
    deviation = np.sqrt(density.mean()) * found.std() / 0.05
    return NoiseEstimate(float(deviation), float(np.clip(share / FILLED, 0.1, 1)))


def _between_frequencies(density: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """Density at other frequencies, in parts of its Nyquist frequency: linear between its own, 0 beyond them."""
    n = len(density)
    own = 2 * np.fft.fftshift(np.fft.fftfreq(n))
    grid = np.fft.fftshift(density)
    grid = np.array([np.interp(np.clip(columns, own[0], own[-1]), own, row) for row in grid])
    grid = np.array([np.interp(np.clip(rows, own[0], own[-1]), own, column) for column in grid.T]).T
    beyond = (np.abs(rows) > 1)[:, None] | (np.abs(columns) > 1)[None, :]
    return np.where(beyond, 0, grid)
