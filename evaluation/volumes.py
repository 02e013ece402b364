"""`volumes/*.nii.gz`: the synthesis reassembled with the geometry of the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from data.folder.manifest import Manifest, VolumeEntry
from data.folder.slices import clean_subject
from evaluation.provenance import DESCRIP, Provenance
from evaluation.record import write_json
from evaluation.subjects import SubjectSlices
from preprocessing.reassembly import assemble
from util.errors import UserError

TRUST_DESCRIP = b"EXPECTED ERROR of a SYNTHETIC image: high = do not trust; research only"
TRUST_VOLUME: dict[str, Any] = {"kind": "trust", "descrip": TRUST_DESCRIP}  # of `write_volume`


def volume_entries(manifest: Manifest | None, split: str, domain: str) -> dict[str, VolumeEntry]:
    """Manifest entries of the volumes of a split and domain by subject; empty without a manifest."""
    volumes = [] if manifest is None else manifest.volumes
    return {volume.subject: volume for volume in volumes if volume.split == split and volume.domain == domain}


def why_incomplete(entry: VolumeEntry, volume: SubjectSlices) -> str | None:
    """Why the slices do not make a whole volume, in which missing ones would look like empty ones; None if they do."""
    missing = len({kept.index for kept in entry.slices} - set(volume.index.tolist()))
    if not missing:
        return None
    return f"{missing} of {len(entry.slices)} slices are missing, left out by --num_test or --skip_bad"


def write_volume(
    folder: Path,
    entry: VolumeEntry,
    volume: SubjectSlices,
    fake_B: NDArray[np.float32],
    provenance: Provenance,
    *,
    kind: str = "synth",
    descrip: bytes = DESCRIP,
    more: Mapping[str, str] | None = None,
) -> Path:
    """Write `SUBJECT_synth.nii.gz`: float32 in [0, 1], B's display range; slices dropped in preprocessing are 0.

    The header says that it is synthetic, and `SUBJECT_synth.json` beside it, what it was made from.

    Args: kind: at the end of the names. descrip: for the header. more: further entries of the JSON file.

    Raises: UserError if the manifest's shape does not fit the slices.
    """
    slices = dict(zip(volume.index.tolist(), fake_B, strict=True))
    stem = f"{clean_subject(volume.subject)}_{kind}"
    path = folder / f"{stem}.nii.gz"
    try:
        image = assemble(entry, slices)
    except ValueError as error:
        raise UserError(f"manifest.json does not fit the slices of '{volume.subject}': {error}") from error
    image.header["descrip"] = descrip
    # the JSON file first: no volume is ever without it
    write_json(
        folder / f"{stem}.json", {**asdict(provenance), "subject": volume.subject, "file": path.name, **(more or {})}
    )
    nibabel.save(image, path)
    return path
