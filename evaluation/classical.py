"""`classical`: what can be had without a network, on the same terms as one: from unpaired training slices.

1. Non-local means (Buades et al. 2005) with the noise measured in the air. 2. One map of intensities, from the pooled
quantiles of denoised training slices of the low field to those of the high field: one for all volumes, as a map for
each would turn every head's tissue fractions into those of the training heads. It grows, unless mean anatomy says that
the order of the tissues changes (`contrast`). 3. A linear filter that gives the radial amplitude spectrum of high-field
slices. The trials that chose each step: docs/benchmarks/log.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.restoration import denoise_nl_means

from data.cache.packed_slices import PackedSlices
from data.folder.masks import MAD_TO_SIGMA
from data.folder.slice_folder import SliceFolder
from evaluation.contrast import Boxes, ordered, sums_by_bin
from evaluation.intensities import GREY_LEVELS, grey_counts, map_quantiles, quantiles_of, summed_counts
from evaluation.subjects import SubjectSlices
from util.processes import ALONE, Processes
from util.spread import evenly_spaced

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Spectrum = NDArray[np.float64]
Slices = Sequence[tuple[Floats, Mask]]  # of one volume, each (H, W)
Folder = SliceFolder | PackedSlices

H_OVER_SIGMA = 0.6  # cut-off of the patch distance over the noise
SEARCH = 5  # pixels: radius of the search for similar patches
PATCH, LARGE_PATCH = 5, 7  # pixels a side; the large one where noise is correlated, in slices
LARGE = 160  # of at least so many pixels a side
AIR_MARGIN = 0.04  # of a slice's longer side: distance of the air from the foreground
LEAST_AIR = 500  # pixels
# between the median and the upper quartile of a Rayleigh background with sigma 1; 0.487 with four coils, so that the
# number of coils does not matter, and neither does a window that cuts off the darkest half
QUARTILE_STEP = 0.4875
RIM = 0.02  # of the longer side: how far beyond the foreground the result reaches, as noise hides the dim scalp
SUBJECTS, SLICES_EACH = 16, 12  # training slices that the map and the filter are fitted to, at most, per domain
BANDS = 256  # of one cycle per head each
LARGEST_GAIN = 1.3  # and its inverse the smallest: more would raise what the denoising left of the noise


def _air(mask: Mask) -> Mask:
    """Pixels far from the foreground, (H, W)."""
    return ~binary_dilation(mask, iterations=max(1, round(AIR_MARGIN * max(mask.shape))))


def noise_sigma(slices: Slices) -> float:
    """Standard deviation of one channel's noise in a volume: from the air, or, if that holds none, from details.

    Air that a scanner or a preparation has set to one value holds no noise. Details are finest diagonal Haar
    coefficients (Donoho and Johnstone 1994); they miss noise that zero-filling has left out of high frequencies.
    """
    air = np.concatenate([image[_air(mask)] for image, mask in slices])
    if len(air) >= LEAST_AIR:
        median, quartile = np.quantile(air, [0.5, 0.75])
        if 0 < median < quartile:
            return float(quartile - median) / QUARTILE_STEP
    details = np.concatenate([_diagonal_details(image, mask) for image, mask in slices])
    return float(MAD_TO_SIGMA * np.median(np.abs(details))) if len(details) else 0.0


def _diagonal_details(image: Floats, mask: Mask) -> Floats:
    """(a - b - c + d) / 2 of the 2 x 2 blocks that lie entirely in the mask (H, W)."""

    def corners(x: NDArray) -> list[NDArray]:
        return [x[:-1, :-1], x[:-1, 1:], x[1:, :-1], x[1:, 1:]]

    a, b, c, d = corners(image)
    return ((a - b - c + d) / 2)[np.logical_and.reduce(corners(mask))]


def _denoise(image: Floats, sigma: float) -> Floats:
    return denoise_nl_means(
        image,
        patch_size=LARGE_PATCH if max(image.shape) >= LARGE else PATCH,
        patch_distance=SEARCH,
        h=H_OVER_SIGMA * sigma,
        sigma=sigma,
        fast_mode=True,
        preserve_range=True,
    ).astype(np.float32)


def denoise(slices: Slices, pool: Executor) -> list[Floats]:
    """Non-local means of each slice of a volume, background included."""
    sigma = noise_sigma(slices)
    images = [image for image, _ in slices]
    return list(pool.map(partial(_denoise, sigma=sigma), images)) if sigma > 0 else images


def head_side(slices: Slices) -> float:
    """Side in pixels of a square as large as the volume's mean foreground: the unit of length of its spectrum."""
    return max(1.0, float(np.sqrt(np.mean([mask.sum() for _, mask in slices]))))


def _frequency(shape: tuple[int, ...], side: float) -> Spectrum:
    """Cycles per head of every coefficient of a real FFT of a slice."""
    height, width = shape
    return side * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))


def radial_power(images: Iterable[Floats], slices: Slices) -> Spectrum:
    """Mean power (256,) of a volume's images in bands of one cycle per head; 0 where slices hold no such frequency.

    Cycles per head rather than per pixel: the pixels of two scanners differ in size, heads little.
    """
    side, power, count = head_side(slices), np.zeros(BANDS), np.zeros(BANDS)
    for image, (_, mask) in zip(images, slices, strict=True):
        amplitude = np.abs(np.fft.rfft2(np.where(mask, image, 0))) / side**2
        band = np.minimum(_frequency(image.shape, side).astype(int), BANDS - 1).ravel()
        power += np.bincount(band, weights=amplitude.ravel() ** 2, minlength=BANDS)
        count += np.bincount(band, minlength=BANDS)
    return power / np.maximum(count, 1)


