"""`DATA/manifest.json`: the source volume of every slice, from which slices are reassembled into volumes.

Slice axes are numbered in RAS orientation (0 towards right, 1 anterior, 2 superior) for any orientation of the source
file; `shape`, `affine`, `sform` and `qform` are those of the source file.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from data.folder.slices import SLICE_SUFFIXES, clean_subject
from util.errors import UserError
from util.reading import lies_in, read_bounded, read_structure

MANIFEST_NAME = "manifest.json"
FORMAT = 1
SPLITS = ("train", "val", "test")
DOMAINS = ("A", "B")
MAX_NAME = 230  # characters of a subject's name; file names add index, kind of image and suffix
MAX_VOXELS = 2**26  # of a volume; reassembling a larger one takes more than 1 GB
MAX_MM = 1e6  # largest value allowed in an affine
MAX_SIDE = 4096  # pixels a side of a grid in mm
MAX_BYTES = 256 * 2**20  # of the file: a million slices take some 140 MB,
MAX_VALUES = 6_000_000  # and five values each

Window = Annotated[list[float], Meta(min_length=2, max_length=2)]
Row = Annotated[list[Annotated[float, Meta(ge=-MAX_MM, le=MAX_MM)]], Meta(min_length=4, max_length=4)]
Matrix = Annotated[list[Row], Meta(min_length=4, max_length=4)]
Code = Annotated[int, Meta(ge=0, lt=2**15)]


class SliceEntry(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One slice. `index` counts along the slice axis in RAS; `level_mm` is its template level if simulated."""

    index: int
    file: str
    p: Annotated[float, Meta(ge=0, le=1)]
    level_mm: float | None = None


class GridEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """The grid in mm that a volume's slices were resampled to, and where it lies in the source.

    `pixel_mm`: side of its square pixels; `size`: its rows and columns. `box`: left, top, right and bottom of the grid
    in pixels of the source's slice image, counted from that image's outer edge; the grid may be larger than the image.
    """

    pixel_mm: Annotated[float, Meta(gt=0, le=MAX_MM)]
    size: Annotated[list[Annotated[int, Meta(ge=1, le=MAX_SIDE)]], Meta(min_length=2, max_length=2)]
    box: Annotated[list[Annotated[float, Meta(ge=-MAX_MM, le=MAX_MM)]], Meta(min_length=4, max_length=4)]


class VolumeEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One volume. `window` maps source intensity to [0, 1]: (value - window[0]) / (window[1] - window[0]).

    `person` is whom it shows, equal for all volumes of one person; None: told by the subject's name, see `person_of`.
    `grid` is None where slices have the pixels of the source. `thickness_mm` is the thickness over which neighbouring
    slices were averaged; None: not at all.
    """

    subject: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    split: Annotated[str, Meta(pattern=rf"^({'|'.join(SPLITS)})\Z")]
    domain: Annotated[str, Meta(pattern=r"^[AB]\Z")]
    source: str
    shape: Annotated[list[Annotated[int, Meta(ge=1, le=MAX_VOXELS)]], Meta(min_length=3, max_length=3)]
    affine: Matrix
    spacing_mm: Annotated[list[Annotated[float, Meta(gt=0)]], Meta(min_length=3, max_length=3)]
    slice_axis: Annotated[int, Meta(ge=0, le=2)]
    window: Window
    slices: list[SliceEntry]
    sform: Matrix | None = None
    qform: Matrix | None = None
    sform_code: Code = 0
    qform_code: Code = 0
    truth_window: Window | None = None
    person: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)] | None = None
    grid: GridEntry | None = None
    thickness_mm: Annotated[float, Meta(gt=0, le=MAX_MM)] | None = None

    @property
    def folder(self) -> str:
        """Name of the slice folder under the data root, e.g. `trainA`."""
        return f"{self.split}{self.domain}"


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file except for its format. `settings` holds the options that made the folder."""

    origin: Literal["nifti", "simulated"]
    volumes: list[VolumeEntry]
    settings: dict[str, Any] = {}


