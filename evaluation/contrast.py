"""Which of A's intensities are bright in B, from unpaired volumes: by the mean anatomy of heads laid over each other.

Between two contrasts the order of the tissues changes: CSF is brightest in T2w and darkest in T1w. A map of intensities
that only grows cannot follow. Heads scaled to their outline show, pixel by pixel, roughly the same tissue; the mean of
B over all pixels where A has some intensity is far too grey, but its order is that of the tissues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.stats import spearmanr

from evaluation.intensities import RANKS

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Curve = NDArray[np.float64]

SIDE = 64  # pixels of a head's box after scaling
BINS = 64  # of equally many pixels of A each
SMOOTH = 1.5  # bins
LEAST_PIXELS = 50  # of a head in a slice
# from this rank correlation on, the order counts as kept: small dips of the curve are chance, and following them cost
# 3.5 dB from 0.3 T T2w to 3 T T2w
KEPT = 0.8


@dataclass(frozen=True)
class Boxes:
    """The heads of one volume: box (S, 64, 64) in [0, 1], inside (S, 64, 64) bool, relative level p (S,)."""

    box: Floats
    inside: Mask
    p: Floats

    @classmethod
    def of(cls, images: Sequence[Floats], masks: Sequence[Mask], p: Floats) -> Boxes:
        kept = [i for i, mask in enumerate(masks) if mask.sum() >= LEAST_PIXELS]
        empty = np.zeros((0, SIDE, SIDE))
        pairs = [_scaled(images[i], masks[i]) for i in kept]
        box, inside = (np.stack(parts) for parts in zip(*pairs, strict=True)) if pairs else (empty, empty > 0)
        return cls(box.astype(np.float32), inside, np.asarray(p)[kept])


def _scaled(image: Floats, mask: Mask) -> tuple[Floats, Mask]:
    """The head's bounding box in an image (H, W), scaled to 64 x 64 by nearest neighbours."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    grid = np.ix_(*(np.linspace(found[0], found[-1], SIDE).round().astype(int) for found in (rows, columns)))
    return image[grid], mask[grid]


def sums_by_bin(a: Boxes, others: Sequence[Boxes], source: Floats) -> Curve:
    """Over the pixels of a volume of A: sum of B's mean there, and number of pixels, for each bin of A, (2, 64).

    Args: others: volumes of B, of each of which the slice with the nearest p is taken. source: A's quantiles (1001,).
    """
    total = np.zeros((2, BINS))
    others = [b for b in others if len(b.p)]
    for box, inside, p in zip(a.box, a.inside, a.p, strict=True):
        if others:
            nearest = [(b, int(np.argmin(np.abs(b.p - p)))) for b in others]
            mean = np.stack([b.box[i] for b, i in nearest]).mean(0, dtype=np.float64)
            both = inside & (np.stack([b.inside[i] for b, i in nearest]).mean(0) > 0.5)
            rank = np.interp(box[both], source, RANKS)
            bins = np.minimum((rank * BINS).astype(int), BINS - 1)
            total += [np.bincount(bins, weights, BINS) for weights in (mean[both], np.ones(len(bins)))]
    return total


def ordered(target: Floats, sums: Curve) -> Floats:
    """B's quantiles (1001,) in the order in which A's quantiles are bright in B; as they are if that is A's own order.

    Args: sums: of all volumes of A, see `sums_by_bin`.
    """
    known = sums[1] > 0
    if known.sum() < 2:
        return target
    centres = (np.arange(BINS) + 0.5) / BINS
    curve = np.interp(centres, centres[known], sums[0, known] / sums[1, known])
    curve = np.interp(RANKS, centres, gaussian_filter1d(curve, SMOOTH, mode="nearest"))
    kept = np.ptp(curve) == 0 or spearmanr(RANKS, curve).statistic >= KEPT
    return target if kept else target[np.argsort(np.argsort(curve, kind="stable"), kind="stable")]
