"""Texture of slices: how strong detail of each size is, and how strong edges are. No network, so nothing to train.

An encoder that learned which anatomy a slice shows has learned to ignore how it looks. These numbers are the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter, gaussian_gradient_magnitude

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

SCALES = (0.7, 1.4, 2.8, 5.6)  # pixels: sigmas between which details lie; the finest are below the first
DETAIL_RANKS = (0.25, 0.5, 0.75, 0.9, 0.98)
EDGE_RANKS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
DIMENSIONS = len(SCALES) * len(DETAIL_RANKS) + len(EDGE_RANKS)
DETAIL_FLOOR, EDGE_FLOOR = 1e-4, 1e-3  # of intensity, so that logarithms of nothing are finite
RIM = 3  # pixels inside the foreground's outline that do not count: their detail is the outline's
LEAST_PIXELS = 100
REACH = 1.5  # width of the kernel, in units of the distance of one standard deviation in every dimension


def texture(images: Floats, masks: Mask) -> Floats:
    """Texture of slices (S, H, W) in [0, 1] within their foreground: (S, 26) float64; NaN where that is too small.

    Logarithms of quantiles of the strength of detail in four bands of Gaussian differences, and of the gradient.
    """
    return np.stack([_texture_of(image, mask) for image, mask in zip(images, masks, strict=True)])


def _texture_of(image: Floats, mask: Mask) -> Floats:
    inside = binary_erosion(mask, iterations=RIM)
    if inside.sum() < LEAST_PIXELS:
        return np.full(DIMENSIONS, np.nan)
    image = image.astype(np.float64)
    levels = [image, *(gaussian_filter(image, sigma) for sigma in SCALES)]
    details = [np.abs(fine - coarse)[inside] for fine, coarse in pairwise(levels)]
    edges = gaussian_gradient_magnitude(image, SCALES[0])[inside]
    parts: Iterable[Floats] = [np.log(np.quantile(detail, DETAIL_RANKS) + DETAIL_FLOOR) for detail in details]
    return np.concatenate([*parts, np.log(np.quantile(edges, EDGE_RANKS) + EDGE_FLOOR)])


def gaussian_kernel_distance(x: Floats, y: Floats) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel of width `REACH` times the root of D.

    Args: x, y: (N, D) and (M, D), standardised; N and M at least 2.
    """

    def kernel(u: Floats, v: Floats) -> Floats:
        squares = (u**2).sum(1)[:, None] + (v**2).sum(1) - 2 * u @ v.T
        return np.exp(-np.maximum(squares, 0) / (2 * REACH**2 * u.shape[1]))

    n, m = len(x), len(y)
    within_x, within_y = (kernel(z, z).sum() - len(z) for z in (x, y))
    return float(within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * kernel(x, y).mean())
