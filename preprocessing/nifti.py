"""NIfTI volumes: the files of a folder, their geometry, their voxels in RAS order, and the slice axis.

Only geometry is taken from the header.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from preprocessing.choices import SLICE_AXES
from preprocessing.geometry import Matrix, SourceGeometry, is_singular, spacing_mm, to_ras
from preprocessing.nifti_file import NiftiFile, open_nifti, read_voxels
from preprocessing.other_formats import NIFTI_SUFFIXES, bids_volumes, contrasts, no_volumes
from util.errors import UserError
from util.problems import Problem

SAME_SPACING = 1.01  # voxel sides within 1 % count as equal
FEW_SLICES = 4  # with isotropic voxels, an axis this many times shorter than both others is the slice axis
SIDE_MM = (0.002, 100.0)  # range of voxel sides; others mean another unit or a damaged header
FARTHEST_MM = 1e6  # largest distance from the origin
XFORM_CODES = range(6)  # valid codes of sform and qform in NIfTI-1 and NIfTI-2


def subject_of(path: Path) -> str:
    """The file name without `.nii` or `.nii.gz`."""
    for suffix in NIFTI_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def find_volumes(location: Path, flag: str) -> tuple[dict[str, Path], list[Problem], list[Path]]:
    """The NIfTI file `location`, or those of the folder `location` without its subfolders.

    Returns: files by subject, sorted by name; problems of names that are no regular file (folder, FIFO, broken link);
        what else is in the folder, hidden files left out.
    Raises: UserError naming `flag` and the path: nothing there, no NIfTI names, two files of one subject.
    """
    candidates = _candidates(location, flag)
    volumes: dict[str, Path] = {}
    problems = []
    others: list[Path] = []
    for path in candidates:
        if path.name.startswith(".") or not path.name.lower().endswith(NIFTI_SUFFIXES):
            others += [] if path.name.startswith(".") else [path]
            continue
        subject = subject_of(path)
        if not path.is_file():
            problems.append(Problem(path, "is not a regular file, need a .nii or .nii.gz file"))
        elif subject in volumes:
            raise UserError(
                f"{flag} {location}: {volumes[subject].name} and {path.name} are the same subject, keep one"
            )
        else:
            volumes[subject] = path
    if not volumes and not problems:
        raise UserError(f"{flag} {location}: {no_volumes(location)}")
    return volumes, problems, others


def find_contrast(
    location: Path, flag: str, contrast: str | None, *, choice: str = "--contrast", bids: bool = True
) -> tuple[dict[str, Path], list[Problem], list[Path]]:
    """As `find_volumes`, of one contrast, told by the ending of names as in BIDS; a BIDS folder may be any level of it.

    Args: contrast: such as `T2w`; None: all volumes, which in a BIDS folder must have one contrast. choice: the option
        that names it. bids: whether BIDS folders are read.
    Raises: UserError as `find_volumes`; also for several contrasts of a BIDS folder, or none of the one asked for.
    """
    deep = bids_volumes(location) if bids else []
    if not deep:
        volumes, problems, others = find_volumes(location, flag)
    else:
        volumes, problems, others = _by_subject(deep, location, flag), [], []
    known = ", ".join(f"{n} {name}" for name, n in contrasts(volumes.values()).most_common(6))
    if contrast is not None:
        volumes = {subject: path for subject, path in volumes.items() if f"_{subject}".endswith(f"_{contrast}")}
        if not volumes:
            raise UserError(f"{choice} {contrast}: no name in {location} ends in _{contrast} (found: {known})")
    elif deep and len(contrasts(volumes.values())) > 1:
        raise UserError(f"{flag} {location}: a BIDS folder of several contrasts ({known}), {choice} takes one of them")
    return volumes, problems, others


def _by_subject(paths: list[Path], location: Path, flag: str) -> dict[str, Path]:
    volumes: dict[str, Path] = {}
    for path in paths:
        other = volumes.setdefault(subject_of(path), path)
        if other != path:
            raise UserError(f"{flag} {location}: {other} and {path} are the same subject, keep one")
    return volumes


def _candidates(location: Path, flag: str) -> list[Path]:
    if not location.exists():
        raise UserError(f"{flag} {location}: does not exist, need a folder of .nii or .nii.gz files, or one such file")
    if not location.is_dir():
        return [location]
    try:
        return sorted(location.iterdir())
    except OSError as error:
        raise UserError(f"{flag} {location}: cannot be read ({error.strerror})") from error


def read_geometry(path: Path) -> SourceGeometry:
    """Read and check a file's header, but not its voxels.

    Raises: UserError naming the file: see `open_nifti`; also if not 3-D (trailing dimensions of 1 are dropped), for
        voxel sides outside `SIDE_MM`, or an affine without orientation.
    """
    return _geometry(open_nifti(path))


def read_nifti(path: Path) -> tuple[NDArray[np.float32], Matrix, SourceGeometry]:
    """Read a volume in RAS order.

    Returns: the volume (X, Y, Z) float32 on the file's own intensity scale, its RAS affine (4, 4) in mm, and the
        geometry of the source file.
    Raises: UserError naming the file: see `read_geometry` and `read_voxels`; also if constant.
    """
    opened = open_nifti(path)
    geometry = _geometry(opened)
    volume = read_voxels(opened)
    if volume.min() == volume.max():
        raise UserError(f"{path}: every voxel is {volume.flat[0]:g}, need a volume with contrast")
    volume, affine = to_ras(volume, geometry.affine)
    return volume, affine, geometry


def choose_slice_axis(shape_ras: tuple[int, ...], spacing_ras: tuple[float, ...], override: str = "auto") -> int:
    """The slice axis in RAS: 0 towards right, 1 towards anterior, 2 towards superior.

    It is the axis with the thickest voxels, the later one if two are equal. With isotropic voxels it is an axis at most
    a quarter as long as both others, else inferior-superior.

    Args: shape_ras, spacing_ras: voxels and mm along the RAS axes; override: `R`, `A` or `S`, or `auto`.
    """
    if override != "auto":
        return SLICE_AXES[override]
    thickest = [axis for axis in range(3) if spacing_ras[axis] * SAME_SPACING >= max(spacing_ras)]
    if len(thickest) < 3:
        return thickest[-1]
    shortest, middle, _ = sorted(range(3), key=lambda axis: shape_ras[axis])
    return shortest if shape_ras[shortest] * FEW_SLICES <= shape_ras[middle] else SLICE_AXES["S"]


def affine_of(opened: NiftiFile) -> Matrix:
    """The voxel-to-world matrix (4, 4) in mm as NIfTI defines it: the sform, else the qform, else voxel sizes alone.

    Raises: UserError naming the file: invalid codes or voxel sizes, an affine without orientation, with voxel sides
        outside `SIDE_MM`, or beyond `FARTHEST_MM`.
    """
    header, path = opened.header, opened.path
    for name in ("sform_code", "qform_code"):
        if int(header[name]) not in XFORM_CODES:
            raise UserError(f"{path}: {name} {header[name]}, NIfTI has 0 to {XFORM_CODES[-1]}")
    sides = [float(side) for side in header["pixdim"][1:4]]
    if header["sform_code"] == 0 and not all(side > 0 for side in sides):
        raise UserError(f"{path}: voxel sides of {' x '.join(f'{side:g}' for side in sides)} mm, need positive ones")
    if header["sform_code"]:
        affine = header.get_sform()
    else:
        affine = _qform(header) if header["qform_code"] else header.get_base_affine()
    if affine is None:
        raise UserError(f"{path}: its qform holds no rotation, so its orientation is unknown")
    affine = np.asarray(affine, dtype=np.float64)
    if reason := _unusable(affine):
        raise UserError(f"{path}: {reason}")
    return affine


def _unusable(affine: Matrix) -> str:
    """The reason why `affine` cannot be used; empty if it can."""
    if not np.isfinite(affine).all():
        return "its affine is not finite, so its orientation is unknown"
    if np.abs(affine).max() > FARTHEST_MM:
        return f"its affine holds {affine.flat[np.abs(affine).argmax()]:g}, at most {FARTHEST_MM:g} mm are allowed"
    sides = spacing_mm(affine)
    if min(sides) > 0 and not (SIDE_MM[0] <= min(sides) and max(sides) <= SIDE_MM[1]):
        shown = " x ".join(f"{side:.4g}" for side in sides)
        return f"voxel sides of {shown} mm, need {SIDE_MM[0]:g} to {SIDE_MM[1]:g}"
    return "its affine is singular, so its orientation is unknown" if is_singular(affine) else ""


def _qform(header: Nifti1Header) -> Matrix | None:
    """The qform matrix, coded or not; None if the header has none."""
    header = header.copy()
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1  # NIfTI: 0 means 1
    try:
        return np.asarray(header.get_qform(coded=False), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return None


def _geometry(opened: NiftiFile) -> SourceGeometry:
    shape, header = opened.shape, opened.header
    if len(shape) != 3:
        raise UserError(f"{opened.path}: {len(shape)}-D with shape {shape}, need one 3-D volume")
    affine = affine_of(opened)
    qform = _qform(header)
    if qform is not None and _unusable(qform):
        qform = None
    return SourceGeometry(
        shape=(shape[0], shape[1], shape[2]),
        affine=affine,
        sform=affine if header["sform_code"] else None,
        qform=qform,
        sform_code=int(header["sform_code"]),
        qform_code=0 if qform is None else int(header["qform_code"]),
    )
