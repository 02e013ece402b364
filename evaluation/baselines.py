"""Baselines without learning on the same input: identity, histogram and classical.

See docs/method.md section 6.2.

All start from the model's input, the slice on a background of 0, and none reads the truth.
"""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means

from data.cache.packed_slices import PackedSlices
from data.folder.slice_folder import SliceFolder
from evaluation.subjects import SubjectSlices
from util.processes import ALONE, Processes

Floats = NDArray[np.float32]

BASELINES = ("identity", "histogram", "classical")
QUANTILES = np.linspace(0, 1, 1001)  # ranks that describe a distribution of intensities
GREY_LEVELS = 65536
PATCH_SIZE, PATCH_DISTANCE = 5, 5  # pixels: side of the patches, and radius of the search for similar ones
H_OVER_SIGMA = 0.8  # cut-off of the patch distance, advised by scikit-image for its fast mode with known sigma
MAD_TO_SIGMA = 1.4826  # of a normal distribution


def pooled_quantiles(folder: SliceFolder | PackedSlices, processes: Processes = ALONE) -> Floats:
    """Quantiles (1001,) of the foreground intensities of all slices, to 16 bits; each process reads its part."""

    def count() -> NDArray[np.int64]:
        counts = np.zeros(GREY_LEVELS, dtype=np.int64)
        for i in processes.until_failure(range(len(folder))[processes.part(len(folder))]):
            values = folder.image(i)[folder.mask(i)]
            counts += np.bincount(np.rint(values * (GREY_LEVELS - 1)).astype(np.int64), minlength=GREY_LEVELS)
        return counts

    cumulative = np.cumsum(processes.summed(torch.from_numpy(processes.together(count))).numpy())
    rank = QUANTILES * max(cumulative[-1] - 1, 0)
    return (np.searchsorted(cumulative, rank, side="right") / (GREY_LEVELS - 1)).astype(np.float32)


def match_histogram(image: Floats, mask: NDArray[np.bool_], target: Floats) -> Floats:
    """Map a volume's foreground quantiles to the target's; the background becomes 0.

    Args:
        image, mask: (S, H, W); the mask is that of the model's input.
        target: (1001,) quantiles, see `pooled_quantiles`.
    """
    if not mask.any():
        return np.zeros_like(image)
    source = np.quantile(image[mask], QUANTILES)
    knots, group = np.unique(source, return_inverse=True)  # equal intensities stay equal
    values = np.bincount(group, weights=target) / np.bincount(group)
    return np.where(mask, np.interp(image, knots, values), 0).astype(np.float32)


def noise_sigma(image: Floats, mask: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise in a volume's foreground, from diagonal Haar details (Donoho and Johnstone 1994).

    It is the scaled median of |a - b - c + d| / 2 over the 2 x 2 blocks that lie entirely in the mask (S, H, W).
    """
    a, b, c, d = (
        (slice(0, -1), slice(0, -1)),
        (slice(0, -1), slice(1, None)),
        (slice(1, None), slice(0, -1)),
        (slice(1, None),) * 2,
    )
    detail = (image[:, *a] - image[:, *b] - image[:, *c] + image[:, *d]) / 2
    inside = mask[:, *a] & mask[:, *b] & mask[:, *c] & mask[:, *d]
    return float(MAD_TO_SIGMA * np.median(np.abs(detail[inside]))) if inside.any() else 0.0


def _denoise(plane: Floats, sigma: float) -> Floats:
    return denoise_nl_means(
        plane,
        patch_size=PATCH_SIZE,
        patch_distance=PATCH_DISTANCE,
        h=H_OVER_SIGMA * sigma,
        sigma=sigma,
        fast_mode=True,
        preserve_range=True,
    ).astype(np.float32)


def denoise(volume: SubjectSlices, pool: Executor) -> Floats:
    """Non-local means of each slice with a noise level estimated from the volume: (S, H, W), background 0."""
    sigma = noise_sigma(volume.image, volume.mask)
    if sigma == 0:
        return volume.visible
    smooth = np.stack(list(pool.map(partial(_denoise, sigma=sigma), volume.image)))
    return np.where(volume.mask, smooth, np.float32(0))


def synthesise(volume: SubjectSlices, target: Floats | None, pool: Executor) -> dict[str, Floats]:
    """The baselines' slices (S, H, W) in [0, 1]; only identity without `target`, the pooled quantiles of trainB."""
    rows = {"identity": volume.visible}
    if target is not None:
        rows["histogram"] = match_histogram(volume.image, volume.mask, target)
        rows["classical"] = match_histogram(denoise(volume, pool), volume.mask, target)
    return rows
