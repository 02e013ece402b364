"""Atomic replacement of files: written under a temporary name, synced to disk, then renamed."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

Writer = Callable[[BinaryIO], object]
PART = ".part"  # suffix of files that are still being written


@contextmanager
def replace_text(path: Path) -> Iterator[TextIO]:
    """Open a text file (UTF-8, newlines as written) that replaces `path` if the block ends without an error.

    Bytes of file names that are not UTF-8, as Python reads them, are written as `\\udcff` and the like.
    """
    text = io.StringIO(newline="")
    yield text
    replace_files({path: lambda file: file.write(text.getvalue().encode("utf-8", "backslashreplace"))})


def replace_files(writers: Mapping[Path, Writer], keep: Mapping[Path, Path] | None = None) -> None:
    """Write files of one folder so that an interruption leaves each of them complete, either old or new.

    All are written and synced under temporary names before the first is renamed, so a full disk changes nothing.

    Args:
        writers: file -> function that writes its content to an open binary file.
        keep: file -> name under which its previous content is kept.
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
    """Hard-link the file at `path` to `name`, or rename it if the file system has no hard links."""
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
        _remove(part)  # renaming a link over another link to the same file leaves both


def sync_folder(folder: Path) -> None:
    """Sync the folder's entries to disk, if its file system supports it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _remove(part: Path) -> None:
    with suppress(OSError):  # leftovers are removed at the next start of the run
        part.unlink(missing_ok=True)
