"""Who is seen with whom, and when: every choice of an epoch, drawn in the main process from (seed, stage, epoch).

A `Draw` holds all that is random about one item, so workers, processes and restarts cannot change what a run sees.
Drawing an epoch of N items takes O(N log N).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Draw(NamedTuple):
    """One item: positions of the two slices, the levels they stand for, and the key of their random transforms."""

    a: int
    b: int
    p_a: float
    p_b: float
    key: int


def generator(seed: int, stage: str, epoch: int) -> np.random.Generator:
    """Random numbers of one epoch of one stage."""
    return np.random.default_rng([seed, *stage.encode(), epoch])


def near_level(levels: Floats, wanted: Floats, tolerance: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """For every wanted level a random position whose level lies within `tolerance`; the nearest if none does.

    Args:
        levels: (M,) levels to choose from.
        wanted: (N,) levels asked for.
        tolerance: half width, in units of p (published: 0.03).

    Returns:
        (N,) int64 positions in `levels`.
    """
    order = np.argsort(levels, kind="stable")
    ordered = levels[order]
    low = np.searchsorted(ordered, wanted - tolerance, side="left")
    high = np.searchsorted(ordered, wanted + tolerance, side="right")
    inside = low + (rng.random(len(wanted)) * (high - low)).astype(np.int64)
    right = np.clip(np.searchsorted(ordered, wanted), 1, max(len(ordered) - 1, 1))
    left_nearer = wanted - ordered[right - 1] <= ordered[np.minimum(right, len(ordered) - 1)] - wanted
    nearest = np.where(left_nearer, right - 1, np.minimum(right, len(ordered) - 1))
    return order[np.where(high > low, inside, nearest)]


def shuffled_epoch(
    p_a: Floats,
    p_b: Floats,
    *,
    rng: np.random.Generator,
    tolerance: float,
    serial: bool = False,
    partners: NDArray[np.int64] | None = None,
) -> list[Draw]:
    """One pass: every slice of the larger domain's count; a's in random order (`serial`: in file order).

    The partner b is drawn from row a of `partners` (SGP's nearest high-field slices, (len A, k)) or, without that
    table, among the b of nearly the same level.
    """
    length = max(len(p_a), len(p_b))
    rounds = -(-length // len(p_a))
    order = [np.arange(len(p_a)) if serial else rng.permutation(len(p_a)) for _ in range(rounds)]
    a = np.concatenate(order)[:length]
    if partners is None:
        b = near_level(p_b, p_a[a], tolerance, rng)
    else:
        b = partners[a, rng.integers(partners.shape[1], size=length)]
    return _draws(a, b, p_a, p_b, rng)


def level_epoch(
    p_a: Floats,
    p_b: Floats,
    volumes_a: NDArray[np.int64],
    volumes_b: NDArray[np.int64],
    *,
    batch_size: int,
    rng: np.random.Generator,
    tolerance: float,
    crop: float,
) -> list[Draw]:
    """Batches of distinct levels for SGP (method.md section 1): one level from each of `batch_size` equal strata.

    Every volume is first cut at random by up to `crop` of its extent at each end and its levels counted anew, so that
    the error of one volume's coverage differs from epoch to epoch and averages out.

    Args:
        p_a, p_b: (N,), (M,) levels.
        volumes_a, volumes_b: (N,), (M,) number of the volume each slice belongs to.
    """
    cut_a, cut_b = _crop_levels(p_a, volumes_a, crop, rng), _crop_levels(p_b, volumes_b, crop, rng)
    kept_a, kept_b = np.flatnonzero(~np.isnan(cut_a)), np.flatnonzero(~np.isnan(cut_b))
    n_batches = -(-max(len(p_a), len(p_b)) // batch_size)
    strata = np.tile(np.arange(batch_size), n_batches)
    wanted = ((strata + rng.random(len(strata))) / batch_size).astype(np.float32)
    a = kept_a[near_level(cut_a[kept_a], wanted, tolerance, rng)]
    b = kept_b[near_level(cut_b[kept_b], cut_a[a], tolerance, rng)]
    return _draws(a, b, cut_a, cut_b, rng)


def _crop_levels(p: Floats, volumes: NDArray[np.int64], crop: float, rng: np.random.Generator) -> Floats:
    """Levels counted within a random part of each volume; NaN outside the part."""
    low, high = rng.random((2, int(volumes.max()) + 1)) * crop
    cut = (p - low[volumes]) / (1 - low[volumes] - high[volumes])
    return np.where((cut >= 0) & (cut <= 1), cut, np.nan).astype(np.float32)


def _draws(
    a: NDArray[np.int64], b: NDArray[np.int64], p_a: Floats, p_b: Floats, rng: np.random.Generator
) -> list[Draw]:
    keys = rng.integers(2**62, size=len(a))
    return [
        Draw(*row) for row in zip(a.tolist(), b.tolist(), p_a[a].tolist(), p_b[b].tolist(), keys.tolist(), strict=True)
    ]
