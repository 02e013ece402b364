"""The slices of one scan, and the tissue fractions averaged over each thick slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from simulation.anatomy import HEAD_CENTRE_MM, Anatomy
from simulation.deformation import HeadShape, rotation, transform
from simulation.extent import CROPPED, FOV_MM, Coverage

FINE_MM = 1.25  # largest in-plane sample spacing before k-space is cut to the matrix
COARSE_MM = 8.0  # grid spacing of the smooth map from scan to template; linear in between
PLANES_PER_SLICE = 4  # sampling intervals over the thickness of a slice,
PLANES_PER_THIN_SLICE = 2  # and of slices about as thin as the embedded map's voxels
THIN_MM = 1.5
SLAB = 4  # slices resampled at once; neighbours share their outermost plane
HEAD_BOX_MM = 130.0
TILT_STD_DEG, SHIFT_STD_MM = 2.5, 2.5

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """Rigid pose of the head in the scanner: head mm = rotation(`angles_deg`) scan mm + `shift_mm`."""

    angles_deg: NDArray[np.float64]
    shift_mm: NDArray[np.float64]

    def to_head(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Head coordinates in mm of scan `points_mm`, both (3, ...)."""
        return transform(rotation(self.angles_deg), self.shift_mm, points_mm)


@dataclass(frozen=True)
class ScanGeometry:
    """Axial slices: `z_mm` (n,) centres in scan space, ascending; a square field of view of `matrix` x `matrix` pixels.

    Slices of `thickness_mm` are separated by gaps of `gap_mm`. `crop`: fractions of the head left out at its lower and
    upper end.
    """

    pose: Pose
    matrix: int
    thickness_mm: float
    z_mm: NDArray[np.float64]
    crop: tuple[float, float]
    gap_mm: float = 0.0

    @property
    def pixel_mm(self) -> float:
        """Pixel side in mm."""
        return FOV_MM / self.matrix

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) RAS affine of the volume (X, Y, Z) in scan mm."""
        affine = np.diag([self.pixel_mm, self.pixel_mm, self.thickness_mm + self.gap_mm, 1.0])
        affine[:3, 3] = (-FOV_MM / 2, -FOV_MM / 2, self.z_mm[0])
        return affine


@dataclass(frozen=True)
class SlicedHead:
    """The head on the grid of a scan, before any signal is computed.

    `fractions` (T, n, Y, X) float32 in [0, 1], averaged over the slice profile on a fine in-plane grid;
    `window` the rows and columns that may contain head; `coarse_template` (3, n, y, x) the anatomy's mm on the coarse
    in-plane grid `coarse_mm`; `level_mm` (n,) mean height of the head in each slice in mm of the template (Colin27 in
    MNI space), the same for all people.
    """

    fractions: Array
    window: tuple[slice, slice]
    coarse_template: NDArray[np.float64]
    coarse_mm: NDArray[np.float64]
    level_mm: NDArray[np.float64]


def draw_pose(rng: np.random.Generator) -> Pose:
    """A random pose, a few degrees and millimetres off."""
    angles = np.clip(rng.normal(0, TILT_STD_DEG, 3), -2 * TILT_STD_DEG, 2 * TILT_STD_DEG)
    shift = np.clip(rng.normal(0, SHIFT_STD_MM, 3), -2 * SHIFT_STD_MM, 2 * SHIFT_STD_MM)
    return Pose(angles, shift)


def _grid(z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (3, Z, Y, X), first index x, y, z in mm."""
    planes = np.meshgrid(z, y, x, indexing="ij")
    return np.stack(planes[::-1])


