"""The slices of one split and domain out of the cache: what training reads, without a Python object a slice."""

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
    """Slices of `split` (train, val, test) and `domain` (A, B), in file-name order; bad ones are not among them.

    Attributes:
        pack: all slices of the folder that can be used; `rows`: (N,) int64 which of them these are, None: all.
        folder: where the files are. domain: A or B.
        has_manifest: whether subjects and positions come from a manifest.

    Args:
        store: where the pack is, for processes that have to open it again.
        digest: SHA-256 over names and content of the pack.
    """

    def __init__(self, store: Store, pack: Pack, folder: Path, *, domain: str, digest: str, has_manifest: bool) -> None:
        self.store, self.pack, self.folder, self.domain = store, pack, folder, domain
        self.digest, self.has_manifest = digest, has_manifest
        self.rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.pack.p if self.rows is None else self.rows)

    def __getstate__(self) -> dict[str, object]:
        """Without the maps, of which a copy would be all slices."""
        return {**self.__dict__, "pack": None, "dataroot": self.folder.parent}

    def __setstate__(self, state: dict[str, object]) -> None:
        dataroot = state.pop("dataroot")
        self.__dict__.update(state)
        found = self.store.read(COLUMNS)
        pack = None if found is None else Pack.within(found[1], found[2], Path(str(dataroot)))
        if found is None or pack is None or found[0].facts.get("digest") != self.digest:
            raise UserError(f"{self.store.root}: another run has built the cache anew; start this one again")
        self.pack = pack

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the files that are not among these slices, and by names alone."""
        return self.pack.problems

    @property
    def p(self) -> NDArray[np.float32]:
        """(N,) relative level in [0, 1]."""
        return self._of(self.pack.p)

    @property
    def index(self) -> NDArray[np.int64]:
        """(N,) slice number within its volume."""
        return self._of(self.pack.index)

    @property
    def volume(self) -> NDArray[np.int64]:
        """(N,) number of the subject whose slice it is: 0, 1, ... in alphabetical order, each one there."""
        subject = self._of(self.pack.people.subject)
        if self.rows is None:
            return subject.astype(np.int64)
        return np.unique(subject, return_inverse=True)[1].astype(np.int64)

    @property
    def shapes(self) -> NDArray[np.int64]:
        """(N, 2) height and width."""
        sides = self._of(self.pack.height), self._of(self.pack.width)
        return np.stack(sides, axis=1).astype(np.int64)

    def _of(self, column: NDArray) -> NDArray:
        return column if self.rows is None else column[self.rows]

    def row(self, i: int) -> int:
        """Which slice of the pack slice i is."""
        return i if self.rows is None else int(self.rows[i])

    def name(self, i: int) -> str:
        """File name of slice i."""
        return self.pack.people.names[self.row(i)]

    def image(self, i: int) -> NDArray[np.float32]:
        """Slice i, (H, W) in [0, 1]: what `read_image` gives for its file."""
        return as_image(self.pack.pixels(self.row(i)))

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Foreground of slice i, (H, W): what `read_mask` gives for its mask file, computed where there was none."""
        return self.pack.mask(self.row(i))

    def shape(self, i: int) -> tuple[int, int]:
        """(H, W) of slice i."""
        row = self.row(i)
        return int(self.pack.height[row]), int(self.pack.width[row])

    def gather(self, wanted: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray, NDArray[np.uint8]]]:
        """Copies of the slices `wanted`, (n,), those of one size and type together.

        Returns: for each such group its places in `wanted`, its pixels (m, H, W), its masks as bits (m, bytes).
        """
        rows = wanted if self.rows is None else self.rows[wanted]
        pack = self.pack
        form = (pack.height[rows].astype(np.int64) << 32) | (pack.width[rows].astype(np.int64) << 8) | pack.kind[rows]
        groups = []
        for each in np.unique(form):
            places = np.flatnonzero(form == each)
            mine = rows[places].tolist()
            pixels, bits = ([read(row) for row in mine] for read in (pack.pixels, pack.bits))
            groups.append((places, np.stack(pixels), np.stack(bits)))
        return groups

    def fingerprint(self) -> str:
        """SHA-256 of which slices these are and what they show: found when the pack was built."""
        chosen = b"" if self.rows is None else np.ascontiguousarray(self.rows, "<i8").tobytes()
        return hashlib.sha256(self.digest.encode() + chosen).hexdigest()

    def keep_first(self, count: int | None) -> None:
        """Go on with the first so many alone."""
        if count is not None and count < len(self):
            self.rows = np.arange(len(self))[:count] if self.rows is None else self.rows[:count]

    def leave_out(self, problems: Iterable[Problem]) -> None:
        """Go on without the slices that `problems` name; those with `self.problems` are not among them anyway.

        Raises: UserError if none is left.
        """
        names = self.pack.people.names
        wanted = sorted({problem.path.name for problem in problems if problem.path.parent == self.folder})
        found = [row for name in wanted if (row := bisect_left(names, name)) < len(names) and names[row] == name]
        if found:
            rows = np.arange(len(names)) if self.rows is None else self.rows
            self.rows = rows[~np.isin(rows, found)]
        if not len(self):
            raise UserError(f"{self.folder}: no slice can be used, need at least one")