def _mean_where_known(spectra: Sequence[Spectrum]) -> Spectrum:
    """Mean over the volumes that hold a frequency."""
    stack = np.stack(spectra)
    return stack.sum(0) / np.maximum((stack > 0).sum(0), 1)


def filter_gain(source: Sequence[Spectrum], target: Sequence[Spectrum]) -> Spectrum:
    """Gain (256,) of a filter that gives images with the power `source` the power `target`; 1 where one is unknown."""
    before, after = _mean_where_known(source), _mean_where_known(target)
    known = (before > 0) & (after > 0)
    gain = np.ones(BANDS)
    gain[known] = np.clip(np.sqrt(after[known] / before[known]), 1 / LARGEST_GAIN, LARGEST_GAIN)
    gain[0] = 1  # brightness is the map's
    return gain


def apply_gain(image: Floats, gain: Spectrum, side: float) -> Floats:
    """An image (H, W) with its spectrum multiplied by `gain`, (256,) by cycles per head."""
    weights = np.interp(_frequency(image.shape, side), np.arange(BANDS) + 0.5, gain)
    return np.fft.irfft2(np.fft.rfft2(image) * weights, s=image.shape).astype(np.float32)


@dataclass(frozen=True)
class Classical:
    """The fitted map and filter. source: quantiles (1001,) of denoised A. values: what they become. gain: (256,)."""

    source: Floats
    values: Floats
    gain: Spectrum

    def synthesise(self, volume: SubjectSlices, pool: Executor) -> Floats:
        """Slices (S, H, W) in [0, 1]; 0 further than a rim from the foreground."""
        slices = list(zip(volume.image, volume.mask, strict=True))
        side = head_side(slices)
        made = pool.map(partial(self._finish, side=side), denoise(slices, pool), volume.mask)
        return np.stack(list(made))

    def _finish(self, image: Floats, mask: Mask, side: float) -> Floats:
        mapped = map_quantiles(image, self.source, self.values)
        near = binary_dilation(mask, iterations=max(1, round(RIM * max(mask.shape))))
        return np.where(near, np.clip(apply_gain(mapped, self.gain, side), 0, 1), np.float32(0))


@dataclass(frozen=True)
class _Volume:
    """Training slices of one volume and their relative levels (S,); `images` may have been denoised."""

    name: str
    slices: Slices
    images: list[Floats]
    p: Floats

    @property
    def masks(self) -> list[Mask]:
        return [mask for _, mask in self.slices]

    def boxes(self) -> Boxes:
        return Boxes.of(self.images, self.masks, self.p)


def _volumes(folder: Folder) -> Iterator[_Volume]:
    """At most `SUBJECTS` volumes of a folder, with at most `SLICES_EACH` slices of each."""
    names = np.asarray(folder.subjects if isinstance(folder, SliceFolder) else folder.volume)
    subjects = np.unique(names)
    for name in subjects[evenly_spaced(len(subjects), SUBJECTS)]:
        own = np.flatnonzero(names == name)
        positions = own[evenly_spaced(len(own), SLICES_EACH)]
        slices = [(folder.image(i), folder.mask(i)) for i in positions.tolist()]
        yield _Volume(str(name), slices, [image for image, _ in slices], folder.p[positions])


def fit_classical(
    source: Folder, target: Folder, target_quantiles: Floats, pool: Executor, processes: Processes = ALONE
) -> Classical:
    """Fit map and filter to unpaired slices of the low field and of the high field; the same for any processes.

    Args: source, target: folders of A and B. target_quantiles: of all slices of B, see `pooled_quantiles`.
    """

    def denoised() -> list[_Volume]:
        """This process' part of A."""
        mine = islice(_volumes(source), processes.rank, None, processes.size)
        return [replace(v, images=denoise(v.slices, pool)) for v in processes.until_failure(mine)]

    of_A, of_B = processes.together(denoised), processes.together(lambda: list(_volumes(target)))
    counts = np.zeros(GREY_LEVELS, dtype=np.int64)
    for volume in of_A:
        for image, mask in zip(volume.images, volume.masks, strict=True):
            counts += grey_counts(image[mask])
    quantiles = quantiles_of(summed_counts(counts, processes))
    boxes = [volume.boxes() for volume in of_B]
    sums = _in_order(processes, {v.name: sums_by_bin(v.boxes(), boxes, quantiles) for v in of_A})
    values = ordered(target_quantiles, np.sum(sums, axis=0))
    power = {
        v.name: radial_power([map_quantiles(image, quantiles, values) for image in v.images], v.slices) for v in of_A
    }
    wanted = [radial_power(volume.images, volume.slices) for volume in of_B]
    return Classical(quantiles, values, filter_gain(_in_order(processes, power), wanted))


def _in_order(processes: Processes, mine: dict[str, Spectrum]) -> list[Spectrum]:
    """The arrays of all processes in the order of the volumes' names: sums of them do not depend on the processes."""
    every = [item for part in processes.gathered(mine) for item in part.items()]
    return [array for _, array in sorted(every, key=itemgetter(0))]
