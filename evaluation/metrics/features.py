"""Distances between two sets of embedded slices (docs/method.md section 6.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def kernel_distance(x: Floats, y: Floats, *, gamma: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with the cubic kernel k(u, v) = (gamma u.v + 1)^3.

    It is the estimator of the kernel inception distance (Binkowski et al. 2018) and may be slightly negative.

    Args:
        x, y: (N, D) and (M, D) embeddings, N and M at least 2.
        gamma: None gives 1 / D, the choice of KID; 1 suits embeddings of unit length.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"embeddings of shape {x.shape} and {y.shape}")
    x, y = x.astype(np.float64), y.astype(np.float64)
    gamma = 1 / x.shape[1] if gamma is None else gamma
    within_x, within_y, across = ((gamma * u @ v.T + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    mean_x = (within_x.sum() - np.trace(within_x)) / (n * (n - 1))
    mean_y = (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
    return float(mean_x + mean_y - 2 * across.mean())


def _root(matrix: Floats) -> Floats:
    """Symmetric square root of a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet_of_moments(mean_x: Floats, cov_x: Floats, mean_y: Floats, cov_y: Floats) -> float:
    """|mean_x - mean_y|^2 + tr(cov_x + cov_y - 2 (cov_x cov_y)^(1/2)), all float64; means (D,), covariances (D, D)."""
    root = _root(cov_x)
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)).sum()
    return float(((mean_x - mean_y) ** 2).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)


def frechet_distance(x: Floats, y: Floats) -> float:
    """Frechet distance of the Gaussians fitted to x (N, D) and y (M, D), N and M at least 2.

    With fewer than D vectors, tr (cov_x cov_y)^(1/2) is the sum of the singular values of the N x M products of centred
    vectors, which takes seconds less than roots of D x D matrices and is the same number.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    if max(len(x), len(y)) > x.shape[1]:
        return frechet_of_moments(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
    from_x, from_y = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    cross = np.linalg.svd(from_x @ from_y.T, compute_uv=False).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + (from_x**2).sum() + (from_y**2).sum() - 2 * cross)


def halve_people(people: Sequence[str], *, rng: np.random.Generator) -> tuple[set[str], set[str]]:
    """Two disjoint random halves of the distinct people; with an odd number the second is larger."""
    names = np.array(sorted(set(people)))
    order = rng.permutation(len(names))
    half = len(names) // 2
    return set(names[order[:half]].tolist()), set(names[order[half:]].tolist())
