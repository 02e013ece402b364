"""`DATA/manifest.json`: the source volume of every slice, from which slices are reassembled into volumes.

Slice axes are numbered in RAS orientation (0 towards right, 1 anterior, 2 superior) for any orientation of the source
file; `shape`, `affine`, `sform` and `qform` are those of the source file.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data.folder.slices import SLICE_SUFFIXES, clean_subject
from util.errors import UserError
from util.reading import lies_in, read_json
from util.structure import MAX_INTEGER, structured

MANIFEST_NAME = "manifest.json"
FORMAT = 1
SPLITS = ("train", "val", "test")
DOMAINS = ("A", "B")
ORIGINS = ("nifti", "simulated")
MAX_NAME = 230  # characters of a subject's name; file names add index, kind of image and suffix
MAX_VOXELS = 2**26  # of a volume; reassembling a larger one takes more than 1 GB
MAX_MM = 1e6  # largest value allowed in an affine
MAX_BYTES = 256 * 2**20  # of the file: a million slices take some 140 MB,
MAX_VALUES = 6_000_000  # and five values each

_ENTRY, _ENTRY_NEEDS = {"index", "file", "p", "level_mm"}, {"index", "file", "p"}

Matrix = list[list[float]]


@dataclass(frozen=True, slots=True)
class SliceEntry:
    """One slice. `index` counts along the slice axis in RAS; `level_mm` is its template level if simulated."""

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
    """The whole file. `origin` is `nifti` or `simulated`; `settings` holds the options that made the folder."""

    origin: str
    volumes: list[VolumeEntry]
    settings: dict[str, Any] = field(default_factory=dict)


def write_manifest(dataroot: Path, manifest: Manifest) -> None:
    """Write `manifest.json` with volumes sorted by (split, domain, subject), so equal content gives equal bytes."""
    ordered = sorted(manifest.volumes, key=lambda v: (v.split, v.domain, v.subject))
    content = {"format": FORMAT, **dataclasses.asdict(dataclasses.replace(manifest, volumes=ordered))}
    (dataroot / MANIFEST_NAME).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_manifest(dataroot: Path) -> Manifest | None:
    """Read and check the manifest; None if the folder has none (slices made by hand).

    Raises:
        UserError naming the field: not JSON of this format; a field that is missing, unknown, of another type or out of
            range; a file name with a path; a duplicate volume, file or slice index.
    """
    path = dataroot / MANIFEST_NAME
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return _read(path, (status.st_mtime_ns, status.st_size, status.st_ino))


@lru_cache(maxsize=1)
def _read(path: Path, version: tuple[int, ...]) -> Manifest:
    """The manifest at `path`, parsed once for all slice folders; `version` changes with the file."""
    if not lies_in(path, path.parent):
        raise UserError(f"{path}: a link out of the data folder, need the file itself")
    content = read_json(path, most_bytes=MAX_BYTES, most_values=MAX_VALUES, object_hook=_slice_entry)
    try:
        if not isinstance(content, dict):
            raise ValueError("the file holds no object")
        if content.get("format") != FORMAT:
            raise ValueError(f"format {str(content.get('format'))[:20]}, this version reads format {FORMAT}")
        manifest = structured(Manifest, {name: value for name, value in content.items() if name != "format"}, "")
        _check(manifest)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return manifest


def forget_manifest() -> None:
    """Free the memory of the manifest read last."""
    _read.cache_clear()


def _slice_entry(value: dict[str, Any]) -> Any:
    """A slice's entry while parsing: a million dicts would take 500 MB. `structured` reports what does not fit."""
    if len(value) > 4 or value.keys() - _ENTRY or not value.keys() >= _ENTRY_NEEDS:
        return value
    index, file, p, level = value["index"], value["file"], value["p"], value.get("level_mm")
    if type(index) is not int or abs(index) > MAX_INTEGER or type(file) is not str:
        return value
    if type(p) is not float or not math.isfinite(p) or not (level is None or type(level) is float):
        return value
    return SliceEntry(index, file, p, level) if level is None or math.isfinite(level) else value