def _template_mm(anatomy: Anatomy, shape: HeadShape, pose: Pose, scan_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Template coordinates in mm of `scan_mm`, both (3, Z, Y, X)."""
    return shape.to_template(pose.to_head(scan_mm)) + anatomy.centre_mm.reshape(3, 1, 1, 1)


def head_extent_mm(anatomy: Anatomy, shape: HeadShape, pose: Pose) -> tuple[float, float]:
    """Lowest and highest scan z in mm of the head, within the extent of the anatomy, which cuts off the neck."""
    axis = np.arange(-HEAD_BOX_MM, HEAD_BOX_MM + 1, 4.0)
    template = _template_mm(anatomy, shape, pose, _grid(axis, axis[::2], axis[::2]))
    index = np.rint(_to_index(anatomy, template)).astype(int)
    size = np.array(anatomy.fractions.shape[1:]).reshape(3, 1, 1, 1)
    inside = ((index >= 0) & (index < size)).all(0)
    clipped = np.clip(index, 0, size - 1)
    head = inside & (anatomy.fractions[:, clipped[0], clipped[1], clipped[2]].sum(0) > 0.5)
    levels = axis[head.any((1, 2))]
    return float(levels[0]), float(levels[-1])


def draw_geometry(
    rng: np.random.Generator,
    anatomy: Anatomy,
    shape: HeadShape,
    *,
    matrix: int,
    thickness_mm: float,
    gap_mm: float = 0.0,
    coverage: Coverage = CROPPED,
    upper_only: bool = False,
) -> ScanGeometry:
    """Random pose; part of the head left out at either end as `coverage` says; first slice shifted by up to one slice.

    `upper_only`: the subject belongs to the half that is scanned in its upper part alone, if the coverage has one.
    """
    pose = draw_pose(rng)
    low, high = head_extent_mm(anatomy, shape, pose)
    bottom, top = coverage.left_out(upper_only=upper_only)
    crop = (float(rng.uniform(*bottom)), float(rng.uniform(*top)))
    spacing = thickness_mm + gap_mm
    first = low + crop[0] * (high - low) + float(rng.uniform(0, 1)) * spacing
    last = high - crop[1] * (high - low)
    return ScanGeometry(pose, matrix, thickness_mm, np.arange(first, last, spacing), crop, gap_mm)


def fine_factor(matrix: int) -> int:
    """Number of fine samples per pixel along each in-plane axis."""
    return int(np.ceil(FOV_MM / matrix / FINE_MM))


def fine_axis_mm(matrix: int) -> NDArray[np.float64]:
    """In-plane positions of the fine samples in scan mm; every `fine_factor`-th is the centre of a pixel."""
    n = matrix * fine_factor(matrix)
    return (np.arange(n) - n / 2) * FOV_MM / n


def _to_index(anatomy: Anatomy, template_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel indices of `template_mm`, both (3, Z, Y, X)."""
    inverse = np.linalg.inv(anatomy.affine).astype(np.float64)
    return transform(inverse[:3, :3], inverse[:3, 3], template_mm)


def interpolate(values: NDArray, at: NDArray[np.float64], nodes: NDArray[np.float64], axis: int) -> NDArray:
    """Linear interpolation along `axis`, from equidistant `nodes` to `at`, constant beyond; same dtype as `values`.

    Computed element by element, as the rounding of a matrix product would depend on the number of threads.
    """
    position = np.clip((at - nodes[0]) / (nodes[1] - nodes[0]), 0, len(nodes) - 1)
    low = np.minimum(position.astype(int), len(nodes) - 2)
    shape = [1] * values.ndim
    shape[axis] = len(at)
    part = (position - low).astype(values.dtype).reshape(shape)
    first, between = values.take(low, axis), values.take(low + 1, axis)
    between -= first
    between *= part
    between += first
    return between


def _sample(fractions: torch.Tensor, at: Array) -> Array:
    """Trilinear fractions (T, Z, Y, X) at `at` (Z, Y, X, 3), from -1 to 1 between the outermost voxel centres, x first.

    The lowest plane, the neck, is extended downwards.
    """
    np.maximum(at[..., 2], -1, out=at[..., 2])
    sampled = F.grid_sample(
        fractions, torch.from_numpy(at)[None], mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return sampled[0].numpy()


def _planes(scan: ScanGeometry) -> tuple[NDArray[np.float64], int, Array]:
    """Sampling positions along z, number of samples from one slice to the next, and weights of a slice's samples.

    The slice profile is a trapezium, flat except at its ends, whose full width at half maximum is the thickness.
    Slices without a gap share their outermost plane.
    """
    parts = PLANES_PER_THIN_SLICE if scan.thickness_mm <= THIN_MM else PLANES_PER_SLICE
    profile = np.array([0.5, *[1.0] * (parts - 1), 0.5], np.float32) / np.float32(parts)
    step = scan.thickness_mm / parts
    if not scan.gap_mm:
        return scan.z_mm[0] + step * (np.arange(len(scan.z_mm) * parts + 1) - parts / 2), parts, profile
    own = step * (np.arange(parts + 1) - parts / 2)
    return (scan.z_mm[:, None] + own).ravel(), parts + 1, profile


def slice_head(anatomy: Anatomy, shape: HeadShape, scan: ScanGeometry) -> SlicedHead:
    """Resample the head for a scan; the image of any sequence is then a weighted sum of the fractions."""
    fine, coarse = fine_axis_mm(scan.matrix), np.arange(-FOV_MM / 2, FOV_MM / 2 + COARSE_MM, COARSE_MM)
    planes, stride, profile = _planes(scan)
    nodes = np.arange(planes[0], planes[-1] + COARSE_MM, COARSE_MM)
    template = _template_mm(anatomy, shape, scan.pose, _grid(nodes, coarse, coarse))
    index = _to_index(anatomy, template).astype(np.float32)
    rows = _window(index[1], anatomy.fractions.shape[2], (0, 2), coarse, fine)
    columns = _window(index[0], anatomy.fractions.shape[1], (0, 1), coarse, fine)
    source = torch.from_numpy(anatomy.fractions.transpose(0, 3, 2, 1))[None]  # x varies fastest, as image columns do
    grid = np.stack([2 * index[k] / (size - 1) - 1 for k, size in enumerate(anatomy.fractions.shape[1:])], -1)
    by_plane = interpolate(grid, planes, nodes, axis=0)
    fractions = np.zeros((len(anatomy.fractions), len(scan.z_mm), len(fine), len(fine)), np.float32)
    for first in range(0, len(scan.z_mm), SLAB):
        slices = range(first, min(first + SLAB, len(scan.z_mm)))
        slab = by_plane[slices[0] * stride : slices[-1] * stride + len(profile)]
        part = interpolate(slab, fine[rows], coarse, axis=1)
        sampled = _sample(source, interpolate(part, fine[columns], coarse, axis=2))
        averaged = profile[0] * sampled[:, : stride * len(slices) : stride]
        for k, weight in enumerate(profile[1:], start=1):
            averaged += weight * sampled[:, k : k + stride * len(slices) : stride]
        fractions[:, slices[0] : slices[-1] + 1, rows, columns] = averaged
    at_slices = interpolate(template, scan.z_mm, nodes, axis=1)
    level_mm = _levels(fractions, to_embedded(anatomy, at_slices)[2], coarse, fine)
    return SlicedHead(fractions, (rows, columns), at_slices, coarse, level_mm)


def to_embedded(anatomy: Anatomy, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places (3, ...) in the embedded head, in mm, of points in the anatomy; unregistered, centres are aligned."""
    if anatomy.to_template is None:
        return transform(np.eye(3), HEAD_CENTRE_MM - anatomy.centre_mm, points_mm)
    return transform(anatomy.to_template[:3, :3], anatomy.to_template[:3, 3], points_mm)


def _window(
    index: Array, size: int, axes: tuple[int, int], coarse: NDArray[np.float64], fine: NDArray[np.float64]
) -> slice:
    """Fine rows or columns that may contain head; elsewhere the map leaves the anatomy's volume."""
    inside = coarse[((index > -2) & (index < size + 1)).any(axes)]
    wanted = np.flatnonzero((fine > inside[0] - COARSE_MM) & (fine < inside[-1] + COARSE_MM))
    return slice(int(wanted[0]), int(wanted[-1]) + 1)


def _levels(
    fractions: Array, template_z: NDArray[np.float64], coarse: NDArray[np.float64], fine: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean template z in mm over the head in each slice (over the whole slice if it contains no head)."""
    stride = max(1, int(COARSE_MM / 2 / (fine[1] - fine[0])))
    axis_mm = fine[::stride]
    z = interpolate(interpolate(template_z, axis_mm, coarse, axis=1), axis_mm, coarse, axis=2)
    head = fractions[:, :, ::stride, ::stride].sum(0) > 0.5
    weight = np.where(head.any((1, 2), keepdims=True), head, True)
    return np.asarray((weight * z).sum((1, 2)) / weight.sum((1, 2)))
