"""Reassemble slices into a volume with exactly the geometry of its source file."""

from __future__ import annotations

from collections.abc import Mapping

import nibabel
import numpy as np
from numpy.typing import NDArray

from data.folder.manifest import VolumeEntry
from data.folder.slices import from_image
from preprocessing.geometry import from_ras, to_ras
from preprocessing.grid import from_grid


def assemble(entry: VolumeEntry, slices: Mapping[int, NDArray[np.float32]]) -> nibabel.Nifti1Image:
    """The inverse of slicing.

    Args:
        entry: manifest entry of the source volume.
        slices: images (H, W) in [0, 1] as slicing wrote them, by index along the slice axis; missing ones become 0,
            and so does what lies outside the slices' grid in mm.
    Returns: a float32 image in [0, 1] with the source's shape, affine, sform, qform and their codes.
    Raises: ValueError for an index or image size that does not fit the source.
    """
    volume = to_ras(np.zeros(entry.shape, dtype=np.float32), np.asarray(entry.affine))[0].copy()
    planes = np.moveaxis(volume, entry.slice_axis, 0)  # a view: filling it fills the volume
    for index, image in slices.items():
        size = entry.grid.size if entry.grid is not None else planes.shape[:0:-1]
        if not 0 <= index < len(planes) or image.shape != tuple(size):
            raise ValueError(f"{entry.subject}: slice {index} of size {image.shape} does not fit {planes.shape}")
        if entry.grid is not None:
            image = np.clip(from_grid(image, entry.grid, planes.shape[:0:-1]), 0, 1)
        planes[index] = from_image(image)
    header = _header(entry)
    return nibabel.Nifti1Image(from_ras(volume, np.asarray(entry.affine)), header.get_best_affine(), header)


def _header(entry: VolumeEntry) -> nibabel.Nifti1Header:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(entry.shape)
    header.set_xyzt_units("mm")
    if entry.qform is None:
        header.set_zooms(np.linalg.norm(np.asarray(entry.affine)[:3, :3], axis=0))
    else:
        header.set_qform(np.asarray(entry.qform), entry.qform_code, strip_shears=False)
    if entry.sform is not None:
        header.set_sform(np.asarray(entry.sform), entry.sform_code)
    if entry.sform_code <= 0 and entry.qform_code <= 0 and not _is_base_affine(header, entry):
        header.set_sform(np.asarray(entry.affine), 1)
    return header


def _is_base_affine(header: nibabel.Nifti1Header, entry: VolumeEntry) -> bool:
    """Whether a header without codes already gives the entry's affine; simulated volumes have no source header."""
    return bool(np.allclose(header.get_base_affine(), entry.affine, atol=1e-4))
