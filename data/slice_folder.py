"""The slices of one split and domain on disk: `DATA/trainA/*.png`, their masks, and what the manifest says of them.

Folders made by hand work too: without masks, masks are computed; without a manifest, positions are taken from the index
in the file name. The older layout `train_A`, `train_maskA` is recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from data.manifest import SliceEntry, read_manifest
from data.masks import head_mask_slice
from data.slices import SLICE_SUFFIXES, parse_name, read_image, read_mask
from util.errors import UserError

KEEP_BYTES = 256 * 2**20  # a folder keeps so much of what it decoded; what is more is read from disk every time

Array = TypeVar("Array", NDArray[np.float32], NDArray[np.bool_])


class SliceFolder:
    """Slices of `split` (train, val, test) and `domain` (A, B), in file-name order.

    Attributes:
        files: paths of the slices.
        subjects: subject name a slice.
        index: (N,) int64 slice number within its volume.
        p: (N,) float32 relative level in [0, 1] (method.md, notation).
        level_mm: (N,) float32 template level where the simulator knew it, else None. Never read in training.

    Raises:
        UserError: the folder is missing or empty, or it and the manifest disagree.
    """

    def __init__(self, dataroot: Path, split: str, domain: str, *, max_size: int | None = None) -> None:
        self.dataroot, self.split, self.domain = dataroot, split, domain
        if not dataroot.is_dir():
            raise UserError(f"--dataroot {dataroot}: no such folder")
        folder = find_folder(dataroot, split, domain)
        if folder is None:
            raise UserError(
                f"--dataroot {dataroot}: no folder {split}{domain} in it; preprocessing_images.py makes one"
            )
        self.folder = folder
        self.files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SLICE_SUFFIXES)[:max_size]
        if not self.files:
            raise UserError(f"{folder}: no slices, need {' or '.join('*' + s for s in SLICE_SUFFIXES)} files")
        self.mask_folder = find_folder(dataroot, split, domain, "mask")
        self.subjects, self.index, self.p, self.level_mm = self._positions()
        self._memory: dict[tuple[str, int], NDArray] = {}
        self._room = KEEP_BYTES

    def __len__(self) -> int:
        return len(self.files)

    def image(self, i: int) -> NDArray[np.float32]:
        """Slice i, (H, W) in [0, 1]; not to be written to."""
        return self._kept(("image", i), lambda: read_image(self.files[i]))

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Foreground of slice i, (H, W): from the mask folder, computed where there is none; not to be written to."""
        if self.mask_folder is None:
            return self._kept(("mask", i), lambda: head_mask_slice(self.image(i)))
        return self._kept(("mask", i), lambda: read_mask(self._mask_file(i)))

    def _kept(self, key: tuple[str, int], read: Callable[[], Array]) -> Array:
        """Decoding a PNG takes as long as a small network's step: once is enough while memory lasts."""
        if key in self._memory:
            return self._memory[key]
        slice_ = read()
        if slice_.nbytes <= self._room:
            self._room -= slice_.nbytes
            self._memory[key] = slice_
        return slice_

    def sibling(self, kind: str) -> SiblingFolder | None:
        """The folder beside this one that holds `kind` (truth, truth_mask, labels) under the same names, if any."""
        folder = find_folder(self.dataroot, self.split, self.domain, kind)
        return None if folder is None else SiblingFolder(folder, self.files)

    def check(self) -> None:
        """Decode every slice and mask once, so that a bad file is told before training and not hours into it.

        Raises:
            UserError: an unreadable file, an image without mask, a mask without image, a mask of another size. The
                first one is named, further ones are counted.
        """
        problems = list(self._problems())
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise UserError(problems[0] + more)

    def _problems(self) -> list[str]:
        problems = []
        if self.mask_folder is not None:
            stems = {path.stem for path in self.folder.iterdir()}
            for path in sorted(self.mask_folder.iterdir()):
                if path.suffix.lower() in SLICE_SUFFIXES and path.stem not in stems:
                    problems.append(f"{path}: a mask without image in {self.folder}")
        for i, path in enumerate(self.files):
            try:
                shape = self.image(i).shape
                if self.mask_folder is None:
                    continue
                mask = self._mask_file(i)
                if not mask.exists():
                    problems.append(f"{path}: no mask {mask.name} in {self.mask_folder}")
                elif (found := self.mask(i).shape) != shape:
                    problems.append(f"{mask}: {found[0]}x{found[1]} pixels, its image has {shape[0]}x{shape[1]}")
            except UserError as error:
                problems.append(str(error))
        return problems

    def _mask_file(self, i: int) -> Path:
        if self.mask_folder is None:
            raise ValueError("no mask folder")
        return _same_stem(self.mask_folder, self.files[i])

    def _positions(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | None]:
        manifest = read_manifest(self.dataroot)
        volumes = [] if manifest is None else manifest.volumes
        known: dict[str, tuple[str, SliceEntry]] = {
            entry.file: (volume.subject, entry)
            for volume in volumes
            if volume.split == self.split and volume.domain == self.domain
            for entry in volume.slices
        }
        if not known:
            subjects, index = zip(*(parse_name(path.stem) for path in self.files), strict=True)
            numbers = np.array(index, dtype=np.int64)
            return list(subjects), numbers, _relative_levels(list(subjects), numbers), None
        strangers = [path for path in self.files if path.name not in known]
        if strangers:
            raise UserError(
                f"{strangers[0]}: not in {self.dataroot / 'manifest.json'}; remove the file or the manifest"
            )
        rows = [known[path.name] for path in self.files]
        levels = [entry.level_mm for _, entry in rows]
        given = [level for level in levels if level is not None]
        return (
            [subject for subject, _ in rows],
            np.array([entry.index for _, entry in rows], dtype=np.int64),
            np.array([entry.p for _, entry in rows], dtype=np.float32),
            np.array(given, dtype=np.float32) if len(given) == len(levels) else None,
        )


class SiblingFolder:
    """Files that belong to given slices, found by name: truths, truth masks, labels."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self.folder = folder
        self.files = [_same_stem(folder, path) for path in files]
        missing = [path for path in self.files if not path.exists()]
        if missing:
            raise UserError(f"{missing[0]}: missing, {folder.name} needs one file for every slice")

    def image(self, i: int) -> NDArray[np.float32]:
        return read_image(self.files[i])

    def mask(self, i: int) -> NDArray[np.bool_]:
        return read_mask(self.files[i])


def find_folder(dataroot: Path, split: str, domain: str, kind: str = "") -> Path | None:
    """`DATA/trainA_mask` (or the older `train_maskA`, `train_A`) if it exists."""
    ours = f"{split}{domain}_{kind}" if kind else f"{split}{domain}"
    for name in (ours, f"{split}_{kind}{domain}"):
        if (dataroot / name).is_dir():
            return dataroot / name
    return None


def _same_stem(folder: Path, path: Path) -> Path:
    """The file in `folder` with the stem of `path`; its suffix may differ (an .npy slice with a .png mask)."""
    same = folder / path.name
    if same.exists():
        return same
    for suffix in SLICE_SUFFIXES:
        if (other := folder / (path.stem + suffix)).exists():
            return other
    return same


def _relative_levels(subjects: list[str], index: NDArray[np.int64]) -> NDArray[np.float32]:
    """p from slice numbers alone: a slice's centre over the outer faces of its subject's first and last slice."""
    p = np.empty(len(index), dtype=np.float32)
    names = np.array(subjects)
    for name in set(subjects):
        mine = names == name
        first, last = index[mine].min(), index[mine].max()
        p[mine] = (index[mine] - first + 0.5) / (last - first + 1)
    return p
