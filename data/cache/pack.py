"""All slices of one folder in one memory-mapped file, with tables: pixels in their own type, masks as bits.

Reading decodes nothing: a slice is a view of the map, and a mask is unpacked bits.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from data.cache.store import DATA_NAME, Columns, Texts
from data.cache.subject_columns import SUBJECT_COLUMNS, subject_columns, subjects_from
from data.folder.check import check_slice, problems_of_folder, siblings_of, sort_problems, threaded_map
from data.folder.decoding import MAX_SIDE
from data.folder.masks import head_mask_slice
from data.folder.slice_folder import SliceFolder
from data.folder.slices import as_image
from data.folder.subjects import SubjectTable
from util.problems import Problem

KINDS = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
ALIGNED = 8  # bytes; every slice begins at a multiple
COLUMNS: dict[str, type[np.generic]] = {
    **SUBJECT_COLUMNS,
    "offset": np.int64,
    "height": np.uint16,
    "width": np.uint16,
    "kind": np.uint8,
    "index": np.int64,
    "p": np.float32,
    "level_mm": np.float32,
    "bad_paths": np.uint8,
    "bad_paths_end": np.int64,
    "bad_reasons": np.uint8,
    "bad_reasons_end": np.int64,
}


@dataclass(frozen=True)
class Pack:
    """The N usable slices of one folder, sorted by file name.

    subjects: file names and subjects. index, p: as in `SliceFolder`. level_mm: NaN if unknown.
    offset, height, width, kind: first byte of a slice in `data`, (bytes,) uint8; its size; its type's index in `KINDS`.
    problems: of the folder and of the slices left out.
    """

    subjects: SubjectTable
    offset: NDArray[np.int64]
    height: NDArray[np.uint16]
    width: NDArray[np.uint16]
    kind: NDArray[np.uint8]
    index: NDArray[np.int64]
    p: NDArray[np.float32]
    level_mm: NDArray[np.float32]
    problems: list[Problem]
    data: NDArray[np.uint8]

    @classmethod
    def from_columns(cls, columns: Columns, data: NDArray[np.uint8], dataroot: Path) -> Pack | None:
        """The pack that `columns` describe; None if they contradict each other or point outside `data`."""
        subjects = subjects_from(columns)
        paths, reasons = (Texts.from_columns(columns, name) for name in ("bad_paths", "bad_reasons"))
        if subjects is None or len(paths) != len(reasons):
            return None
        per_slice = {name: columns[name] for name in ("offset", "height", "width", "kind", "index", "p", "level_mm")}
        if {len(column) for column in per_slice.values()} != {len(subjects.names)}:
            return None
        problems = [Problem(dataroot / path, reason) for path, reason in zip(paths, reasons, strict=True)]
        pack = cls(subjects=subjects, problems=problems, data=data, **per_slice)
        return pack if pack._consistent() else None

    def _consistent(self) -> bool:
        if not len(self.p):
            return True
        pixels = self.height.astype(np.int64) * self.width
        if pixels.min() < 1 or max(self.height.max(), self.width.max()) > MAX_SIDE or self.kind.max() >= len(KINDS):
            return False
        itemsize = np.array([kind.itemsize for kind in KINDS])[self.kind]
        end = self.offset + pixels * itemsize + -(-pixels // 8)
        inside = 0 <= self.offset.min() <= self.offset.max() <= len(self.data)  # otherwise `end` may have overflowed
        inside = inside and (self.offset % ALIGNED == 0).all() and end.max() <= len(self.data)
        return bool(inside and self.p.min() >= 0 and self.p.max() <= 1)

    def pixels(self, i: int) -> NDArray:
        """Pixels (H, W) of slice i, a view of the map."""
        shape, kind = (int(self.height[i]), int(self.width[i])), KINDS[self.kind[i]]
        start = int(self.offset[i])
        return self.data[start : start + shape[0] * shape[1] * kind.itemsize].view(kind).reshape(shape)

    def bits(self, i: int) -> NDArray[np.uint8]:
        """The mask of slice i packed by `np.packbits`, (ceil(H W / 8),) uint8; a view of the map."""
        pixels = int(self.height[i]) * int(self.width[i])
        start = int(self.offset[i]) + pixels * KINDS[self.kind[i]].itemsize
        return self.data[start : start - (-pixels // 8)]

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Foreground (H, W) of slice i."""
        shape = int(self.height[i]), int(self.width[i])
        return np.unpackbits(self.bits(i), count=shape[0] * shape[1]).reshape(shape).view(np.bool_)


