"""The geometry of a source volume, and reorientation to RAS and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class SourceGeometry:
    """Geometry of a source file: array shape, voxel-to-world affine (4, 4) in mm, and the header's two matrices.

    `sform` and `qform` are None if the header has no usable one; the codes are those of NIfTI (0: unknown).
    """

    shape: tuple[int, int, int]
    affine: Matrix
    sform: Matrix | None = None
    qform: Matrix | None = None
    sform_code: int = 0
    qform_code: int = 0


def spacing_mm(affine: Matrix) -> tuple[float, float, float]:
    """Voxel sizes in mm along the three array axes."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def is_singular(affine: Matrix) -> bool:
    """Whether the affine is not finite or maps voxels onto a plane, and so defines no orientation."""
    linear = affine[:3, :3]
    if not np.isfinite(affine).all():
        return True
    lengths = np.linalg.norm(linear, axis=0)
    return bool((lengths == 0).any() or abs(np.linalg.det(linear / lengths)) < 1e-6)


def to_ras(volume: NDArray, affine: Matrix) -> tuple[NDArray, Matrix]:
    """Permute and flip axes to the closest RAS orientation; no interpolation.

    Args:    volume: (X, Y, Z) in source order; affine: its (4, 4) voxel-to-world matrix.
    Returns: the volume in RAS order and its affine.
    """
    orientation = io_orientation(affine)
    return apply_orientation(volume, orientation), affine @ inv_ornt_aff(orientation, volume.shape)


def ras_geometry(geometry: SourceGeometry) -> tuple[tuple[int, ...], Matrix]:
    """Shape and affine of the source volume in RAS order."""
    orientation = io_orientation(geometry.affine)
    shape = tuple(int(geometry.shape[axis]) for axis in np.argsort(orientation[:, 0]))
    return shape, geometry.affine @ inv_ornt_aff(orientation, geometry.shape)


def from_ras(volume: NDArray, affine: Matrix) -> NDArray:
    """Inverse of `to_ras`: a RAS volume in the axis order and directions of the source's `affine`."""
    return apply_orientation(volume, ornt_transform(RAS, io_orientation(affine)))