def _check(manifest: Manifest) -> None:
    """Raise ValueError for the first value that is not allowed."""
    _need(manifest.origin in ORIGINS, "origin", manifest.origin, " or ".join(ORIGINS))
    known: set[tuple[str, str]] = set()
    for i, volume in enumerate(manifest.volumes):
        _check_volume(volume, f"volumes[{i}]")
        key = (volume.folder, clean_subject(volume.subject).casefold())
        _need(
            key not in known, f"volumes[{i}].subject", volume.subject, f"another name: {volume.folder} has it already"
        )
        known.add(key)


def _check_volume(volume: VolumeEntry, place: str) -> None:
    subject = volume.subject
    named = 0 < len(subject) <= MAX_NAME and subject.isprintable()
    _need(named, f"{place}.subject", subject, f"1 to {MAX_NAME} printable characters")
    _need(volume.split in SPLITS, f"{place}.split", volume.split, " or ".join(SPLITS))
    _need(volume.domain in DOMAINS, f"{place}.domain", volume.domain, " or ".join(DOMAINS))
    sized = len(volume.shape) == 3 and min(volume.shape) > 0 and math.prod(volume.shape) <= MAX_VOXELS
    _need(sized, f"{place}.shape", volume.shape, f"3 positive numbers, at most {MAX_VOXELS} voxels")
    _need(0 <= volume.slice_axis <= 2, f"{place}.slice_axis", volume.slice_axis, "0, 1 or 2")
    spaced = len(volume.spacing_mm) == 3 and min(volume.spacing_mm) > 0
    _need(spaced, f"{place}.spacing_mm", volume.spacing_mm, "3 positive numbers")
    for name in ("affine", "sform", "qform"):
        matrix = getattr(volume, name)
        _need(matrix is None or _is_affine(matrix), f"{place}.{name}", matrix, "a 4 x 4 affine that is not singular")
    for name in ("sform_code", "qform_code"):
        _need(0 <= getattr(volume, name) < 2**15, f"{place}.{name}", getattr(volume, name), "a NIfTI code")
    for name in ("window", "truth_window"):
        window = getattr(volume, name)
        _need(window is None or (len(window) == 2 and window[0] < window[1]), f"{place}.{name}", window, "[low, high]")
    _check_slices(volume, place)


def _check_slices(volume: VolumeEntry, place: str) -> None:
    files: set[str] = set()
    indices: set[int] = set()
    most = max(volume.shape)
    for i, entry in enumerate(volume.slices):
        index, file = entry.index, entry.file
        twice = file in files or index in indices
        if twice or not (_is_plain(file) and 0 <= index < most and 0 <= entry.p <= 1):
            here, suffixes = f"{place}.slices[{i}]", " or ".join(SLICE_SUFFIXES)
            _need(_is_plain(file), f"{here}.file", file, f"a plain file name that ends in {suffixes}")
            _need(file not in files, f"{here}.file", file, "another name: the volume has it already")
            _need(0 <= index < most, f"{here}.index", index, "a slice that the shape has")
            _need(index not in indices, f"{here}.index", index, "another number: the volume has it already")
            _need(0 <= entry.p <= 1, f"{here}.p", entry.p, "between 0 and 1")
        files.add(file)
        indices.add(index)


def _is_plain(file: str) -> bool:
    """Whether `file` is the name of a slice file without any folder."""
    plain = file.isprintable() and "/" not in file and "\\" not in file and not file.startswith(".")
    return plain and file.lower().endswith(SLICE_SUFFIXES)


def _is_affine(matrix: Matrix) -> bool:
    if [len(row) for row in matrix] != [4] * 4 or matrix[3] != [0, 0, 0, 1]:
        return False
    if np.abs(matrix).max() > MAX_MM:
        return False
    linear = np.array(matrix)[:3, :3]
    lengths = np.linalg.norm(linear, axis=0)
    return bool((lengths > 0).all() and abs(np.linalg.det(linear / lengths)) > 1e-6)


def _need(holds: bool, place: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{place} is {str(value)[:80]!r}, need {allowed}")
