"""Read untrusted files: opened without blocking, read within bounds, checked against a structure."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import msgspec

from util.errors import UserError

T = TypeVar("T")

MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_VALUES = 2_000_000  # strings, numbers, lists and objects; they take less than 1 GB and 5 s


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; a pipe or device is refused, as it could block forever.

    Raises: UserError if it is not a regular file; OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: cannot be read, it is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def lies_in(path: Path, folder: Path) -> bool:
    """Whether `path` is in `folder` or below it once all links are resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises: UserError naming the file if it is larger, not a regular file, or cannot be read.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise UserError(f"{path}: {size} bytes, at most {most} are allowed")
            return file.read(size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8; NaN and Infinity, which are not JSON, are refused.

    Raises: UserError naming the file if it cannot be read, is too large, or is not JSON.
    """
    content = _bounded_json(path, MAX_JSON_BYTES, MAX_JSON_VALUES)
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from error


def read_structure(path: Path, kind: type[T], *, most_bytes: int, most_values: int) -> T:
    """The content of a JSON file in UTF-8 as `kind`, a msgspec.Struct, decoded without intermediate dicts.

    Raises: UserError as `read_json`; also naming the file and the field that does not fit.
    """
    content = _bounded_json(path, most_bytes, most_values)
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {_placed(error)}") from error
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from error


def structured(kind: type[T], value: Any) -> T:
    """A value of `read_json` as `kind`, a msgspec.Struct. Raises ValueError naming the field that does not fit."""
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(_placed(error)) from error


def _bounded_json(path: Path, most_bytes: int, most_values: int) -> bytes:
    content = read_bounded(path, most_bytes)
    if sum(map(content.count, (b",", b"[", b"{"))) > most_values:
        raise UserError(f"{path}: more than {most_values} values")
    if content.count(b":") > most_values * 3 // 4:  # distinct names take twice the memory of values
        raise UserError(f"{path}: more than {most_values * 3 // 4} named values")
    if len(content) > MAX_JSON_BYTES and not content.isascii():  # one emoji quadruples the memory of the text
        raise UserError(
            f"{path}: {len(content)} bytes, beyond {MAX_JSON_BYTES} only ASCII is allowed (\\u for the rest)"
        )
    return content


def _placed(error: msgspec.ValidationError) -> str:
    """`volumes[3].p: expected float, got str` for msgspec's `Expected float, got str - at $.volumes[3].p`."""
    what, _, place = str(error).partition(" - at `$")
    what = f"{what[:1].lower()}{what[1:120]}"
    return f"{place.strip('.`')}: {what}" if place else what


def _not_json(path: Path, error: Exception) -> UserError:
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"{path}: not UTF-8 text (at byte {error.start})")
    if isinstance(error, RecursionError):
        return UserError(f"{path}: nested too deeply")
    return UserError(f"{path}: not JSON ({error})")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
