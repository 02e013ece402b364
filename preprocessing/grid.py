"""Slices on a grid in millimetres, and back on the pixels of their source.

A and B come from different scanners: their slices differ in pixel size, in shape and in field of view. Stretched to one
size, the same head would differ in size and aspect between the domains, and a discriminator would tell them apart by
that. So preprocessing puts both on one grid of square pixels, with the head in its centre, and keeps where the grid
lies in the source (`GridEntry`).

Resampling is Pillow's: cubic, with its kernel widened where pixels become larger, so that nothing aliases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from data.folder.manifest import GridEntry
from data.folder.slices import to_image

SAME_PIXEL = 1e-3  # pixel sizes this close to each other, relatively, count as equal: slices are moved, not resampled
TAILS = 0.01  # share of a head's pixels that is ignored at each end when its centre is found: ears, nose, specks

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """Square pixels of `pixel_mm` mm; `side` of them in a row and in a column."""

    pixel_mm: float
    side: int

    @property
    def fov_mm(self) -> float:
        """The side of the field of view in mm."""
        return self.pixel_mm * self.side


def place_grid(grid: Grid, mask: NDArray[np.bool_], slice_axis: int, spacing_mm: tuple[float, ...]) -> GridEntry:
    """The grid with the head of a volume in its centre.

    Where the source has the grid's pixel size, the grid's pixels are pixels of the source: nothing is interpolated.

    Args:
        mask: the head (X, Y, Z) in RAS; spacing_mm: the voxel sides of the volume.
    """
    area = to_image(mask.sum(axis=slice_axis))  # how many slices have each pixel
    across, up = (spacing_mm[axis] for axis in range(3) if axis != slice_axis)
    edges = []
    for counts, side_mm in ((area.sum(0), across), (area.sum(1), up)):
        scale = grid.pixel_mm / side_mm
        if abs(scale - 1) < SAME_PIXEL:
            scale = 1.0
        low = _middle(counts) - scale * grid.side / 2
        low = float(round(low)) if scale == 1 else low
        edges.append((low, low + scale * grid.side))
    (left, right), (top, bottom) = edges
    return GridEntry(grid.pixel_mm, [grid.side, grid.side], [left, top, right, bottom])


def _middle(counts: NDArray[np.integer]) -> float:
    """The middle of what is counted along one axis, from the outer edge of the first pixel, without its tails."""
    total = np.cumsum(counts, dtype=np.float64)
    if total[-1] == 0:
        return len(counts) / 2
    low, high = np.interp([TAILS, 1 - TAILS], np.append(0, total / total[-1]), np.arange(len(counts) + 1))
    return float(low + high) / 2


def cut_share(entry: GridEntry, mask: NDArray[np.bool_], slice_axis: int) -> float:
    """The share of a head mask (X, Y, Z) in RAS that lies outside the grid, from 0 to 1."""
    area = to_image(mask.sum(axis=slice_axis, dtype=np.float64))
    left, top, right, bottom = entry.box
    rows, columns = (np.arange(n) + 0.5 for n in area.shape)
    inside = ((rows > top) & (rows < bottom))[:, None] & ((columns > left) & (columns < right))
    return 0.0 if area.sum() == 0 else float(area[~inside].sum() / area.sum())


def own_grid(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> GridEntry | None:
    """The source's own pixels as a grid, for slice images of `shape` (H, W); None if they are not square."""
    across, up = spacing_mm
    height, width = shape
    square = abs(across / up - 1) < SAME_PIXEL
    return GridEntry(across, [height, width], [0.0, 0.0, float(width), float(height)]) if square else None


def to_grid(image: NDArray, entry: GridEntry, *, nearest: bool = False) -> NDArray:
    """A slice image (H, W), float32 or uint8, of the source on the grid; where the grid exceeds the image it is 0.

    Args: nearest: pick the nearest pixel, for images of class numbers.
    """
    left, top, right, bottom = entry.box
    return _resample(image, (left, top, right, bottom), (entry.size[0], entry.size[1]), nearest=nearest)


def mask_to_grid(mask: NDArray[np.bool_], entry: GridEntry) -> NDArray[np.bool_]:
    """A mask (H, W) of the source on the grid: pixels that it covers by half."""
    return to_grid(mask.astype(np.float32), entry) >= 0.5


def from_grid(image: NDArray[np.float32], entry: GridEntry, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The inverse of `to_grid`: a slice on the grid as an image of the source's `shape` (H, W); 0 outside the grid."""
    left, top, right, bottom = entry.box
    x, y = entry.size[1] / (right - left), entry.size[0] / (bottom - top)  # grid pixels in a pixel of the source
    height, width = shape
    return _resample(image, (-left * x, -top * y, (width - left) * x, (height - top) * y), shape)


def _resample(image: NDArray, box: Box, shape: tuple[int, int], *, nearest: bool = False) -> NDArray:
    """The part of an image (H, W) inside `box` (left, top, right, bottom), as `shape` (H, W) pixels.

    Pillow replicates the border of what it is given, so the image is padded with 0 up to the box, and by the reach of
    the kernel.
    """
    left, top, right, bottom = box
    if box == (0, 0, *image.shape[::-1]) and shape == image.shape:
        return image
    pixels = (right - left) / shape[1], (bottom - top) / shape[0]
    reach_x, reach_y = (math.ceil(2 * max(1, pixel)) + 1 for pixel in pixels)
    before = (max(0, math.ceil(reach_y - top)), max(0, math.ceil(reach_x - left)))
    after = (
        max(0, math.ceil(bottom + reach_y - image.shape[0])),
        max(0, math.ceil(right + reach_x - image.shape[1])),
    )
    padded = np.pad(image, tuple(zip(before, after, strict=True)))
    left, top, right, bottom = (left + before[1], top + before[0], right + before[1], bottom + before[0])
    if (bottom - top, right - left) == shape and left % 1 == top % 1 == 0:  # a move by whole pixels
        return padded[int(top) : int(bottom), int(left) : int(right)]
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    source = Image.fromarray(np.ascontiguousarray(padded))
    return np.asarray(source.resize((shape[1], shape[0]), method, box=(left, top, right, bottom)))


def averaged_slices(
    volume: NDArray[np.float32], slice_axis: int, spacing_mm: float, thickness_mm: float
) -> NDArray[np.float32]:
    """The volume with each slice replaced by the mean over `thickness_mm` around it; their number stays.

    So thin slices look like those of a scan with thick ones. At the ends the outermost slice counts repeatedly.
    """
    width = thickness_mm / spacing_mm  # in slices, at least 1; the outermost two count by the part that they fill
    around = max(0, math.ceil((width - 1) / 2))
    weights = np.ones(2 * around + 1)
    weights[[0, -1]] = (width - (2 * around - 1)) / 2 if around else 1.0
    averaged = ndimage.correlate1d(volume, weights / weights.sum(), axis=slice_axis, mode="nearest")
    return np.asarray(averaged, np.float32)
