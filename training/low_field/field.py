"""Strength of the receive field of low-field slices: how far left and right differ smoothly within a tissue.

Anatomy is nearly symmetric, a receive field is not. Pixels are sorted into classes of like brightness, and a polynomial
is fitted to each slice's deviations from the classes' levels, class and field by turns (Wells et al., IEEE TMI 1996).
Only its part that is odd from left to right counts. The same is done with fields of known strength multiplied in, which
tells how much of a field that part shows. What is asymmetric in the anatomy is taken for field: docs/low_field.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from data.folder.masks import MAD_TO_SIGMA
from models.low_field import receive_field

SIDE = 64  # pixels of the grid on which fields are measured
RIM = 4  # pixels of it at the head's edge that are left out: scalp and skull
LARGE = 0.6  # slices with less of the head than this, relative to the largest, are left out
FEWEST_PIXELS = 100
SMOOTHING = 0.8  # pixels; against noise, whose logarithm is skewed
DARK = 0.02  # least intensity whose logarithm is taken
CLASSES = 3  # of brightness in a head
ROUNDS = 10  # of fields and classes in turn
MOVES = 3  # of the classes' centres in a round
DIM = 0.15  # part of the pixels, the darkest, that does not decide where the classes begin
OUTLIER = 2.5  # deviations from its class beyond which a pixel does not count
RIDGE = 1e-2  # of the least squares: few pixels give a small field
POWERS = [(a, b) for a in range(3) for b in range(3 - a)]  # of x and y
ODD = np.array([a % 2 for a, _ in POWERS])
KNOWN = 0.05  # strength of the fields that are multiplied in
STRONGEST = 0.2  # anything above is anatomy: sagittal slices, a tumour

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class _Slice:
    """Log intensity (n,) inside the head, and its place: powers of x and y (n, 6)."""

    volume: int
    where: NDArray[np.bool_]
    level: FloatArray
    places: FloatArray


def estimate_field(images: FloatArray, masks: NDArray[np.bool_], volumes: NDArray[np.int64]) -> float | None:
    """`--lf_bias`: the standard deviation of the log receive field; None if no head is large enough to measure it.

    Args: images: (N, H, W) in [0, 1]; masks: (N, H, W); volumes: (N,) number of each slice's volume.
    """
    slices = _prepared(images, masks, volumes)
    if not slices:
        return None
    empty, keys = torch.zeros(len(slices), 1, SIDE, SIDE), torch.arange(len(slices))
    known = torch.log(receive_field(empty, KNOWN, keys, "known field"))[:, 0].numpy()
    plain = _odd_part([s.level for s in slices], slices)
    more = [
        _odd_part([s.level + sign * field[s.where] for s, field in zip(slices, known, strict=True)], slices)
        for sign in (1, -1)  # their mean does not depend on how the known field lies to the slice's own
    ]
    gain = (sum(more) / 2 - plain) / KNOWN**2
    return STRONGEST if gain <= 0 else float(min(np.sqrt(plain / gain), STRONGEST))


def _prepared(images: FloatArray, masks: NDArray[np.bool_], volumes: NDArray[np.int64]) -> list[_Slice]:
    light, head = _small(images * masks), _small(masks)
    areas = (head > 0.9).sum((1, 2))
    slices = []
    for i in np.flatnonzero(areas > LARGE * areas.max()):
        where = ndimage.binary_erosion(head[i] > 0.95, iterations=RIM)
        if where.sum() < FEWEST_PIXELS:
            continue
        inside = where.astype(np.float32)
        smooth = ndimage.gaussian_filter(light[i] * inside, SMOOTHING)
        weight = ndimage.gaussian_filter(inside, SMOOTHING)
        level = np.log(np.maximum(smooth[where] / weight[where], DARK))
        slices.append(_Slice(int(volumes[i]), where, level, _places(where)))
    return slices


def _small(images: NDArray) -> FloatArray:
    x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))[:, None]
    return F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)[:, 0].numpy()


def _places(where: NDArray[np.bool_]) -> FloatArray:
    """Powers of x, from the head's midline, and of y, in half sides of the grid."""
    y, x = np.nonzero(where)
    x, y = (x - (x.min() + x.max()) / 2) / (SIDE / 2), (y - y.mean()) / (SIDE / 2)
    return np.stack([x**a * y**b for a, b in POWERS], 1)


def _odd_part(levels: Sequence[FloatArray], slices: Sequence[_Slice]) -> float:
    """Mean square of the fields' odd part, as the mean over volumes."""
    squares = []
    for volume in sorted({s.volume for s in slices}):
        of_volume = [i for i, s in enumerate(slices) if s.volume == volume]
        places = [slices[i].places for i in of_volume]
        fields = _fields([levels[i] for i in of_volume], places)
        odd = [(where * ODD) @ field for where, field in zip(places, fields, strict=True)]
        squares.append(np.square(np.concatenate(odd)).mean())
    return float(np.mean(squares))


def _fields(levels: list[FloatArray], places: list[FloatArray]) -> list[FloatArray]:
    """Coefficients (6,) of each slice's field, in one volume."""
    together = np.concatenate(levels)
    bright = together[together >= np.quantile(together, DIM)]
    centres = np.quantile(bright, (np.arange(CLASSES) + 0.5) / CLASSES)
    fields: list[FloatArray] = [np.zeros(len(POWERS)) for _ in levels]
    for _ in range(ROUNDS):
        corrected = [level - where @ field for level, where, field in zip(levels, places, fields, strict=True)]
        together = np.concatenate(corrected)
        for _ in range(MOVES):
            nearest = _nearest(together, centres)
            members = [together[nearest == k] for k in range(CLASSES)]
            centres = np.array([np.median(m) if len(m) else c for m, c in zip(members, centres, strict=True)])
        spread = MAD_TO_SIGMA * np.median(np.abs(together - centres[nearest]))
        fields = [
            _fitted(level, centres[_nearest(flat, centres)], flat, where, OUTLIER * spread)
            for level, flat, where in zip(levels, corrected, places, strict=True)
        ]
    return fields


def _nearest(levels: FloatArray, centres: FloatArray) -> NDArray[np.intp]:
    return np.abs(levels[:, None] - centres).argmin(1)


def _fitted(level: FloatArray, of_class: FloatArray, flat: FloatArray, where: FloatArray, most: float) -> FloatArray:
    """Least squares of the deviations from the classes' levels; pixels farther than `most` from theirs do not count."""
    weighted = where * (np.abs(flat - of_class) <= most)[:, None]
    return np.asarray(
        np.linalg.solve(weighted.T @ where + RIDGE * np.eye(len(POWERS)), weighted.T @ (level - of_class))
    )
