"""`volumes/*.nii.gz`: the synthesis reassembled with the geometry of the source."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from data.folder.manifest import Manifest, VolumeEntry
from data.folder.slices import clean_subject
from evaluation.subjects import SubjectSlices
from preprocessing.reassembly import assemble
from util.errors import UserError


def volume_entries(manifest: Manifest | None, split: str, domain: str) -> dict[str, VolumeEntry]:
    """Manifest entries of the volumes of a split and domain by subject; empty without a manifest."""
    volumes = [] if manifest is None else manifest.volumes
    return {volume.subject: volume for volume in volumes if volume.split == split and volume.domain == domain}


def write_volume(folder: Path, entry: VolumeEntry, volume: SubjectSlices, fake_B: NDArray[np.float32]) -> Path:
    """Write `SUBJECT.nii.gz`: float32 in [0, 1], B's display range; slices dropped in preprocessing are 0.

    Raises: UserError if the manifest's shape does not fit the slices.
    """
    slices = dict(zip(volume.index.tolist(), fake_B, strict=True))
    path = folder / f"{clean_subject(volume.subject)}.nii.gz"
    try:
        image = assemble(entry, slices)
    except ValueError as error:
        raise UserError(f"manifest.json does not fit the slices of '{volume.subject}': {error}") from error
    nibabel.save(image, path)
    return path
