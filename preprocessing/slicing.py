"""Write a volume as slice files, mask files and a manifest entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.folder.manifest import GridEntry, SliceEntry, VolumeEntry
from data.folder.masks import head_mask_volume
from data.folder.slices import clean_subject, slice_name, to_image, write_image, write_mask, write_pixels
from preprocessing.choices import DEFAULT_PERCENTILES
from preprocessing.geometry import SourceGeometry, spacing_mm
from preprocessing.grid import Grid, mask_to_grid, own_grid, place_grid, to_grid
from preprocessing.layout import Layout
from util.errors import UserError

MIN_FOREGROUND = 0.02  # a slice is kept if its mask has at least this fraction of the largest mask's pixels
MIN_PIXELS = 16  # and at least this number of pixels
SLAB = 16  # slices that are copied to contiguous memory at once


def kept_slices(mask: NDArray[np.bool_], slice_axis: int) -> list[int]:
    """Indices of the slices of a head mask (X, Y, Z) with enough foreground, see `MIN_FOREGROUND`."""
    area = mask.sum(axis=tuple(axis for axis in range(3) if axis != slice_axis))
    return np.flatnonzero(area >= max(MIN_PIXELS, MIN_FOREGROUND * area.max())).tolist()


def relative_levels(kept: list[int]) -> list[float]:
    """p of each kept slice: its centre relative to the outer faces of the first and last (docs/method.md, notation).

    Slices of a volume are equally thick, so indices replace mm: n consecutive slices have p = 1/2n, 3/2n, ...
    """
    extent = kept[-1] - kept[0] + 1
    return [(index - kept[0] + 0.5) / extent for index in kept]


def window_of(
    volume: NDArray[np.float32], mask: NDArray[np.bool_], percentiles: tuple[float, float], source: str
) -> tuple[float, float]:
    """The intensities mapped to 0 and 1: percentiles inside the mask. Raises UserError if they are equal."""
    low, high = np.percentile(volume[mask], percentiles) if mask.any() else (0.0, 0.0)
    if not low < high:
        raise UserError(f"{source}: constant intensity {low:g} inside the head, need a volume with contrast")
    return float(low), float(high)


@dataclass(frozen=True)
class SlicingSettings:
    """Bits per pixel, slice axis and grid, and the percentiles mapped to 0 and 1."""

    bits: int
    layout: Layout
    percentiles: tuple[float, float]


@dataclass(frozen=True)
class Head:
    """The head of a volume: mask (X, Y, Z), indices of the kept slices, and intensities mapped to 0 and 1."""

    mask: NDArray[np.bool_]
    kept: list[int]
    window: tuple[float, float]


def find_head(
    volume: NDArray[np.float32], slice_axis: int, source: str, percentiles: tuple[float, float] = DEFAULT_PERCENTILES
) -> Head:
    """The head in a volume (X, Y, Z). Raises UserError naming `source` if there is none or it is constant."""
    mask = head_mask_volume(volume)
    kept = kept_slices(mask, slice_axis)
    if not kept:
        raise UserError(f"{source}: no foreground found, need a volume of a head")
    return Head(mask, kept, window_of(volume, mask, percentiles, source))


@dataclass(frozen=True)
class Companions:
    """What is known of a volume besides its image, each (X, Y, Z) on the same grid; None: not known.

    truth: the high-field volume, any finite intensity scale; truth_mask: its head, computed if None.
    labels: class numbers, uint8; lesions: lesion mask.
    """

    truth: NDArray[np.float32] | None = None
    truth_mask: NDArray[np.bool_] | None = None
    labels: NDArray[np.uint8] | None = None
    lesions: NDArray[np.bool_] | None = None


ALONE = Companions()


def write_volume(
    dataroot: Path,
    *,
    split: str,
    domain: str,
    subject: str,
    person: str | None = None,
    source: str,
    volume: NDArray[np.float32],
    affine_ras: NDArray[np.float64],
    geometry: SourceGeometry,
    slice_axis: int,
    grid: Grid | None = None,
    thickness_mm: float | None = None,
    bits: int,
    percentiles: tuple[float, float] = DEFAULT_PERCENTILES,
    level_mm: NDArray[np.floating] | None = None,
    companions: Companions = ALONE,
    head: Head | None = None,
) -> VolumeEntry:
    """Write the slices of one volume under `dataroot` and return its manifest entry.

    Args:
        split, domain: `train`, `val` or `test`; `A` or `B`. Slices go to the folder `{split}{domain}`.
        subject, source: subject name (cleaned for file names) and base name of the source file.
        person: whom the volume shows, equal for all volumes of one person; None: told by the subject's name.
        volume: (X, Y, Z) float32 in RAS order, any finite intensity scale; affine_ras: its (4, 4) affine in mm.
        geometry: that of the source file, for reassembly.
        slice_axis: slice axis of `volume`; bits: 8 or 16 per pixel.
        grid: the grid that slices are resampled to; None: they keep the volume's pixels.
        thickness_mm: over what the slices of `volume` were averaged, to be recorded.
        percentiles: of the intensities inside the head, mapped to 0 and 1.
        level_mm: (number of slices,) template level in mm of simulated volumes.
        companions: what else is known of the volume.
        head: what `find_head` returns for the volume, found if None.
    Raises: UserError naming `source` if no head is found, the head is constant, or the truth's shape differs.
    """
    head = find_head(volume, slice_axis, source, percentiles) if head is None else head
    spacing = spacing_mm(affine_ras)
    entry = _grid_entry(volume, head, slice_axis, spacing, grid)
    folder, subject = f"{split}{domain}", clean_subject(subject)
    writer = _SliceWriter(dataroot, folder, subject, slice_axis, tuple(head.kept), bits, entry)
    truth_window = writer.companions(companions, volume.shape, percentiles, source)  # first: a truth may be refused
    writer.images(volume, head.window, "")
    writer.masks(head.mask, "_mask")
    levels = [None] * volume.shape[slice_axis] if level_mm is None else [float(level) for level in level_mm]
    positions = zip(head.kept, relative_levels(head.kept), strict=True)
    return VolumeEntry(
        subject=subject,
        split=split,
        domain=domain,
        source=source,
        shape=list(geometry.shape),
        affine=geometry.affine.tolist(),
        spacing_mm=list(spacing),
        slice_axis=slice_axis,
        window=list(head.window),
        slices=[SliceEntry(index, slice_name(subject, index), p, levels[index]) for index, p in positions],
        sform=None if geometry.sform is None else geometry.sform.tolist(),
        qform=None if geometry.qform is None else geometry.qform.tolist(),
        sform_code=geometry.sform_code,
        qform_code=geometry.qform_code,
        truth_window=None if truth_window is None else list(truth_window),
        person=person,
        grid=entry,
        thickness_mm=thickness_mm,
    )


def _grid_entry(
    volume: NDArray[np.float32], head: Head, slice_axis: int, spacing: tuple[float, float, float], grid: Grid | None
) -> GridEntry | None:
    """The grid of a volume's slices; None if they keep pixels of the source that are not square."""
    if grid is not None:
        return place_grid(grid, head.mask, slice_axis, spacing)
    across, up = (axis for axis in range(3) if axis != slice_axis)
    return own_grid((volume.shape[up], volume.shape[across]), (spacing[across], spacing[up]))


