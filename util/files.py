"""Files that are whole or not there: written beside their place, synced to the disk, then renamed into it."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

Writer = Callable[[BinaryIO], object]
PART = ".part"  # ends the names of files that are still being written


@contextmanager
def replace_text(path: Path) -> Iterator[TextIO]:
    """Open a text file (UTF-8, newlines as written) that takes `path`'s place when the block ends without an error."""
    text = io.StringIO(newline="")
    yield text
    replace_files({path: lambda file: file.write(text.getvalue().encode("utf-8"))})


def replace_files(writers: Mapping[Path, Writer], keep: Mapping[Path, Path] | None = None) -> None:
    """Write files of one folder so that whatever stops this leaves each of them whole, the old one or the new one.

    All are written and synced under temporary names before the first takes its place: a full disk changes nothing.

    Args:
        writers: file -> what writes its content into an open binary file.
        keep: file -> second name under which what it has held until now stays.
    Raises: OSError.
    """
    parts = {path: _part(path) for path in writers}
    try:
        for path, write in writers.items():
            with parts[path].open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        for path, name in (keep or {}).items():
            if path.exists():
                _keep_as(path, name)
        for path, part in parts.items():
            part.replace(path)
        for folder in {path.parent for path in writers}:
            sync_folder(folder)
    finally:
        for part in parts.values():
            _remove(part)


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _keep_as(path: Path, name: Path) -> None:
    """Give the file at `path` the name `name` too; that name alone where the file system has no hard links."""
    part = _part(name)
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:
        path.replace(name)
        return
    try:
        part.replace(name)
    finally:
        _remove(part)  # renaming one name of a file over another of its names leaves both


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable, where its file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _remove(part: Path) -> None:
    with suppress(OSError):  # what stays is removed at the run's next start
        part.unlink(missing_ok=True)
