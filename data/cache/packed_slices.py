"""The cached slices of one split and domain, which training reads without a Python object per slice."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.cache.pack import COLUMNS, Pack
from data.cache.store import Store
from data.folder.slices import as_image
from util.errors import UserError
from util.problems import Problem


class PackedSlices:
    """The usable slices of a split (train, val, test) and domain (A, B), sorted by file name.

    Attributes:
        pack: all usable slices of the folder; `indices`: (N,) int64 positions of these slices in it, None for all.
        folder: the folder of the files. domain: A or B.
        has_manifest: whether subjects and positions come from a manifest.

    Args:
        store: where the pack is stored, so that worker processes can open it.
        digest: SHA-256 over names and content of the pack.
    """

    def __init__(self, store: Store, pack: Pack, folder: Path, *, domain: str, digest: str, has_manifest: bool) -> None:
        self.store, self.pack, self.folder, self.domain = store, pack, folder, domain
        self.digest, self.has_manifest = digest, has_manifest
        self.indices: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.pack.p if self.indices is None else self.indices)

    def __getstate__(self) -> dict[str, object]:
        """Without the memory maps: pickling them would copy all slices."""
        return {**self.__dict__, "pack": None, "dataroot": self.folder.parent}

    def __setstate__(self, state: dict[str, object]) -> None:
        dataroot = state.pop("dataroot")
        self.__dict__.update(state)
        found = self.store.read(COLUMNS)
        pack = None if found is None else Pack.from_columns(found[1], found[2], Path(str(dataroot)))
        if found is None or pack is None or found[0].facts.get("digest") != self.digest:
            raise UserError(f"{self.store.root}: another run has rebuilt the cache; start this run again")
        self.pack = pack

    @property
    def problems(self) -> list[Problem]:
        """Problems of the folder and of the slices left out of the pack."""
        return self.pack.problems

    @property
    def p(self) -> NDArray[np.float32]:
        """(N,) relative level in [0, 1]."""
        return self._selected(self.pack.p)

    @property
    def index(self) -> NDArray[np.int64]:
        """(N,) slice number within its volume."""
        return self._selected(self.pack.index)

    @property
    def volume(self) -> NDArray[np.int64]:
        """(N,) number of each slice's subject: 0, 1, ... in alphabetical order, without gaps."""
        subject = self._selected(self.pack.subjects.subject)
        if self.indices is None:
            return subject.astype(np.int64)
        return np.unique(subject, return_inverse=True)[1].astype(np.int64)

    @property
    def shapes(self) -> NDArray[np.int64]:
        """(N, 2) height and width."""
        sides = self._selected(self.pack.height), self._selected(self.pack.width)
        return np.stack(sides, axis=1).astype(np.int64)

    def _selected(self, column: NDArray) -> NDArray:
        return column if self.indices is None else column[self.indices]

    def pack_index(self, i: int) -> int:
        """Position of slice i in the pack."""
        return i if self.indices is None else int(self.indices[i])

    def name(self, i: int) -> str:
        """File name of slice i."""
        return self.pack.subjects.names[self.pack_index(i)]

    def image(self, i: int) -> NDArray[np.float32]:
        """Slice i, (H, W) in [0, 1], equal to `read_image` of its file."""
        return as_image(self.pack.pixels(self.pack_index(i)))

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Foreground of slice i, (H, W), equal to `read_mask` of its mask file, or computed if there was none."""
        return self.pack.mask(self.pack_index(i))

    def shape(self, i: int) -> tuple[int, int]:
        """(H, W) of slice i."""
        k = self.pack_index(i)
        return int(self.pack.height[k]), int(self.pack.width[k])

    def gather(self, indices: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray, NDArray[np.uint8]]]:
        """Copies of the slices `indices`, (n,), grouped by size and type.

        Returns: for each group its positions in `indices`, its pixels (m, H, W), its masks as bits (m, bytes).
        """
        chosen = indices if self.indices is None else self.indices[indices]
        height, width, kind = self.pack.height[chosen], self.pack.width[chosen], self.pack.kind[chosen]
        size_and_type = (height.astype(np.int64) << 32) | (width.astype(np.int64) << 8) | kind
        groups = []
        for value in np.unique(size_and_type):
            positions = np.flatnonzero(size_and_type == value)
            members = chosen[positions].tolist()
            pixels, bits = ([read(k) for k in members] for read in (self.pack.pixels, self.pack.bits))
            groups.append((positions, np.stack(pixels), np.stack(bits)))
        return groups

    def fingerprint(self) -> str:
        """SHA-256 over the pack's digest and the selection of slices."""
        selection = b"" if self.indices is None else np.ascontiguousarray(self.indices, "<i8").tobytes()
        return hashlib.sha256(self.digest.encode() + selection).hexdigest()

    def truncate(self, count: int | None) -> None:
        """Keep only the first `count` slices; None: all."""
        if count is not None and count < len(self):
            self.indices = np.arange(len(self))[:count] if self.indices is None else self.indices[:count]

    def exclude(self, problems: Iterable[Problem]) -> None:
        """Drop the slices named by `problems`; the pack does not hold those of `self.problems` anyway.

        Raises: UserError if no slice is left.
        """
        names = self.pack.subjects.names
        wanted = sorted({problem.path.name for problem in problems if problem.path.parent == self.folder})
        bad = [k for name in wanted if (k := bisect_left(names, name)) < len(names) and names[k] == name]
        if bad:
            indices = np.arange(len(names)) if self.indices is None else self.indices
            self.indices = indices[~np.isin(indices, bad)]
        if not len(self):
            raise UserError(f"{self.folder}: no slice can be used, need at least one")
