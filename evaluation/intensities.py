"""Distributions of intensities in the foreground, and monotone maps from one to another."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from data.cache.packed_slices import PackedSlices
from data.folder.slice_folder import SliceFolder
from util.processes import ALONE, Processes

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]

RANKS = np.linspace(0, 1, 1001)  # of the quantiles that describe a distribution
GREY_LEVELS = 65536


def grey_counts(values: Floats) -> Counts:
    """How many of the values, [0, 1] after clipping, have each of 65536 grey levels, (65536,)."""
    levels = np.rint(np.clip(values, 0, 1) * (GREY_LEVELS - 1)).astype(np.int64)
    return np.bincount(levels, minlength=GREY_LEVELS)


def quantiles_of(counts: Counts) -> Floats:
    """Quantiles (1001,) of the values behind `grey_counts`."""
    cumulative = np.cumsum(counts)
    rank = RANKS * max(cumulative[-1] - 1, 0)
    return (np.searchsorted(cumulative, rank, side="right") / (GREY_LEVELS - 1)).astype(np.float32)


def summed_counts(counts: Counts, processes: Processes) -> Counts:
    """The sum over all processes."""
    return processes.summed(torch.from_numpy(counts)).numpy()


def pooled_quantiles(folder: SliceFolder | PackedSlices, processes: Processes = ALONE) -> Floats:
    """Quantiles (1001,) of the foreground intensities of all slices, to 16 bits; each process reads its part."""

    def count() -> Counts:
        counts = np.zeros(GREY_LEVELS, dtype=np.int64)
        for i in processes.until_failure(range(len(folder))[processes.part(len(folder))]):
            counts += grey_counts(folder.image(i)[folder.mask(i)])
        return counts

    return quantiles_of(summed_counts(processes.together(count), processes))


def map_quantiles(image: Floats, source: Floats, target: Floats) -> Floats:
    """The monotone map that turns the quantiles `source` into `target`, both (1001,), applied to an image."""
    knots, group = np.unique(source, return_inverse=True)  # equal intensities stay equal
    values = np.bincount(group, weights=target) / np.bincount(group)
    return np.interp(image, knots, values).astype(np.float32)


def match_histogram(image: Floats, mask: Mask, target: Floats) -> Floats:
    """Map a volume's foreground quantiles to the target's; the background becomes 0.

    Args:
        image, mask: (S, H, W); the mask is that of the model's input.
        target: (1001,) quantiles, see `pooled_quantiles`.
    """
    if not mask.any():
        return np.zeros_like(image)
    return np.where(mask, map_quantiles(image, np.quantile(image[mask], RANKS), target), np.float32(0))
