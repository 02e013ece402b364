"""How well high-field slices lie on low-field slices: numbers that registration did not use, and a picture.

Registration maximises information between intensities. So edges are a check: their correlation, and by how much each
quarter of the head would have to be shifted for its edges to correlate best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.metrics.structure import edge_corr, gradient
from scripts.slice_registration import Registered, extent_of

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

SMOOTHING = 0.008  # of the head's extent, before edges are compared: noise has edges too
FARTHEST = 0.04  # of the extent, that a quarter is shifted at most,
LEAST_FARTHEST = 4  # and pixels, where pixels are large
LEAST_CORRELATION = 0.25  # of edges, below which the best shift says nothing: other contrast, or too much noise
TILES = 10  # of the checkerboard, a side
MARGIN = 4  # pixels around the head in the picture
TITLES = ("low field", "high field, registered", "both, in turn", "high field's outlines on the low field")


@dataclass(frozen=True)
class Quality:
    """How well one slice lies.

    dice: overlap of the two heads' masks, 0 to 1. edge_corr: correlation of the edges' strengths inside both.
    misfit_px: root mean square over the quarters of the head of the shift that would suit their edges best, in
    low-field pixels; None where no quarter tells. quarters: the number of those that do, 0 to 4. Where
    contrasts differ, so do edges, and the misfit is larger than the registration's error.
    """

    dice: float
    edge_corr: float | None
    misfit_px: float | None
    quarters: int


def qualities(low: Floats, found: Registered) -> list[Quality]:
    """The quality of each slice; `low` are the low-field slices (S, H, W) that were registered to."""
    extent = extent_of(found.low_mask)
    return [
        _quality(image, high, masks, extent)
        for image, high, *masks in zip(low, found.high, found.low_mask, found.high_mask, strict=True)
    ]


def _quality(low: Floats, high: Floats, masks: Sequence[Mask], extent: float) -> Quality:
    both = masks[0] & masks[1]
    sigma = SMOOTHING * extent
    smooth = [ndimage.gaussian_filter(image, sigma) for image in (low, high)]
    fixed, moving = (gradient(image[None])[0] for image in smooth)
    middle = np.argwhere(masks[0]).mean(0)
    rows, columns = (index > place for index, place in zip(np.indices(low.shape), middle, strict=True))
    farthest = max(LEAST_FARTHEST, round(FARTHEST * extent))
    shifts = []
    for lower in (False, True):
        for right in (False, True):
            shift = best_shift(fixed, moving, both & (rows == lower) & (columns == right), farthest)
            shifts += [] if shift is None else [float(np.hypot(*shift))]
    return Quality(
        dice=float(2 * both.sum() / max(1, masks[0].sum() + masks[1].sum())),
        edge_corr=edge_corr(smooth[0][None], smooth[1][None], both[None]),
        misfit_px=float(np.sqrt(np.mean(np.square(shifts)))) if shifts else None,
        quarters=len(shifts),
    )


def best_shift(fixed: Floats, moving: Floats, mask: Mask, farthest: int) -> tuple[float, float] | None:
    """The shift of `moving` (H, W) by which it correlates best with `fixed` inside the mask, to parts of a pixel.

    None if the correlation is low everywhere, or largest at the end of the range of `farthest` pixels.
    """
    if mask.sum() < 2 or fixed[mask].std() == 0:
        return None
    wanted = fixed[mask] - fixed[mask].mean()
    reach = range(-farthest, farthest + 1)
    scores = np.zeros((len(reach), len(reach)))
    for row, down in enumerate(reach):
        for column, across in enumerate(reach):
            values = np.roll(moving, (down, across), (0, 1))[mask]
            values = values - values.mean()
            size = np.linalg.norm(values) * np.linalg.norm(wanted)
            scores[row, column] = values @ wanted / size if size > 0 else 0.0
    best = np.unravel_index(scores.argmax(), scores.shape)
    if scores[best] < LEAST_CORRELATION or not all(0 < place < len(reach) - 1 for place in best):
        return None
    row, column = int(best[0]), int(best[1])
    return (
        reach[row] + _top(scores[row - 1 : row + 2, column]),
        reach[column] + _top(scores[row, column - 1 : column + 2]),
    )


def _top(three: Floats) -> float:
    """Where a parabola through three neighbouring values is largest, from -0.5 to 0.5."""
    bend = three[0] - 2 * three[1] + three[2]
    return float(np.clip(0.5 * (three[0] - three[2]) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def draw(pairs: Sequence[tuple[str, Floats, Registered]], out: Path) -> None:
    """A picture: a row for each slice of each of `pairs` (name, low-field slices, what was found)."""
    mpl.use("Agg")
    every = [(f"{name}, {number + 1}", low, found, number) for name, low, found in pairs for number in range(len(low))]
    size = 2.2
    figure, axes = plt.subplots(
        len(every), len(TITLES), squeeze=False, facecolor="black", figsize=(size * len(TITLES), size * len(every) + 0.3)
    )
    for place, (line, (name, low, found, number)) in enumerate(zip(axes, every, strict=True)):
        images = [shown(low, found.low_mask)[number], shown(found.high, found.high_mask)[number]]
        tiles = np.indices(low.shape[1:]) // max(1, max(low.shape[1:]) // TILES)
        board = np.where(tiles.sum(0) % 2, *images)
        rows, columns = _around(np.any([found.low_mask, found.high_mask], axis=(0, 1)))
        for axis, picture in zip(line, (*images, board, images[0]), strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axis.set(xlim=columns, ylim=rows[::-1])
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(name, color="white", fontsize=8)
        smooth = ndimage.gaussian_filter(images[1], SMOOTHING * extent_of(found.low_mask))
        line[3].contour(smooth, [0.35, 0.65], colors=["yellow", "red"], linewidths=0.6)
        line[3].contour(found.high_mask[number].astype(float), [0.5], colors=["cyan"], linewidths=0.6)
        if place == 0:
            for axis, title in zip(line, TITLES, strict=True):
                axis.set_title(title, color="white", fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=80)
    plt.close(figure)


def _around(mask: Mask) -> tuple[tuple[float, float], tuple[float, float]]:
    """The square around a mask (H, W): first and last row, first and last column."""
    places = np.argwhere(mask)
    middle, half = (places.min(0) + places.max(0)) / 2, float(np.ptp(places, 0).max()) / 2 + MARGIN
    return (middle[0] - half, middle[0] + half), (middle[1] - half, middle[1] + half)


def shown(slices: Floats, masks: Mask) -> Floats:
    """Slices (S, H, W) in [0, 1] by the 0.5th and 99.5th percentile of their head."""
    low, high = np.percentile(slices[masks], (0.5, 99.5))
    return np.asarray(np.clip((slices - low) / max(high - low, 1e-12), 0, 1))
