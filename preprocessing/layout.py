"""One slice axis and one grid in millimetres for all volumes of a data folder, chosen from their headers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from data.folder.manifest import DOMAINS, MANIFEST_NAME, MAX_SIDE, read_manifest
from preprocessing.geometry import ras_geometry, spacing_mm
from preprocessing.grid import Grid
from preprocessing.inputs import Inputs, Source
from preprocessing.nifti import FEW_SLICES, SLICE_AXES, choose_slice_axis
from util.errors import UserError
from util.problems import Problem

AXIS_NAMES = {0: "sagittal, along R", 1: "coronal, along A", 2: "axial, along S"}
NEAR_CUBIC = 1.5  # voxels whose sides differ by less than this factor can be sliced along any axis
WIDEST_MM = 256.0  # of a field of view that is chosen: no head is wider, and a scan's may be mostly air
MOST_PIXELS = 512  # a side, of a grid that is chosen
LEAST_PIXELS = 16  # a side, of any grid
THICKER = 1.2  # slices of A and B whose distances differ by more than this factor are told


@dataclass(frozen=True)
class Layout:
    """The slice axis in RAS, the grid of all slices, and the thickness over which thinner slices are averaged."""

    slice_axis: int
    grid: Grid
    thickness_mm: float | None = None

    def averaged_over(self, apart_mm: float) -> float | None:
        """The thickness over which slices `apart_mm` apart are averaged; None if they are as thick already."""
        thickness = self.thickness_mm
        return thickness if thickness is not None and apart_mm < thickness * (1 - 1e-3) else None


@dataclass(frozen=True)
class LayoutChoice:
    """What the user asks for: `auto`, R, A or S; mm, or None to choose from the headers; another data folder.

    known: a layout that is taken as it is, of what `like` then names.
    """

    slice_axis: str = "auto"
    pixel_mm: float | None = None
    fov_mm: float | None = None
    thickness_mm: float | None = None
    like: Path | None = None
    known: Layout | None = None


def choose_layout(found: Inputs, choice: LayoutChoice) -> Layout:
    """The layout for the volumes of `found`, which gets notes of what was chosen and what may surprise.

    Volumes whose thick slices run along another axis are moved from its sources to its problems.

    Raises: UserError: a grid with too few or too many pixels; no manifest to copy from.
    """
    known = choice.known or (None if choice.like is None else _layout_like(choice.like))
    axis = SLICE_AXES[choice.slice_axis] if choice.slice_axis != "auto" else None
    if known is not None:
        axis = known.slice_axis
    if axis is None:
        axis = _common_axis(found.sources)
        found.problems += _of_other_planes(found, axis)
    else:
        found.notes += _across_thick_slices(found.sources, axis)
    if known is not None:
        layout = known
    else:
        layout = Layout(axis, _common_grid(found.sources, axis, choice), choice.thickness_mm)
    found.notes += [_summary(layout, choice), *_thickness_notes(found.sources, layout)]
    return layout


def _sides(source: Source) -> tuple[tuple[int, ...], tuple[float, float, float]]:
    """Voxels and mm along the RAS axes."""
    shape, affine = ras_geometry(source.geometry)
    return shape, spacing_mm(affine)


def _own_axis(source: Source) -> tuple[int, bool]:
    """A volume's own slice axis, and whether it can be sliced along no other: thick or few slices."""
    shape, sides = _sides(source)
    axis = choose_slice_axis(shape, sides)
    few = shape[axis] * FEW_SLICES <= min(n for other, n in enumerate(shape) if other != axis)
    return axis, few or max(sides) >= NEAR_CUBIC * min(sides)


def _common_axis(sources: Sequence[Source]) -> int:
    """The axis of most of A's volumes that can be sliced along no other, else of B's; else that of most of A's."""
    own = [(source.domain, *_own_axis(source)) for source in sources]
    for fixed in (True, False):
        for domain in DOMAINS:
            axes = Counter(axis for where, axis, only in own if where == domain and (only or not fixed))
            if axes:
                return max(axes, key=lambda axis: (axes[axis], axis))
    return SLICE_AXES["S"]


def _of_other_planes(found: Inputs, axis: int) -> list[Problem]:
    """Take the volumes out of `found` whose thick or few slices run along another axis than `axis`."""
    problems, kept = [], []
    for source in found.sources:
        own, only = _own_axis(source)
        if only and own != axis:
            problems.append(
                source.problem(
                    f"its slices are {AXIS_NAMES[own]}, those of the others {AXIS_NAMES[axis]}; a data folder has one "
                    f"slice axis, so give these volumes an --out of their own, or --slice_axis",
                )
            )
        else:
            kept.append(source)
    found.sources[:] = kept
    return problems


