"""Reading NIfTI volumes, and deciding which of their axes counts slices. Only geometry is taken from the header."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from data.preprocessing.geometry import Matrix, SourceGeometry, is_singular, to_ras
from util.errors import UserError

NIFTI_SUFFIXES = (".nii.gz", ".nii")
SLICE_AXES = {"R": 0, "A": 1, "S": 2}
SAME_SPACING = 1.01  # voxel sides within 1 % count as equal
FEW_SLICES = 4  # among equal voxels, an axis so many times shorter than both others counts slices

_READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError)


def subject_of(path: Path) -> str:
    """The file name without `.nii` or `.nii.gz`."""
    for suffix in NIFTI_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def find_volumes(place: Path, flag: str) -> dict[str, Path]:
    """NIfTI files of a folder (not of its subfolders), or the one file `place` is, by subject in name order.

    Raises: UserError naming `flag` and the path: nothing there, no NIfTI file in it, two files of one subject.
    """
    if not place.exists():
        raise UserError(f"{flag} {place}: does not exist, need a folder of .nii or .nii.gz files, or one such file")
    candidates = sorted(place.iterdir()) if place.is_dir() else [place]
    volumes: dict[str, Path] = {}
    for path in candidates:
        if path.name.startswith(".") or not path.is_file() or not path.name.lower().endswith(NIFTI_SUFFIXES):
            continue
        subject = subject_of(path)
        if subject in volumes:
            raise UserError(f"{flag} {place}: {volumes[subject].name} and {path.name} are the same subject, keep one")
        volumes[subject] = path
    if not volumes:
        raise UserError(f"{flag} {place}: no .nii or .nii.gz file found")
    return volumes


def read_geometry(path: Path) -> SourceGeometry:
    """Read and check a file's header; the voxels stay unread.

    Raises: UserError naming the file: not a NIfTI file, not 3-D (trailing dimensions of 1 are dropped), an empty
        dimension, voxels that are not real numbers, an affine without orientation.
    """
    return _geometry(_open(path), path)


def read_nifti(path: Path) -> tuple[NDArray[np.float32], Matrix, SourceGeometry]:
    """Read a volume in RAS order.

    Returns: the volume (X, Y, Z) float32 on the file's own intensity scale, its RAS affine (4, 4) in mm, and the
        geometry of the source file.
    Raises: UserError naming the file: see `read_geometry`; also damaged data, NaN or infinite values, one value only.
    """
    image = _open(path)
    geometry = _geometry(image, path)
    try:
        volume = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(geometry.shape)
    except _READ_ERRORS as error:
        raise UserError(f"{path}: its voxels cannot be read, the file is damaged ({type(error).__name__})") from error
    if not np.isfinite(volume).all():
        raise UserError(f"{path}: holds NaN or infinite values, need finite intensities")
    if volume.min() == volume.max():
        raise UserError(f"{path}: every voxel is {volume.flat[0]:g}, need a volume with contrast")
    volume, affine = to_ras(volume, geometry.affine)
    return volume, affine, geometry


def choose_slice_axis(shape_ras: tuple[int, ...], spacing_ras: tuple[float, ...], override: str = "auto") -> int:
    """The RAS axis that counts slices: 0 towards right, 1 towards anterior, 2 towards superior.

    The thickest voxel side (of two as thick, the more superior); if voxels are equal, an axis at most a quarter as
    long as both others; else inferior-superior.

    Args: shape_ras, spacing_ras: voxels and mm along the RAS axes; override: `R`, `A` or `S` decides, `auto` does not.
    """
    if override != "auto":
        return SLICE_AXES[override]
    thickest = [axis for axis in range(3) if spacing_ras[axis] * SAME_SPACING >= max(spacing_ras)]
    if len(thickest) < 3:
        return thickest[-1]
    shortest, middle, _ = sorted(range(3), key=lambda axis: shape_ras[axis])
    return shortest if shape_ras[shortest] * FEW_SLICES <= shape_ras[middle] else SLICE_AXES["S"]


def _open(path: Path) -> nibabel.Nifti1Image:
    try:
        image = nibabel.load(path)
    except _READ_ERRORS as error:
        raise UserError(f"{path}: cannot be read as NIfTI ({type(error).__name__})") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise UserError(f"{path}: is {type(image).__name__}, need NIfTI")
    return image


def _geometry(image: nibabel.Nifti1Image, path: Path) -> SourceGeometry:
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise UserError(f"{path}: {len(shape)}-D with shape {shape}, need one 3-D volume")
    if min(shape) < 1:
        raise UserError(f"{path}: shape {shape} has an empty dimension")
    if image.get_data_dtype().kind not in "iuf":
        raise UserError(f"{path}: voxels of type {image.get_data_dtype()}, need real numbers")
    if is_singular(image.affine):
        raise UserError(f"{path}: its affine is singular, so its orientation is unknown")
    header = image.header
    try:
        qform = header.get_qform(coded=False)
    except HeaderDataError:
        qform = None
    usable = qform is not None and not is_singular(qform)
    return SourceGeometry(
        shape=shape,
        affine=np.asarray(image.affine, dtype=np.float64),
        sform=header.get_sform() if int(header["sform_code"]) > 0 else None,
        qform=qform if usable else None,
        sform_code=int(header["sform_code"]),
        qform_code=int(header["qform_code"]) if usable else 0,
    )
