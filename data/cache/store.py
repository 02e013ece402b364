"""Tables on disk that are whole or not there: columns as `.npy` files, read through memory maps, and one large file.

`NAME.json` names the folder `NAME-TOKEN` that holds them. A folder is written under a temporary name, synced, renamed,
and never changed afterwards; the header then takes the place of the one before. Whoever reads meanwhile sees either
the old tables or the new ones.
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

FORMAT = 1
DATA_NAME = "slices.bin"

Columns = Mapping[str, NDArray]


class Texts(Sequence[str]):
    """Texts end to end in one array, decoded one at a time: a million names are no million Python objects.

    data: (bytes,) uint8, UTF-8. ends: (N,) int64, where each text ends.
    """

    def __init__(self, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]  # names need not be Unicode
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    @classmethod
    def within(cls, columns: Columns, name: str) -> Texts:
        """The texts that `columns` keeps under `name`."""
        return cls(columns[name], columns[f"{name}_end"])

    def columns(self, name: str) -> dict[str, NDArray]:
        """As columns of a table."""
        return {name: self.data, f"{name}_end": self.ends}

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
    """`NAME.json`. checksums: CRC-32 of each column. facts: what the tables were made from, see `slice_cache`."""

    format: int
    byteorder: str
    folder: str
    data_bytes: int
    checksums: dict[str, Any]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """The tables called `name` in the folder `root`."""

    root: Path
    name: str

    def read(self, dtypes: Mapping[str, type[np.generic]]) -> tuple[Header, Columns, NDArray[np.uint8]] | None:
        """Header, columns and large file as (bytes,) uint8, mapped; None if absent, damaged or of another format.

        Args: dtypes: the columns there must be, each of one dimension.
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
            return None  # whatever the damage is, what was there is made anew
        for name, dtype in dtypes.items():
            column = columns[name]
            if column.dtype != dtype or column.ndim != 1 or header.checksums.get(name) != _checksum(column):
                return None
        return header, columns, data

    @contextmanager
    def building(self) -> Iterator[Path]:
        """A new folder for `publish`; removed if it is not published. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.root / f"{self.name}-{secrets.token_hex(4)}{PART}"
        part.mkdir()
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def publish(self, part: Path, columns: Columns, facts: Mapping[str, Any]) -> None:
        """Write `columns` beside the large file, if any, in `part`, and make it what `read` reads. Raises OSError."""
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
        """Remove every folder of these tables but the one in use. Only while nobody else builds."""
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
