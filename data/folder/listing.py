"""Which files of a folder are slices: told from names and links alone, before anything is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.folder.slices import SLICE_SUFFIXES
from util.errors import UserError
from util.problems import Problem
from util.reading import lies_in

MAX_NAME_BYTES = 240  # of 255: `_fake_B.png` takes the suffix's place


@dataclass(frozen=True)
class Listing:
    """Slices of one folder.

    files: in file-name order; no two differ in their suffix, or in upper and lower case, alone.
    problems: what is named like a slice and cannot be one.
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
        """Names without suffix of all that is named like a slice."""
        return frozenset(path.stem for path in (*self.files, *self.refused))


def list_slices(folder: Path, dataroot: Path) -> Listing:
    """List `folder`, which belongs to `dataroot`. Other suffixes, and hidden files, are no slices.

    The folder itself may be a link to anywhere; files in it may be links that stay in it or in `dataroot`.
    Raises: UserError if the folder cannot be listed.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    owners: dict[str, str] = {}  # name without suffix, in lower case -> file
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
            reason = f"the same name as {other} but for its suffix or for upper and lower case, keep one of them"
        if reason is None:
            files.append(path)
        else:
            problems.append(Problem(path, reason))
    return Listing(folder, files, problems)


def _refusal(entry: os.DirEntry[str], path: Path, dataroot: Path) -> str | None:
    """Why an entry named like a slice is none."""
    if len(os.fsencode(entry.name)) > MAX_NAME_BYTES:
        return f"its name is longer than {MAX_NAME_BYTES} bytes, results could not be named after it"
    if not entry.name.isprintable():
        return "its name holds characters that cannot be printed, rename it"
    if not entry.is_symlink():
        return None if entry.is_file() else "a folder, pipe or device, need a file"
    if not (lies_in(path, dataroot) or lies_in(path, path.parent)):
        return "a link that leads out of the data folder; copy the file, or let the whole folder be a link"
    try:
        return None if entry.is_file() else "a link that leads to no file"
    except OSError:  # a circle
        return "a link that leads to no file"
