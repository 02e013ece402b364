"""`DATA/manifest.json`: where every slice came from, so that slices can be put together again as a volume.

Slice axes are numbered in RAS orientation (0 towards right, 1 towards anterior, 2 towards superior), whatever the
orientation of the source file; `shape`, `affine`, `sform` and `qform` are those of the source file.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from util.errors import UserError

MANIFEST_NAME = "manifest.json"
FORMAT = 1
SPLITS = ("train", "val", "test")
DOMAINS = ("A", "B")

Matrix = list[list[float]]


@dataclass(frozen=True)
class SliceEntry:
    """One kept slice. `index` counts along the slice axis in RAS; `level_mm` is its template level, if simulated."""

    index: int
    file: str
    p: float
    level_mm: float | None = None


@dataclass(frozen=True)
class VolumeEntry:
    """One volume. `window` maps source intensity to [0, 1]: (value - window[0]) / (window[1] - window[0])."""

    subject: str
    split: str
    domain: str
    source: str
    shape: list[int]
    affine: Matrix
    spacing_mm: list[float]
    slice_axis: int
    window: list[float]
    slices: list[SliceEntry]
    sform: Matrix | None = None
    qform: Matrix | None = None
    sform_code: int = 0
    qform_code: int = 0
    truth_window: list[float] | None = None

    @property
    def folder(self) -> str:
        """Name of the slice folder under the data root, e.g. `trainA`."""
        return f"{self.split}{self.domain}"


@dataclass(frozen=True)
class Manifest:
    """The whole file. `origin` is `nifti` or `simulated`; `settings` repeats the options that made the folder."""

    origin: str
    volumes: list[VolumeEntry]
    settings: dict[str, Any] = field(default_factory=dict)


def write_manifest(dataroot: Path, manifest: Manifest) -> None:
    """Write `manifest.json` with volumes in (split, domain, subject) order, so equal content gives equal bytes."""
    ordered = sorted(manifest.volumes, key=lambda v: (v.split, v.domain, v.subject))
    content = {"format": FORMAT, **dataclasses.asdict(dataclasses.replace(manifest, volumes=ordered))}
    (dataroot / MANIFEST_NAME).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _volume(row: dict[str, Any]) -> VolumeEntry:
    return VolumeEntry(**{**row, "slices": [SliceEntry(**entry) for entry in row["slices"]]})


def read_manifest(dataroot: Path) -> Manifest | None:
    """Read and check the manifest; None if the folder has none (slices made by hand).

    Raises:
        UserError: not JSON, another format, a missing or unknown field, a split or domain that does not exist, or a
            file name that is not a plain name.
    """
    path = dataroot / MANIFEST_NAME
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UserError(f"{path}: format {content['format']}, this version reads format {FORMAT}")
        manifest = Manifest(content["origin"], [_volume(row) for row in content["volumes"]], content["settings"])
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a manifest ({type(error).__name__}: {error})") from error
    for volume in manifest.volumes:
        if volume.split not in SPLITS or volume.domain not in DOMAINS:
            raise UserError(f"{path}: volume {volume.subject} has split '{volume.split}', domain '{volume.domain}'")
        for entry in volume.slices:
            if Path(entry.file).name != entry.file or entry.file.startswith("."):
                raise UserError(f"{path}: slice file '{entry.file}' is not a plain file name")
    return manifest