@dataclass(frozen=True)
class _SliceWriter:
    """Writes the kept slices of RAS volumes (X, Y, Z) into sibling folders with the same file names."""

    dataroot: Path
    folder: str
    subject: str
    slice_axis: int
    kept: tuple[int, ...]
    bits: int
    grid: GridEntry | None

    def companions(
        self, known: Companions, shape: tuple[int, ...], percentiles: tuple[float, float], source: str
    ) -> tuple[float, float] | None:
        """Write what else is known of a volume of `shape`. Returns the truth's window, if there is a truth."""
        window = None
        if known.truth is not None:
            if known.truth.shape != shape:
                raise UserError(f"{source}: RAS shape {shape}, its truth has {known.truth.shape}; they must be equal")
            mask = head_mask_volume(known.truth) if known.truth_mask is None else known.truth_mask
            window = window_of(known.truth, mask, percentiles, f"{source} (truth)")
            self.images(known.truth, window, "_truth")
            self.masks(mask, "_truth_mask")
        if known.labels is not None:
            self.labels(known.labels, "_labels")
        if known.lesions is not None:
            self.masks(known.lesions, "_lesions")
        return window

    def _path(self, suffix: str, index: int) -> Path:
        return self.dataroot / f"{self.folder}{suffix}" / slice_name(self.subject, index)

    def _planes(self, volume: NDArray) -> Iterator[tuple[int, NDArray]]:
        """Index and image of each kept slice. Slices are copied in slabs: one by one takes twice as long."""
        planes = np.moveaxis(volume, self.slice_axis, 0)
        for start in range(0, len(self.kept), SLAB):
            indices = self.kept[start : start + SLAB]
            first, last = indices[0], indices[-1] + 1
            slab = np.ascontiguousarray(planes[first:last])  # take() would copy the whole volume
            for index in indices:
                yield index, to_image(slab[index - first])

    def _make_folder(self, suffix: str) -> None:
        (self.dataroot / f"{self.folder}{suffix}").mkdir(parents=True, exist_ok=True)

    def images(self, volume: NDArray[np.float32], window: tuple[float, float], suffix: str) -> None:
        self._make_folder(suffix)
        low, high = window
        for index, plane in self._planes(volume):
            image = np.clip((plane - np.float32(low)) / np.float32(high - low), 0, 1)
            if self.grid is not None:
                image = np.clip(to_grid(image, self.grid), 0, 1)  # cubic interpolation overshoots at edges
            write_image(self._path(suffix, index), image, self.bits)

    def masks(self, mask: NDArray[np.bool_], suffix: str) -> None:
        self._make_folder(suffix)
        for index, plane in self._planes(mask):
            write_mask(self._path(suffix, index), plane if self.grid is None else mask_to_grid(plane, self.grid))

    def labels(self, labels: NDArray[np.uint8], suffix: str) -> None:
        self._make_folder(suffix)
        for index, plane in self._planes(labels):
            numbers = plane.astype(np.uint8)
            numbers = numbers if self.grid is None else to_grid(numbers, self.grid, nearest=True)
            write_pixels(self._path(suffix, index), np.ascontiguousarray(numbers))
