"""Small patches of the head: what signals and errors are compared in. A single pixel's error is mostly chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.image import affine_fit
from evaluation.subjects import SubjectSlices
from evaluation.trust.signals import unit_of

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

SIDE = 4  # units
LEAST_HEAD = 0.5  # of a patch: with less head it is left out


@dataclass(frozen=True)
class Patches:
    """N patches of one subject: means of features (N,) by name, and the mean squared error (N,) after the fit."""

    features: Mapping[str, Floats]
    squared_error: Floats


def patch_side(shape: tuple[int, ...]) -> int:
    """Side in pixels of the patches of slices (..., H, W)."""
    return max(2, round(SIDE * unit_of(shape)))


def patch_means(images: Floats, mask: Mask) -> Floats:
    """Means within the mask over every patch that is at least half head, (N,) float64, in a fixed order."""
    side = patch_side(mask.shape)
    count, rows, columns = mask.shape[0], mask.shape[1] // side, mask.shape[2] // side

    def sums(stack: NDArray) -> NDArray[np.float64]:
        whole = stack[:, : rows * side, : columns * side].astype(np.float64)
        return whole.reshape(count, rows, side, columns, side).sum((2, 4))

    inside = sums(mask)
    kept = inside >= LEAST_HEAD * side**2
    return sums(images * mask)[kept] / inside[kept]


def patches_of(volume: SubjectSlices, fake_B: Floats, features: Mapping[str, Floats]) -> Patches | None:
    """One subject's patches; None without a truth or without a patch in the head of both the input and the truth.

    The error is that of psnr_fit: after the best fit of the volume's brightness and contrast to its truth.
    """
    if volume.truth is None or volume.truth_mask is None or not volume.truth_mask.any():
        return None
    scale, offset = affine_fit(fake_B, volume.truth, volume.truth_mask)
    mask = volume.truth_mask & volume.mask
    error = patch_means((scale * fake_B.astype(np.float64) + offset - volume.truth) ** 2, mask)
    if not error.size:
        return None
    return Patches({name: patch_means(values, mask) for name, values in features.items()}, error)
