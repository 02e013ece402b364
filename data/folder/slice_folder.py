"""The slices of one split and domain on disk: `DATA/trainA/*.png`, their masks and other files, their positions.

Folders made by hand work too: missing masks are computed, and without a manifest positions come from the index in the
file name. The older layout `train_A`, `train_maskA` is recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.folder.listing import Listing, list_slices
from data.folder.manifest import SliceEntry, read_manifest
from data.folder.masks import head_mask_slice
from data.folder.slices import SLICE_SUFFIXES, as_image, parse_name, read_image, read_mask, read_native, read_pixels
from data.folder.subjects import FolderSubjects, SubjectTable
from util.errors import UserError
from util.problems import Problem

KEEP_BYTES = 256 * 2**20  # decoded slices a folder keeps in memory; others are read from disk every time
READERS: Mapping[str, Callable[[Path], NDArray]] = {  # kinds of files beside the slices
    "mask": read_mask,
    "truth": read_image,
    "truth_mask": read_mask,
    "labels": read_pixels,
    "lesions": read_mask,
}


class SliceFolder:
    """Slices of `split` (train, val, test) and `domain` (A, B), sorted by file name; or the truth of each of them.

    Files whose names are not allowed or not in the manifest are ignored here; `check` reports them.

    Attributes:
        files: paths of the slices.
        listing: contents of the folder; entries: subject and manifest entry by file name.
        subjects: subject name of each slice; people: the person of a subject where the manifest says it.
        index: (N,) int64 slice number within its volume.
        p: (N,) float32 relative level in [0, 1] (docs/method.md, notation).
        level_mm: (N,) float32 template level of simulated slices, else None. Never read in training.

    Args:
        kind: `truth` for the slices of `DATA/trainA_truth`, which have the names and places of A's.
        use_manifest: False to take positions from file names alone.
        keep_bytes: memory for decoded slices.
    Raises:
        UserError: the folder is missing or empty, or its manifest cannot be read.
    """

    def __init__(
        self,
        dataroot: Path,
        split: str,
        domain: str,
        kind: str = "",
        *,
        use_manifest: bool = True,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self.dataroot, self.split, self.domain, self.kind = dataroot, split, domain, kind
        if not dataroot.is_dir():
            raise UserError(f"--dataroot {dataroot}: no such folder")
        folder = find_folder(dataroot, split, domain, kind)
        if folder is None:
            name = f"{split}{domain}_{kind}" if kind else f"{split}{domain}"
            makes = "--truth_A of preprocessing_images.py" if kind else "preprocessing_images.py"
            raise UserError(f"--dataroot {dataroot}: no folder {name} in it; {makes} makes one")
        self.folder = folder
        self.listing = list_slices(folder, dataroot)
        if not self.listing.files and not self.listing.problems:
            raise UserError(f"{folder}: no slices, need {' or '.join('*' + s for s in SLICE_SUFFIXES)} files")
        self.people: dict[str, str] = {}
        self.entries = self._manifest_entries() if use_manifest else {}
        self.files = [path for path in self.listing.files if not self.entries or path.name in self.entries]
        self.subjects, self.index, self.p, self.level_mm = self._positions()
        self._siblings: dict[str, SiblingFolder | None] = {}
        self._memory: dict[tuple[str, Path], NDArray] = {}
        self._keep_bytes = self._free_bytes = keep_bytes

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, i: int) -> NDArray:
        """Slice i, (H, W) uint8, uint16 or float32, see `read_native`; read-only by convention."""
        return self._memoized("pixels", i, lambda: read_native(self.files[i]))

    def image(self, i: int) -> NDArray[np.float32]:
        """Slice i, (H, W) in [0, 1]; read-only by convention."""
        return as_image(self.pixels(i))

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Foreground of slice i, (H, W): from the mask folder or, without one, computed; read-only by convention."""
        masks = self.sibling("mask")
        if masks is None:
            return self._memoized("mask", i, lambda: head_mask_slice(self.image(i)))
        return self._memoized("mask", i, lambda: masks.read(i))

    @cached_property
    def folder_subjects(self) -> FolderSubjects:
        """The subjects of the folder, as first asked for."""
        table = SubjectTable.of([path.name for path in self.files], self.subjects, self.people)
        return FolderSubjects(self.folder, self.split, table, bool(self.entries))

    def _memoized(self, kind: str, i: int, read: Callable[[], NDArray]) -> NDArray:
        """`read()`, kept in memory up to the limit: decoding a PNG takes as long as a small network's step.

        Threads may exceed the limit by one slice each.
        """
        key = (kind, self.files[i])
        if key in self._memory:
            return self._memory[key]
        slice_ = read()
        if slice_.nbytes <= self._free_bytes:
            self._free_bytes -= slice_.nbytes
            self._memory[key] = slice_
        return slice_

    def sibling(self, kind: str) -> SiblingFolder | None:
        """The folder beside this one with the files of `kind` (see `READERS`), if any."""
        if kind not in self._siblings:
            beside = f"{self.kind}_{kind}" if self.kind else kind
            folder = find_folder(self.dataroot, self.split, self.domain, beside)
            listing = None if folder is None else list_slices(folder, self.dataroot)
            self._siblings[kind] = None if listing is None else SiblingFolder(kind, listing, self.files)
        return self._siblings[kind]

    def clear_memory(self) -> None:
        """Free the memory of decoded slices."""
        self._memory.clear()
        self._free_bytes = self._keep_bytes

    def exclude(self, problems: Iterable[Problem]) -> None:
        """Drop every slice that has a problem itself or in one of its files in the folders beside.

        Raises: UserError if no slice is left.
        """
        bad = {(problem.path.parent, problem.path.stem) for problem in problems}
        folders = [self.folder, *(s.folder for kind in READERS if (s := self.sibling(kind)) is not None)]
        kept = [i for i, path in enumerate(self.files) if not any((folder, path.stem) in bad for folder in folders)]
        if not kept:
            raise UserError(f"{self.folder}: no slice can be used, need at least one")
        self.files, self.subjects = [self.files[i] for i in kept], [self.subjects[i] for i in kept]
        self.index, self.p = self.index[kept], self.p[kept]
        self.level_mm = None if self.level_mm is None else self.level_mm[kept]
        self._siblings.clear()

    def _manifest_entries(self) -> dict[str, tuple[str, SliceEntry]]:
        """Subject and manifest entry of each file of this folder, by file name; `people` is filled."""
        manifest = read_manifest(self.dataroot)
        every = manifest.volumes if manifest is not None else []
        volumes = [volume for volume in every if volume.split == self.split and volume.domain == self.domain]
        self.people = {volume.subject: volume.person for volume in volumes if volume.person is not None}
        return {entry.file: (volume.subject, entry) for volume in volumes for entry in volume.slices}

    def _positions(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | None]:
        if not self.entries:
            parsed = [parse_name(path.stem) for path in self.files]
            subjects, numbers = [subject for subject, _ in parsed], np.array([n for _, n in parsed], dtype=np.int64)
            return subjects, numbers, _relative_levels(subjects, numbers), None
        entries = [self.entries[path.name] for path in self.files]
        levels = [entry.level_mm for _, entry in entries]
        given = [level for level in levels if level is not None]
        return (
            [subject for subject, _ in entries],
            np.array([entry.index for _, entry in entries], dtype=np.int64),
            np.array([entry.p for _, entry in entries], dtype=np.float32),
            np.array(given, dtype=np.float32) if len(given) == len(levels) else None,
        )