class _File(Manifest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal[1]


def write_manifest(dataroot: Path, manifest: Manifest) -> None:
    """Write `manifest.json` with volumes sorted by (split, domain, subject), so equal content gives equal bytes."""
    ordered = sorted(manifest.volumes, key=lambda v: (v.split, v.domain, v.subject))
    content = {"format": FORMAT, **msgspec.to_builtins(msgspec.structs.replace(manifest, volumes=ordered))}
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
    manifest = read_structure(path, _File, most_bytes=MAX_BYTES, most_values=MAX_VALUES)
    try:
        _check(manifest)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return manifest


class Placement(Struct, frozen=True):
    """What a volume's entry says of size and place: fields of `VolumeEntry`."""

    split: str
    domain: str
    spacing_mm: list[float]
    slice_axis: int
    grid: GridEntry | None = None
    thickness_mm: float | None = None


class _Placements(Struct, frozen=True):
    volumes: list[Placement]


def read_placements(dataroot: Path) -> list[Placement]:
    """The placements of all volumes; none without a manifest, or with one that `read_manifest` refuses.

    The slices' entries are skipped: a million of them take 300 MB and seconds.
    """
    path = dataroot / MANIFEST_NAME
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(read_bounded(path, MAX_BYTES), type=_Placements).volumes
    except (UserError, msgspec.MsgspecError):
        return []


def forget_manifest() -> None:
    """Free the memory of the manifest read last."""
    _read.cache_clear()


def _check(manifest: Manifest) -> None:
    """Raise ValueError for the first value that breaks a rule which its type does not express."""
    known: set[tuple[str, str]] = set()
    for i, volume in enumerate(manifest.volumes):
        place = f"volumes[{i}]"
        _check_volume(volume, place)
        key = (volume.folder, clean_subject(volume.subject).casefold())
        _need(key not in known, f"{place}.subject", volume.subject, f"another name: {volume.folder} has it already")
        known.add(key)


def _check_volume(volume: VolumeEntry, place: str) -> None:
    for name, value in (("subject", volume.subject), ("person", volume.person)):
        _need(value is None or value.isprintable(), f"{place}.{name}", value, "printable characters")
    _need(math.prod(volume.shape) <= MAX_VOXELS, f"{place}.shape", volume.shape, f"at most {MAX_VOXELS} voxels")
    for name in ("affine", "sform", "qform"):
        matrix = getattr(volume, name)
        _need(matrix is None or _is_affine(matrix), f"{place}.{name}", matrix, "a 4 x 4 affine that is not singular")
    for name in ("window", "truth_window"):
        window = getattr(volume, name)
        _need(window is None or window[0] < window[1], f"{place}.{name}", window, "[low, high]")
    if volume.grid is not None:
        left, top, right, bottom = volume.grid.box
        _need(left < right and top < bottom, f"{place}.grid.box", volume.grid.box, "[left, top, right, bottom]")
    _check_slices(volume, place)


def _check_slices(volume: VolumeEntry, place: str) -> None:
    files: set[str] = set()
    indices: set[int] = set()
    most = max(volume.shape)
    for i, entry in enumerate(volume.slices):
        index, file = entry.index, entry.file
        twice = file in files or index in indices
        if twice or not (_is_plain(file) and 0 <= index < most):
            here, suffixes = f"{place}.slices[{i}]", " or ".join(SLICE_SUFFIXES)
            _need(_is_plain(file), f"{here}.file", file, f"a plain file name that ends in {suffixes}")
            _need(file not in files, f"{here}.file", file, "another name: the volume has it already")
            _need(0 <= index < most, f"{here}.index", index, "a slice that the shape has")
            _need(index not in indices, f"{here}.index", index, "another number: the volume has it already")
        files.add(file)
        indices.add(index)


def _is_plain(file: str) -> bool:
    """Whether `file` is the name of a slice file without any folder."""
    plain = file.isprintable() and "/" not in file and "\\" not in file and not file.startswith(".")
    return plain and file.lower().endswith(SLICE_SUFFIXES)


def _is_affine(matrix: Matrix) -> bool:
    if matrix[3] != [0, 0, 0, 1]:
        return False
    linear = np.array(matrix)[:3, :3]
    lengths = np.linalg.norm(linear, axis=0)
    return bool((lengths > 0).all() and abs(np.linalg.det(linear / lengths)) > 1e-6)


def _need(holds: bool, place: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{place} is {str(value)[:80]!r}, need {allowed}")
