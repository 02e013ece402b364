"""Registration of high-field slices to low-field slices of the same head in their plane, for `register_pairs.py`.

The two scanners differ in pixel size and field of view, the patient lies otherwise, and a low-field scanner distorts:
so a shift, a turn, a scale along each axis and a shear are found, first the same for all slices of a volume, then a
small change for each slice. Contrasts differ too, so normalised mutual information is maximised (Studholme et al.,
Pattern Recognition 1999), coarse to fine. It starts from the two heads' masks: equal centres and extents, and several
turns and scales around these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from data.folder.masks import head_mask_volume
from util.errors import UserError

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

BINS = 32  # of the joint histogram, a side
BIN_SIGMA = 1.0  # by which it is smoothed: without it the measure jumps from pixel to pixel
PERCENTILES = (1.0, 99.0)  # of the head, mapped to the first and last bin
RIM = 0.04  # of the head's extent around its mask, in which the outline of the head takes part in the measure
STAGES = (0.02, 0.01, 0.005)  # smoothing (std), as part of the head's extent; points are as far apart
SLICE_STAGES = STAGES[1:]  # of the change of each slice
UNITS = np.array([0.03, 0.03, 0.05, 0.04, 0.04, 0.02])  # typical changes, see `Placing.changed`
SLICE_UNITS = UNITS / 3
TURNS_DEG = (-12.0, -6.0, 0.0, 6.0, 12.0)  # of the starts, the best one for each growth
GROWTHS = (0.86, 0.93, 1.0, 1.07, 1.14)  # scales of the starts: one contrast's mask has the scalp, another's has not
EVALUATIONS = 600  # of a stage, at most
MOST_UNLIKE = 3.0  # factor between the scales of the two axes: headers may hide pixels that are not square
DETAILS = 0.5  # smoothing of the high field before it is sampled, in low-field pixels: nothing aliases
MIN_AREA = 100  # pixels of a head in a slice


@dataclass(frozen=True)
class Placing:
    """Where pixels of a low-field slice lie in the high-field slice: x -> matrix @ (x - centre) + place.

    matrix: (2, 2), high-field pixels in a low-field pixel. centre: in low-field pixels. place: in high-field pixels.
    """

    matrix: Floats
    centre: Floats
    place: Floats

    def of(self, points: Floats) -> Floats:
        """The places (2, N) in the high-field slice of points (2, N) of the low-field slice."""
        return np.asarray(self.matrix @ (points - self.centre[:, None]) + self.place[:, None])

    def changed(self, change: Floats, extent: float) -> Placing:
        """Shifted by `change[:2]` extents, turned by `change[2]` rad, scaled by exp(`change[3:5]`) along the axes, and
        sheared by `change[5]` rows a column.
        """
        cos, sin = np.cos(change[2]), np.sin(change[2])
        turn = np.array([[cos, -sin], [sin, cos]])
        return Placing(
            self.matrix @ turn @ np.array([[1.0, change[5]], [0.0, 1.0]]) @ np.diag(np.exp(change[3:5])),
            self.centre,
            self.place + self.matrix @ (np.asarray(change[:2]) * extent),
        )

    @property
    def turn_deg(self) -> float:
        """The turn in degrees, without scales and shear."""
        left, _, right = np.linalg.svd(self.matrix)
        rotation = left @ right
        return float(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0])))

    @property
    def scales(self) -> tuple[float, float]:
        """High-field pixels in a low-field pixel along the two axes of the low-field slice."""
        first, second = np.linalg.norm(self.matrix, axis=0)
        return float(first), float(second)


@dataclass(frozen=True)
class Registered:
    """The placing of each slice, the high-field slices on the low-field grid, and the two heads there, (S, H, W)."""

    placings: list[Placing]
    high: Floats
    low_mask: Mask
    high_mask: Mask


def register(low: Floats, high: Floats, source: str) -> Registered:
    """Register slices (S, h, w) of high field to slices (S, H, W) of low field, the first to the first and so on.

    Raises: UserError naming `source`: a head is missing in a slice, or the two heads' sizes make no sense.
    """
    masks = heads(low, f"{source}, low field"), heads(high, f"{source}, high field")
    extent = extent_of(masks[0])
    bins = _binned(low, masks[0]), _binned(high, masks[1])
    whole, every = range(len(low)), [_start(*masks, source)] * len(low)
    costs = [_Cost(bins, masks[0], every, whole, extent, stage) for stage in STAGES]
    changes = _starts(costs[0])
    for cost in costs[:-1]:
        changes = [_minimum(cost, change, UNITS) for change in changes]
    change = _minimum(costs[-1], min(changes, key=costs[-2]), UNITS)
    every = [placing.changed(change, extent) for placing in every]
    for number in whole:
        for stage in SLICE_STAGES:
            cost = _Cost(bins, masks[0], every, [number], extent, stage)
            change = _minimum(cost, np.zeros(len(UNITS)), SLICE_UNITS)
            every[number] = every[number].changed(change, extent)
    warped = np.stack([warp(image, placing, low.shape[1:]) for image, placing in zip(high, every, strict=True)])
    inside = [
        warp(mask.astype(np.float32), placing, low.shape[1:], smooth=False) >= 0.5
        for mask, placing in zip(masks[1], every, strict=True)
    ]
    return Registered(every, warped, masks[0], np.stack(inside))


def heads(slices: Floats, source: str) -> Mask:
    """The head in each of the slices (S, H, W). Raises UserError naming `source` and a slice without one."""
    mask = np.moveaxis(head_mask_volume(np.moveaxis(slices, 0, -1).astype(np.float32)), -1, 0)
    for number, inside in enumerate(mask):
        if inside.sum() < MIN_AREA:
            raise UserError(f"{source}: no head found in slice {number + 1} of {len(mask)}, need a head in every slice")
    return mask


def extent_of(masks: Mask) -> float:
    """The size of a head in pixels: the mean of its height and width over slices (S, H, W)."""
    return float(np.mean([_extents(mask) for mask in masks]))


def warp(image: Floats, placing: Placing, shape: Sequence[int], *, smooth: bool = True) -> Floats:
    """A high-field slice (h, w) on the grid (H, W) of the low-field slice; 0 where it shows nothing."""
    if smooth:
        sigma = [DETAILS * np.sqrt(max(scale**2 - 1, 0.0)) for scale in np.linalg.norm(placing.matrix, axis=1)]
        image = ndimage.gaussian_filter(image, sigma)
    points = placing.of(np.indices(shape).reshape(2, -1).astype(np.float64))
    return np.asarray(ndimage.map_coordinates(image, points, order=1).reshape(shape), np.float32)


def _extents(mask: Mask) -> Floats:
    """Height and width of a mask (H, W) in pixels, from its second moments: four deviations, an ellipse's diameter."""
    return np.asarray(4 * np.argwhere(mask).std(0))


