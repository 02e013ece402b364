"""Whether a volume looks like a scan of a head: masks and label maps are refused, doubtful heads are told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.geometry import spacing_mm
from preprocessing.grid import cut_share, place_grid
from preprocessing.layout import Layout
from preprocessing.slicing import Head
from util.errors import UserError

MOST_LABELS = 16  # whole numbers in a volume; scans have hundreds
MOST_CLASSES = 256  # of larger label maps, which are only told
SAMPLE = 50_000  # voxels of the first look
SAME_NEIGHBOURS = 0.8  # share of equal neighbours in a label map; noise keeps it far lower in scans of few grey values
PLANES = 8  # on either side of the middle, in which neighbours are compared
SMALL, LARGE = 0.02, 0.95  # of the volume: heads outside this range are doubtful
CUT = 0.002  # share of a head outside the grid that is told
AIR_TO_HEAD = 0.5  # air as bright as this fraction of the head is doubtful


def refuse_masks(volume: NDArray[np.float32], source: str) -> None:
    """Raise UserError naming `source` if the volume is a binary mask or a label map of few classes."""
    values = _few_values(volume, MOST_LABELS)
    if values is None or (len(values) > 2 and (values % 1).any()):
        return
    shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
    kind = "a mask" if len(values) <= 2 else "a label map"
    raise UserError(f"{source}: holds only {len(values)} values ({shown}), so it is {kind}, need a scan")


def doubts_of(volume: NDArray[np.float32], head: Head, layout: Layout, affine: NDArray[np.float64]) -> list[str]:
    """What is doubtful about a volume (X, Y, Z) and its head: sentences without the file's name."""
    found = []
    values = _few_values(volume, MOST_CLASSES)
    if values is not None and not (values % 1).any() and _equal_neighbours(volume) > SAME_NEIGHBOURS:
        found.append(f"holds only {len(values)} whole numbers in large areas, is it a label map and no scan?")
    share = float(head.mask.mean())
    if not SMALL <= share <= LARGE:
        found.append(
            f"its head mask covers {100 * share:.2g} % of the volume, need air around the head; look at the mask slices"
        )
    elif said := _bright_air(_sample(volume), _sample(head.mask)):
        found.append(said)
    entry = place_grid(layout.grid, head.mask, layout.slice_axis, spacing_mm(affine))
    if (cut := cut_share(entry, head.mask, layout.slice_axis)) > CUT:
        found.append(
            f"{100 * cut:.2g} % of its head lie outside the field of view of {layout.grid.fov_mm:g} mm, need a larger "
            f"one"
        )
    return found


def _bright_air(values: NDArray[np.float32], inside: NDArray[np.bool_]) -> str:
    """A sentence if what lies outside the head is not clearly darker than the head."""
    if inside.all() or not inside.any():
        return ""
    lowest = float(values.min())
    air, tissue = float(np.median(values[~inside])), float(np.median(values[inside]))
    if air - lowest <= AIR_TO_HEAD * (tissue - lowest):
        return ""
    return (
        f"no dark air found: the median outside the head mask is {air:.4g}, inside it {tissue:.4g}, the lowest value "
        f"{lowest:.4g}; look at the mask slices"
    )


def _sample(volume: NDArray) -> NDArray:
    """At least `SAMPLE` voxels in equal steps along the axes (X, Y, Z), all of a small volume; not a copy."""
    step = max(1, int((volume.size / SAMPLE) ** (1 / 3)))
    return volume[::step, ::step, ::step]


def _few_values(volume: NDArray[np.float32], most: int) -> NDArray[np.float32] | None:
    """All values of a volume, sorted, if they are at most `most`; else None, which a few voxels tell of a scan."""
    values = np.unique(_sample(volume))
    for plane in volume:
        if len(values) > most:
            return None
        values = np.union1d(values, plane)
    return values if len(values) <= most else None


def _equal_neighbours(volume: NDArray[np.float32]) -> float:
    """Share of voxels above the lowest value that equal their neighbour along the first or the second axis."""
    middle = volume.shape[2] // 2
    volume = volume[:, :, max(0, middle - PLANES) : middle + PLANES]
    one, other = volume[:-1, :-1], (volume[1:, :-1], volume[:-1, 1:])
    inside = one > volume.min()
    return max(float((one[inside] == shifted[inside]).mean()) for shifted in other) if inside.any() else 0.0
