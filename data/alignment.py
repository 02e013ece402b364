"""Levels that all volumes share: where each one begins and ends on one axis (docs/method.md section 1).

`p` counts within a volume, so it says another thing in a scan that ends at the ventricles than in one that ends at the
skull base. Single slices are easily taken for others, volumes are not: the order and spacing of their slices are known,
and two numbers place them all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

SIDE = 24  # pixels of the thumbnails
AXIS = np.linspace(0, 1, 61)  # levels at which a slice is compared with the others
WIDTH = 0.025  # in levels, of the Gaussian neighbourhood that a slice is compared with
BEYOND = 0.08  # by how much a volume may leave the axis
STARTS, EXTENTS = np.arange(-0.1, 0.62, 0.02), np.arange(0.3, 1.16, 0.025)  # that a volume may have
PRIOR = 2.0  # in standard deviations of similarity, for an end of a volume that is an axis away from where p has it
ROUNDS = 4
FEW = 0.5  # slices of other volumes; where there are no more, similarity says nothing
MOST = 20_000  # slices of a field that others are compared with; of more, every nth is taken
CHUNK_BYTES = 256 << 20


def looks_of(images: Tensor) -> Tensor:
    """Thumbnails of slices (N, 1, H, W) as vectors (N, 576) of mean 0 and length 1; their scalar product compares."""
    small = F.adaptive_avg_pool2d(images.float(), SIDE).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)


def aligned_levels(
    looks: tuple[Floats, Floats], p: tuple[Floats, Floats], volume: tuple[Ints, Ints], *, same_people: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Levels in [0, 1] of all slices of A and B on one axis, that of A's volumes on average.

    Each volume gets a start and an extent: those where its slices look most like the slices of the other volumes at
    the same levels, those of the other field in the first round, all in the rounds after. What moves the ends of a
    volume away from `p` must pay for it, so a volume that looks like nothing keeps its `p`.

    Args: by field, for each slice: looks: (N, D) unit vectors. p: (N,). volume: (N,) the number of its volume.
        same_people: volumes of one number in both fields show one person, and are not compared with each other.
    """
    levels = [np.asarray(x, np.float64).copy() for x in p]
    for turn in range(ROUNDS):
        for field in (1, 0) if turn else (1,):
            others = (0, 1) if turn else (1 - field,)
            likeness = np.zeros((len(p[field]), len(AXIS)))
            for other in others:
                of_other = looks[other], volume[other], levels[other]
                likeness += _likeness(looks[field], volume[field], *of_other, but_own=same_people or field == other)
            levels[field] = _placed(likeness - likeness.mean(1, keepdims=True), p[field], volume[field])
        if np.ptp(levels[0]):
            scale, shift = np.polyfit(levels[0], p[0], 1)
            levels = [scale * x + shift for x in levels]
    low, high = (np.clip(x, 0, 1).astype(np.float32) for x in levels)
    return low, high


def _likeness(
    looks: Floats, volume: Ints, others: Floats, volume_of_others: Ints, levels: Floats, *, but_own: bool
) -> NDArray[np.float64]:
    """How much each slice looks like the slices of other volumes around each level of the axis, (N, len(AXIS)).

    In standard deviations of its similarities, so that no slice counts more than another. but_own: volumes of its own
    volume's number do not count.
    """
    step = -(-len(others) // MOST)
    others, volume_of_others, levels = others[::step], volume_of_others[::step], levels[::step]
    near = np.exp(-0.5 * ((levels[:, None] - AXIS) / WIDTH) ** 2)
    found = np.empty((len(looks), len(AXIS)))
    size = max(1, CHUNK_BYTES // (8 * len(others)))
    for rows in (slice(start, start + size) for start in range(0, len(looks), size)):
        similarity = np.asarray(looks[rows] @ others.T, np.float64)
        similarity -= similarity.mean(1, keepdims=True)
        similarity /= similarity.std(1, keepdims=True) + 1e-6
        counts = np.ones_like(similarity)
        if but_own:
            counts[volume[rows, None] == volume_of_others] = 0
        found[rows] = ((similarity * counts) @ near) / (counts @ near + FEW)
    return found


def _placed(likeness: Floats, p: Floats, volume: Ints) -> NDArray[np.float64]:
    """Levels (N,) of the slices once every volume lies where its slices look most like the others."""
    starts, extents = STARTS[:, None], EXTENTS
    cost = PRIOR * (starts**2 + (starts + extents - 1) ** 2)
    levels = np.empty(len(p))
    for number in np.unique(volume):
        inside = np.flatnonzero(volume == number)
        at = starts[..., None] + extents[:, None] * np.asarray(p[inside], np.float64)  # (starts, extents, slices)
        gain = _interpolated(likeness[inside], np.clip(at, 0, 1)).mean(-1) - cost
        gain[(at.min(-1) < -BEYOND) | (at.max(-1) > 1 + BEYOND)] = -np.inf
        levels[inside] = at[np.unravel_index(gain.argmax(), gain.shape)]
    return levels


def _interpolated(likeness: Floats, at: Floats) -> Floats:
    """The value of each slice's row of `likeness` at its level, linear between the points of the axis."""
    place = at * (len(AXIS) - 1)
    left = np.minimum(place.astype(np.intp), len(AXIS) - 2)
    right, row = place - left, np.arange(at.shape[-1])
    return likeness[row, left] * (1 - right) + likeness[row, left + 1] * right