class SiblingFolder:
    """Files of one kind for given slices, matched by stem.

    files: one per slice; the expected path if the file is missing.
    """

    def __init__(self, kind: str, listing: Listing, slices: list[Path]) -> None:
        self.folder, self.listing = listing.folder, listing
        self._read = READERS[kind]
        found = {path.stem: path for path in listing.files}
        self.files = [found.get(path.stem, listing.folder / path.name) for path in slices]

    def read(self, i: int) -> NDArray:
        """The file of slice i: (H, W) of the kind's type."""
        return self._read(self.files[i])


def find_folder(dataroot: Path, split: str, domain: str, kind: str = "") -> Path | None:
    """`DATA/trainA_mask` (or the older `train_maskA`, `train_A`) if it exists."""
    current = f"{split}{domain}_{kind}" if kind else f"{split}{domain}"
    for name in (current, f"{split}_{kind}{domain}"):
        if (dataroot / name).is_dir():
            return dataroot / name
    return None


def _relative_levels(subjects: list[str], index: NDArray[np.int64]) -> NDArray[np.float32]:
    """p from slice numbers alone: a slice's centre between the outer faces of its subject's first and last slice."""
    if not subjects:
        return np.empty(0, dtype=np.float32)
    names, subject = np.unique(np.array(subjects), return_inverse=True)
    first, last = np.full(len(names), index.max()), np.full(len(names), index.min())
    np.minimum.at(first, subject, index)
    np.maximum.at(last, subject, index)
    return ((index - first[subject] + 0.5) / (last - first + 1)[subject]).astype(np.float32)
