"""Tables on disk, replaced atomically: columns as memory-mapped `.npy` files, and one large binary file.

`NAME.json` names the folder `NAME-TOKEN` of the tables. A folder is written under a temporary name, synced, renamed,
and never changed afterwards; then the new header replaces the old one. Readers see the old tables or the new ones.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from util.errors import UserError
from util.files import PART, replace_text, sync_folder
from util.reading import read_json, structured

FORMAT = 2  # 1: subjects were keyed by name, not by person
DATA_NAME = "slices.bin"

Columns = Mapping[str, NDArray]


class Texts(Sequence[str]):
    """Concatenated strings in one array, decoded one at a time: a million names without a million Python objects.

    data: (bytes,) uint8, UTF-8. ends: (N,) int64 end of each string.
    """

    def __init__(self, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]  # names need not be Unicode
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    @classmethod
    def from_columns(cls, columns: Columns, name: str) -> Texts:
        """The inverse of `columns`."""
        return cls(columns[name], columns[f"{name}_end"])

    def columns(self, name: str) -> dict[str, NDArray]:
        """Columns `NAME` and `NAME_end` of a table."""
        return {name: self.data, f"{name}_end": self.ends}

    def contiguous(self) -> bool:
        """Whether the strings follow each other and fill their array."""
        ends = self.ends
        return bool(not len(ends) or (ends[0] >= 0 and (np.diff(ends) >= 0).all() and ends[-1] == len(self.data)))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        start = 0 if i % len(self) == 0 else int(self.ends[i % len(self) - 1])
        return self.data[start : int(self.ends[i])].tobytes().decode("utf-8", "surrogatepass")


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`NAME.json`. checksums: CRC-32 of each column. facts: the source of the tables, see `slice_cache`."""

    format: int
    byteorder: str
    folder: str
    data_bytes: int
    checksums: dict[str, Any]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """The tables named `name` in the folder `root`."""

    root: Path
    name: str

    def read(self, dtypes: Mapping[str, type[np.generic]]) -> tuple[Header, Columns, NDArray[np.uint8]] | None:
        """Header, columns and large file (bytes,) uint8, memory-mapped; None if absent, damaged or of another format.

        Args: dtypes: the required columns, each of one dimension.
        """
        path = self.root / f"{self.name}.json"
        try:
            header = structured(Header, read_json(path))
            if (header.format, header.byteorder) != (FORMAT, sys.byteorder):
                return None
            if Path(header.folder).name != header.folder or not header.folder.startswith(f"{self.name}-"):
                return None
            folder = self.root / header.folder
            columns = {name: _mapped(folder / f"{name}.npy") for name in dtypes}
            data = _mapped_bytes(folder / DATA_NAME, header.data_bytes)
        except (UserError, OSError, ValueError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None  # damaged in any way: the tables are rebuilt
        for name, dtype in dtypes.items():
            column = columns[name]
            if column.dtype != dtype or column.ndim != 1 or header.checksums.get(name) != _checksum(column):
                return None
        return header, columns, data

    @contextmanager
    def building(self) -> Iterator[Path]:
        """A new folder for `publish`, removed unless it is published. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.root / f"{self.name}-{secrets.token_hex(4)}{PART}"
        part.mkdir()
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def publish(self, part: Path, columns: Columns, facts: Mapping[str, Any]) -> None:
        """Write `columns` beside the large file in `part`, and make this folder the current one. Raises OSError."""
        data = part / DATA_NAME
        if not data.exists():
            data.touch()
        for name, column in columns.items():
            with (part / f"{name}.npy").open("wb") as file:
                np.save(file, np.ascontiguousarray(column), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(part)
        final = part.with_name(part.name.removesuffix(PART))
        checksums = {name: _checksum(np.ascontiguousarray(column)) for name, column in columns.items()}
        header = Header(FORMAT, sys.byteorder, final.name, data.stat().st_size, checksums, dict(facts))
        part.rename(final)
        with replace_text(self.root / f"{self.name}.json") as text:
            json.dump(msgspec.to_builtins(header), text, indent=1)

    def tidy(self) -> None:
        """Remove all folders of these tables except the current one. Only safe while no other process builds."""
        try:
            used = structured(Header, read_json(self.root / f"{self.name}.json")).folder
        except (UserError, ValueError):
            return
        for path in self.root.glob(f"{self.name}-*"):
            if path.name != used:
                shutil.rmtree(path, ignore_errors=True)


def _mapped(path: Path) -> NDArray:
    if not path.is_file():
        raise FileNotFoundError(path)
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _mapped_bytes(path: Path, size: int) -> NDArray[np.uint8]:
    if not path.is_file() or path.stat().st_size != size:
        raise ValueError(f"{path}: need {size} bytes")
    return np.asarray(np.memmap(path, np.uint8, "r")) if size else np.empty(0, np.uint8)


def _checksum(column: NDArray) -> int:
    return zlib.crc32(column.view(np.uint8).data) if column.size else 0
