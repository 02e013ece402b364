"""Read untrusted files: opened without blocking, read within bounds."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from util.errors import UserError

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


def read_json(
    path: Path,
    *,
    most_bytes: int = MAX_JSON_BYTES,
    most_values: int = MAX_JSON_VALUES,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
) -> Any:
    """The content of a JSON file in UTF-8; NaN and Infinity, which are not JSON, are refused.

    Args: object_hook: converts each object, inner ones first.
    Raises: UserError naming the file if it cannot be read, is too large, or is not JSON.
    """
    content = read_bounded(path, most_bytes)
    if sum(map(content.count, (b",", b"[", b"{"))) > most_values:
        raise UserError(f"{path}: more than {most_values} values")
    if content.count(b":") > most_values * 3 // 4:  # distinct names take twice the memory of values
        raise UserError(f"{path}: more than {most_values * 3 // 4} named values")
    if len(content) > MAX_JSON_BYTES and not content.isascii():  # one emoji quadruples the memory of the text
        raise UserError(
            f"{path}: {len(content)} bytes, beyond {MAX_JSON_BYTES} only ASCII is allowed (\\u for the rest)"
        )
    try:
        text = content.decode("utf-8")
        del content
        return json.loads(text, parse_constant=_no_number, object_hook=object_hook)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (at byte {error.start})") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
