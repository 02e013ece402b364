"""Which files of a folder are slices, decided by names and links before any file is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.folder.slices import SLICE_SUFFIXES
from util.errors import UserError
from util.problems import Problem
from util.reading import lies_in

MAX_NAME_BYTES = 240  # file systems allow 255, and results are named `NAME_fake_B.png`


@dataclass(frozen=True)
class Listing:
    """The slices of one folder.

    files: sorted by name; no two names differ only in suffix or in case.
    problems: entries named like a slice that cannot be used as one.
    """

    folder: Path
    files: list[Path]
    problems: list[Problem]

    @cached_property
    def refused(self) -> frozenset[Path]:
        """Paths of the problems."""
        return frozenset(problem.path for problem in self.problems)

    @cached_property
    def stems(self) -> frozenset[str]:
        """Stems of all entries named like a slice, refused ones included."""
        return frozenset(path.stem for path in (*self.files, *self.refused))


def list_slices(folder: Path, dataroot: Path) -> Listing:
    """List the slices in `folder`, a folder of `dataroot`; hidden files and other suffixes are ignored.

    The folder may be a link to anywhere. Its files may be links only within the folder or `dataroot`.
    Raises: UserError if the folder cannot be listed.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    owners: dict[str, str] = {}  # stem in lower case -> file name
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error
    for entry in found:
        path = folder / entry.name
        if entry.name.startswith(".") or path.suffix.lower() not in SLICE_SUFFIXES:
            continue
        reason = _refusal(entry, path, dataroot)
        if reason is None and (other := owners.setdefault(path.stem.casefold(), entry.name)) != entry.name:
            reason = f"its name differs from {other} only in suffix or case, keep one of them"
        if reason is None:
            files.append(path)
        else:
            problems.append(Problem(path, reason))
    return Listing(folder, files, problems)


def _refusal(entry: os.DirEntry[str], path: Path, dataroot: Path) -> str | None:
    """The reason why an entry named like a slice cannot be used, or None."""
    if len(os.fsencode(entry.name)) > MAX_NAME_BYTES:
        return f"its name is longer than {MAX_NAME_BYTES} bytes, rename it"
    if not entry.name.isprintable():
        return "its name holds characters that cannot be printed, rename it"
    if not entry.is_symlink():
        return None if entry.is_file() else "a folder, pipe or device, need a regular file"
    if not (lies_in(path, dataroot) or lies_in(path, path.parent)):
        return "a link that leads out of the data folder; copy the file, or let the whole folder be a link"
    try:
        return None if entry.is_file() else "a link that leads to no file"
    except OSError:  # links in a circle
        return "a link that leads to no file"