@dataclass
class SliceWriter:
    """Appends slices to a pack's large file and records their offsets."""

    file: BinaryIO
    offset: array[int] = field(default_factory=lambda: array("q"))
    shapes: array[int] = field(default_factory=lambda: array("H"))
    kind: array[int] = field(default_factory=lambda: array("B"))
    end: int = 0

    def add(self, pixels: NDArray, mask: NDArray[np.bool_]) -> None:
        """Append one slice: pixels (H, W) of a type in `KINDS`, mask (H, W)."""
        content = pixels.tobytes() + np.packbits(mask).tobytes()
        self.offset.append(self.end)
        self.shapes.extend(pixels.shape)
        self.kind.append(KINDS.index(pixels.dtype))
        padding = bytes(-len(content) % ALIGNED)
        self.file.write(content + padding)
        self.end += len(content) + len(padding)

    def columns(self) -> dict[str, NDArray]:
        """Columns offset, height, width and kind."""
        shapes = np.array(self.shapes, dtype=np.uint16).reshape(-1, 2)
        return {
            "offset": np.array(self.offset, dtype=np.int64),
            "height": shapes[:, 0],
            "width": shapes[:, 1],
            "kind": np.array(self.kind, dtype=np.uint8),
        }


def pack_folder(folder: SliceFolder, part: Path) -> tuple[dict[str, NDArray], str]:
    """Check and decode the slices of `folder` and their masks into `part`; without mask folder, compute the masks.

    Only file names are kept in memory. Returns the columns, and a SHA-256 over names and content.
    Raises: OSError.
    """
    digest, kept, siblings = hashlib.sha256(), array("q"), siblings_of(folder, ("mask",))
    problems = problems_of_folder(folder, siblings)
    refused = {problem.path.stem for problem in problems}  # and other files of the same stem

    def decoded(i: int) -> tuple[NDArray | None, NDArray | None, list[Problem]]:
        checked = check_slice(folder, siblings, i)
        if checked.problems or checked.pixels is None or folder.files[i].stem in refused:
            return None, None, checked.problems
        return checked.pixels, checked.mask if siblings else head_mask_slice(as_image(checked.pixels)), []

    with (part / DATA_NAME).open("wb", buffering=2**20) as file:
        writer = SliceWriter(file)
        for i, (pixels, mask, found) in enumerate(_with_progress(threaded_map(decoded, len(folder)), folder)):
            problems += found
            if pixels is None or mask is None:
                continue
            writer.add(pixels, mask)
            kept.append(i)
            digest.update(f"{folder.files[i].name}:{pixels.shape}:{pixels.dtype}\n".encode("utf-8", "surrogatepass"))
            digest.update(pixels.tobytes())
            digest.update(np.packbits(mask).tobytes())
        file.flush()
        os.fsync(file.fileno())
    positions = _positions(folder, kept)
    digest.update(positions["p"].tobytes())
    bad = problem_columns(sort_problems(problems), folder.dataroot)
    return {**writer.columns(), **positions, **_subjects(folder, kept), **bad}, digest.hexdigest()


def _with_progress(results: Iterator, folder: SliceFolder) -> Iterable:
    """`results` with a progress bar if stderr is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return results
    return track(results, f"packing {folder.folder.name}", len(folder), console=console, transient=True)


def _positions(folder: SliceFolder, kept: Sequence[int]) -> dict[str, NDArray]:
    indices = np.array(kept, dtype=np.int64)
    unknown = np.full(len(folder), np.nan, dtype=np.float32)
    level_mm = unknown if folder.level_mm is None else folder.level_mm
    return {"index": folder.index[indices], "p": folder.p[indices], "level_mm": level_mm[indices]}


def _subjects(folder: SliceFolder, kept: Sequence[int]) -> dict[str, NDArray]:
    names, subjects = [folder.files[i].name for i in kept], [folder.subjects[i] for i in kept]
    return subject_columns(SubjectTable.of(names, subjects, folder.people))


def problem_columns(problems: Sequence[Problem], dataroot: Path) -> dict[str, NDArray]:
    """Problems as columns, with paths relative to `dataroot`."""
    paths = Texts.of([str(problem.path.relative_to(dataroot)) for problem in problems])
    reasons = Texts.of([problem.reason for problem in problems])
    return {**paths.columns("bad_paths"), **reasons.columns("bad_reasons")}
