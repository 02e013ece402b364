"""All slices of one folder in one memory-mapped file: pixels in their own type, masks as bits, and tables beside it.

Nothing is decoded when a slice is read from it: a slice is a view of the map, a mask one unpacking of bits.
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
from data.folder.check import check_slice, in_order, ordered, problems_of_folder, siblings_of
from data.folder.decoding import MAX_SIDE
from data.folder.masks import head_mask_slice
from data.folder.slice_folder import SliceFolder
from data.folder.slices import as_image
from data.folder.subjects import COLUMNS as SUBJECT_COLUMNS
from data.folder.subjects import SubjectTable
from util.problems import Problem

KINDS = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
ALIGNED = 8  # bytes: where slices begin
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
    """N slices of one folder, those that can be used, in file-name order.

    people: names and subjects. index, p: as in `SliceFolder`. level_mm: NaN where unknown.
    offset, height, width, kind: where a slice lies in `data`, (bytes,) uint8, its size, and which of `KINDS` it is.
    problems: what is wrong with the others, and by names alone.
    """

    people: SubjectTable
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
    def within(cls, columns: Columns, data: NDArray[np.uint8], dataroot: Path) -> Pack | None:
        """The pack that `columns` describe; None if they contradict each other, or lead out of `data`."""
        people = SubjectTable.within(columns)
        paths, reasons = (Texts.within(columns, name) for name in ("bad_paths", "bad_reasons"))
        if people is None or len(paths) != len(reasons):
            return None
        of_each = {name: columns[name] for name in ("offset", "height", "width", "kind", "index", "p", "level_mm")}
        if {len(column) for column in of_each.values()} != {len(people.names)}:
            return None
        problems = [Problem(dataroot / path, reason) for path, reason in zip(paths, reasons, strict=True)]
        pack = cls(people=people, problems=problems, data=data, **of_each)
        return pack if pack._fits() else None

    def _fits(self) -> bool:
        if not len(self.p):
            return True
        pixels = self.height.astype(np.int64) * self.width
        if pixels.min() < 1 or max(self.height.max(), self.width.max()) > MAX_SIDE or self.kind.max() >= len(KINDS):
            return False
        itemsize = np.array([kind.itemsize for kind in KINDS])[self.kind]
        end = self.offset + pixels * itemsize + -(-pixels // 8)
        within = 0 <= self.offset.min() <= self.offset.max() <= len(self.data)  # or `end` could overflow
        lies = within and (self.offset % ALIGNED == 0).all() and end.max() <= len(self.data)
        return bool(lies and self.p.min() >= 0 and self.p.max() <= 1)

    def pixels(self, i: int) -> NDArray:
        """Levels (H, W) of slice i, a view of the map."""
        shape, kind = (int(self.height[i]), int(self.width[i])), KINDS[self.kind[i]]
        start = int(self.offset[i])
        return self.data[start : start + shape[0] * shape[1] * kind.itemsize].view(kind).reshape(shape)

    def bits(self, i: int) -> NDArray[np.uint8]:
        """The mask of slice i, (ceil(H W / 8),) uint8, as `np.packbits` makes it; a view of the map."""
        pixels = int(self.height[i]) * int(self.width[i])
        start = int(self.offset[i]) + pixels * KINDS[self.kind[i]].itemsize
        return self.data[start : start - (-pixels // 8)]

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Foreground (H, W) of slice i."""
        shape = int(self.height[i]), int(self.width[i])
        return np.unpackbits(self.bits(i), count=shape[0] * shape[1]).reshape(shape).view(np.bool_)


@dataclass
class SliceWriter:
    """Appends slices to the large file of a pack, and notes where each lies."""

    file: BinaryIO
    offset: array[int] = field(default_factory=lambda: array("q"))
    shapes: array[int] = field(default_factory=lambda: array("H"))
    kind: array[int] = field(default_factory=lambda: array("B"))
    end: int = 0

    def add(self, pixels: NDArray, mask: NDArray[np.bool_]) -> None:
        """Write one slice: (H, W) of one of `KINDS`, and its mask (H, W)."""
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
    """Check and decode all slices of `folder` and its masks, computed where there are none, into `part`.

    Memory does not grow with the slices but for their names. Returns the columns, and a SHA-256 over names and content.
    Raises: OSError.
    """
    digest, rows, siblings = hashlib.sha256(), array("q"), siblings_of(folder, ("mask",))
    problems = problems_of_folder(folder, siblings)
    refused = {problem.path.stem for problem in problems}  # also the namesakes of what is refused

    def decoded(i: int) -> tuple[NDArray | None, NDArray | None, list[Problem]]:
        checked = check_slice(folder, siblings, i)
        if checked.problems or checked.pixels is None or folder.files[i].stem in refused:
            return None, None, checked.problems
        return checked.pixels, checked.mask if siblings else head_mask_slice(as_image(checked.pixels)), []

    with (part / DATA_NAME).open("wb", buffering=2**20) as file:
        writer = SliceWriter(file)
        for i, (pixels, mask, found) in enumerate(_shown(in_order(decoded, len(folder)), folder)):
            problems += found
            if pixels is None or mask is None:
                continue
            writer.add(pixels, mask)
            rows.append(i)
            digest.update(f"{folder.files[i].name}:{pixels.shape}:{pixels.dtype}\n".encode("utf-8", "surrogatepass"))
            digest.update(pixels.tobytes())
            digest.update(np.packbits(mask).tobytes())
        file.flush()
        os.fsync(file.fileno())
    positions = _positions(folder, rows)
    digest.update(positions["p"].tobytes())
    bad = problem_columns(ordered(problems), folder.dataroot)
    return {**writer.columns(), **positions, **_people(folder, rows), **bad}, digest.hexdigest()


def _shown(results: Iterator, folder: SliceFolder) -> Iterable:
    """With a progress bar on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return results
    return track(results, f"packing {folder.folder.name}", len(folder), console=console, transient=True)


def _positions(folder: SliceFolder, rows: Sequence[int]) -> dict[str, NDArray]:
    which = np.array(rows, dtype=np.int64)
    unknown = np.full(len(folder), np.nan, dtype=np.float32)
    level_mm = unknown if folder.level_mm is None else folder.level_mm
    return {"index": folder.index[which], "p": folder.p[which], "level_mm": level_mm[which]}


def _people(folder: SliceFolder, rows: Sequence[int]) -> dict[str, NDArray]:
    return SubjectTable.of([folder.files[i].name for i in rows], [folder.subjects[i] for i in rows]).columns()


def problem_columns(problems: Sequence[Problem], dataroot: Path) -> dict[str, NDArray]:
    """Problems as columns, paths counted from `dataroot`."""
    paths = Texts.of([str(problem.path.relative_to(dataroot)) for problem in problems])
    reasons = Texts.of([problem.reason for problem in problems])
    return {**paths.columns("bad_paths"), **reasons.columns("bad_reasons")}