def _start(low: Mask, high: Mask, source: str) -> Placing:
    """Equal centres and extents of the heads, by the medians over the slices."""
    scales = np.median([_extents(b) / _extents(a) for a, b in zip(low, high, strict=True)], axis=0)
    if max(scales) / min(scales) > MOST_UNLIKE:
        raise UserError(
            f"{source}: the heads' shapes differ by a factor of {max(scales) / min(scales):.1f}, need slices of the "
            f"same plane"
        )
    low_centre, high_centre = (
        np.median([np.argwhere(mask).mean(0) for mask in masks], axis=0) for masks in (low, high)
    )
    return Placing(np.diag(scales), low_centre, high_centre)


def _binned(slices: Floats, masks: Mask) -> Floats:
    """Intensities as places between the first and the last bin, by percentiles inside the heads of all slices."""
    first, last = np.percentile(slices[masks], PERCENTILES)
    return np.asarray(np.clip((slices - first) / max(last - first, 1e-12), 0, 1) * (BINS - 1))


class _Cost:
    """Less information is a higher cost: of a change (6,) common to the slices `numbers` of placings, at one stage."""

    def __init__(
        self,
        bins: tuple[Floats, Floats],
        masks: Mask,
        placings: Sequence[Placing],
        numbers: Sequence[int],
        extent: float,
        stage: float,
    ) -> None:
        sigma = stage * extent
        step = max(1, round(sigma))
        fixed: list[Floats] = []
        self.extent, self.slices = extent, list[tuple[Placing, Floats, Floats]]()
        for number in numbers:
            near = ndimage.distance_transform_edt(~masks[number]) <= RIM * extent
            place = np.argwhere(near[::step, ::step]).T * step
            fixed.append(ndimage.gaussian_filter(bins[0][number], sigma)[tuple(place)])
            spread = sigma * np.linalg.norm(placings[number].matrix, axis=1)
            moving = ndimage.gaussian_filter(bins[1][number], spread)
            self.slices.append((placings[number], moving, place.astype(np.float64)))
        self.fixed = np.concatenate(fixed)

    def __call__(self, change: Floats) -> float:
        found = [
            ndimage.map_coordinates(image, placing.changed(change, self.extent).of(points), order=1)
            for placing, image, points in self.slices
        ]
        return -normalised_information(self.fixed, np.concatenate(found))


def _starts(cost: _Cost) -> list[Floats]:
    """Where to start from: outlines of other contrasts may fit best at a wrong scale, and a wrong maximum is near."""
    starts = []
    for growth in np.log(GROWTHS):
        turned = [np.array([0, 0, np.radians(turn), growth, growth, 0]) for turn in TURNS_DEG]
        starts.append(min(turned, key=cost))
    return starts


def _minimum(cost: _Cost, start: Floats, units: Floats) -> Floats:
    """The change (6,) of the least cost near `start`, by Powell's method, which needs no derivatives."""
    options = {"maxfev": EVALUATIONS, "xtol": 1e-2, "ftol": 1e-6}
    solution = optimize.minimize(
        lambda x: cost(start + x * units), np.zeros(len(units)), method="Powell", options=options
    )
    return np.asarray(start + solution.x * units)


def normalised_information(one: Floats, other: Floats) -> float:
    """(H(one) + H(other)) / H(both), from 1 to 2, of samples (N,) that are places between 0 and `BINS` - 1."""
    histogram = np.zeros(BINS * BINS)
    (low, low_part), (high, high_part) = _split(one), _split(other)
    for first, share in ((low, 1 - low_part), (low + 1, low_part)):
        for second, part in ((high, 1 - high_part), (high + 1, high_part)):
            histogram += np.bincount(first * BINS + second, share * part, BINS * BINS)
    joint = ndimage.gaussian_filter(histogram.reshape(BINS, BINS), BIN_SIGMA, mode="constant")
    joint /= joint.sum()
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / _entropy(joint)


def _split(values: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The bin below each value, and the share that goes to the next one."""
    below = np.clip(values.astype(np.intp), 0, BINS - 2)
    return below, values - below


def _entropy(shares: Floats) -> float:
    known = shares[shares > 0]
    return float(-(known * np.log(known)).sum())