def _across_thick_slices(sources: Sequence[Source], axis: int) -> list[str]:
    """A sentence on volumes whose thick or few slices lie across the axis that was asked for."""
    own = [(source.path.name, *_own_axis(source)) for source in sources]
    across = [name for name, other, only in own if only and other != axis]
    if not across:
        return []
    names = ", ".join(across[:3]) + (" ..." if len(across) > 3 else "")
    return [
        f"{len(across)} volumes of thick or few slices are cut across these, {AXIS_NAMES[axis]}, as asked for: {names}"
    ]


def _common_grid(sources: Sequence[Source], axis: int, choice: LayoutChoice) -> Grid:
    """The finer domain's pixel and the wider domain's field of view, by the medians of their volumes.

    Without any volume, which is refused elsewhere, it is any grid.
    """
    pixels, fields = [], []
    for domain in DOMAINS:
        planes = [_plane(source, axis) for source in sources if source.domain == domain]
        if planes:
            pixels.append(median(pixel for pixel, _ in planes))
            fields.append(median(field for _, field in planes))
    fov = choice.fov_mm or min(max(fields, default=WIDEST_MM), WIDEST_MM)
    pixel = choice.pixel_mm or _rounded(max(min(pixels, default=1.0), fov / MOST_PIXELS))
    side = math.ceil(fov / pixel - 1e-3)
    side += side % 2  # an even number has its centre between pixels, as scanners have it
    if not LEAST_PIXELS <= side <= MAX_SIDE:
        raise UserError(
            f"--pixel_mm {pixel:g} and --fov_mm {fov:g} make slices of {side} pixels a side, need {LEAST_PIXELS} to "
            f"{MAX_SIDE}"
        )
    return Grid(pixel, side)


def _plane(source: Source, axis: int) -> tuple[float, float]:
    """A volume's pixel side in mm (the geometric mean of both) and the longer side of its field of view."""
    shape, sides = _sides(source)
    across, up = (other for other in range(3) if other != axis)
    return math.sqrt(sides[across] * sides[up]), max(shape[across] * sides[across], shape[up] * sides[up])


def _rounded(value: float) -> float:
    """`value` with four significant digits: headers hold 0.46875 as well as 0.4687."""
    return float(f"{value:.4g}")


def _layout_like(dataroot: Path) -> Layout:
    """The layout of the volumes in another data folder."""
    manifest = read_manifest(dataroot)
    if manifest is None or not manifest.volumes:
        raise UserError(f"--like {dataroot}: no {MANIFEST_NAME} with volumes in it, need a folder of this program")
    grids = {
        (v.slice_axis, None if v.grid is None else Grid(v.grid.pixel_mm, max(v.grid.size))) for v in manifest.volumes
    }
    axis, grid = next(iter(grids))
    if len(grids) != 1 or grid is None:
        raise UserError(
            f"--like {dataroot}: its volumes have no common grid in mm, as those of earlier versions; make it again, "
            f"or give --slice_axis, --pixel_mm and --fov_mm"
        )
    thickness = manifest.settings.get("thickness_mm")
    return Layout(axis, grid, thickness if isinstance(thickness, int | float) else None)


def _summary(layout: Layout, choice: LayoutChoice) -> str:
    grid = layout.grid
    chosen = f"as in {choice.like}" if choice.like else "--slice_axis, --fov_mm and --pixel_mm choose others"
    return (
        f"slices are {AXIS_NAMES[layout.slice_axis]}, {grid.fov_mm:.4g} x {grid.fov_mm:.4g} mm in {grid.side} x "
        f"{grid.side} pixels of {grid.pixel_mm:g} mm, with the head in the centre ({chosen})"
    )


def _thickness_notes(sources: Sequence[Source], layout: Layout) -> list[str]:
    """A sentence if the slices of A and B are not equally far apart, and what became of that."""
    apart = {}
    for domain in DOMAINS:
        distances = [_sides(source)[1][layout.slice_axis] for source in sources if source.domain == domain]
        if distances:
            apart[domain] = median(distances)
    averaged = [domain for domain, mm in apart.items() if layout.averaged_over(mm)]
    if averaged:
        of = " and ".join(f"{domain} ({apart[domain]:g} mm apart)" for domain in averaged)
        return [f"slices of {of} are averaged over {layout.thickness_mm:g} mm"]
    if len(apart) < 2 or max(apart.values()) < THICKER * min(apart.values()):
        return []
    thin, thick = sorted(apart, key=lambda domain: apart[domain])
    return [
        f"slices are {apart['A']:.3g} mm apart in A and {apart['B']:.3g} mm in B, so {thin}'s may be thinner and show "
        f"more detail; --thickness_mm {apart[thick]:.3g} averages {thin}'s over that many mm"
    ]
