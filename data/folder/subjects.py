"""Who is in which slice folder, as arrays, and who is in two splits: told from names alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.cache.store import Columns, Texts
from data.folder.slices import has_subject
from util.problems import Problem

COLUMNS: dict[str, type[np.generic]] = {
    "names": np.uint8,
    "names_end": np.int64,
    "subjects": np.uint8,
    "subjects_end": np.int64,
    "subject": np.int32,
    "named": np.bool_,
    "key": np.uint64,
}


@dataclass(frozen=True)
class SubjectTable:
    """N slices of S subjects.

    names: N file names, in order. subjects: S names, in order.
    subject: (N,) int32, whose slice it is. named: (N,) whether the file name says so.
    key: (S,) uint64, equal for names that differ in upper and lower case alone.
    """

    names: Sequence[str]
    subjects: Sequence[str]
    subject: NDArray[np.int32]
    named: NDArray[np.bool_]
    key: NDArray[np.uint64]

    @classmethod
    def of(cls, names: Sequence[str], subject_names: Sequence[str]) -> SubjectTable:
        """Args: names: file name of every slice; subject_names: subject of every slice."""
        subjects = sorted(set(subject_names))
        number = {subject: i for i, subject in enumerate(subjects)}
        return cls(
            names,
            subjects,
            np.array([number[subject] for subject in subject_names], dtype=np.int32),
            np.array([has_subject(Path(name).stem) for name in names], dtype=np.bool_),
            np.array([_key(subject) for subject in subjects], dtype=np.uint64),
        )

    @classmethod
    def within(cls, columns: Columns) -> SubjectTable | None:
        """The table that `columns` hold; None if they contradict each other."""
        names, subjects = Texts.within(columns, "names"), Texts.within(columns, "subjects")
        table = cls(names, subjects, columns["subject"], columns["named"], columns["key"])
        fits = _are_ends(names) and _are_ends(subjects) and len(table.key) == len(subjects)
        fits = fits and len(table.subject) == len(table.named) == len(names)
        fits = fits and (not len(names) or 0 <= table.subject.min() <= table.subject.max() < len(subjects))
        return table if fits else None

    def columns(self) -> dict[str, NDArray]:
        """As `within` takes them."""
        names, subjects = Texts.of(self.names).columns("names"), Texts.of(self.subjects).columns("subjects")
        return {**names, **subjects, "subject": self.subject, "named": self.named, "key": self.key}


@dataclass(frozen=True)
class FolderSubjects:
    """The subjects of one slice folder; `known`: a manifest names them."""

    folder: Path
    split: str
    table: SubjectTable
    known: bool


def shared_subjects(folders: Sequence[FolderSubjects]) -> list[Problem]:
    """Slices of subjects that an earlier split has too; `folders` in the order of splits. Case is ignored.

    Without a manifest, a name that stands alone in each folder that has it (`img_001`, `img_002`, ...) names nobody.
    """
    keys = [np.unique(folder.table.key) for folder in folders]
    empty = np.empty(0, np.uint64)
    somebody = [here for folder, here in zip(folders, keys, strict=True) if folder.known or len(here) > 1]
    people = np.unique(np.concatenate([empty, *somebody]))
    owned, owner = empty, np.empty(0, np.int64)  # keys in order, and the first folder that has each
    problems = []
    for place, folder in enumerate(folders):
        table = folder.table
        said = np.bincount(table.subject[table.named], minlength=len(table.key)) > 0
        here = np.intersect1d(table.key[said], people)
        at = np.searchsorted(owned, here)
        old = at < len(owned)
        old[old] = owned[at[old]] == here[old]
        first = owner[at[old]]
        elsewhere = np.array([folders[i].split != folder.split for i in range(place)], dtype=np.bool_)
        if len(first) and (leaked := elsewhere[first]).any():
            owners = dict(zip(here[old][leaked].tolist(), first[leaked].tolist(), strict=True))
            problems += [_problem(folder, int(i), folders[owners[key]]) for i, key in _rows(table, owners)]
        owned, owner = _inserted(owned, owner, here[~old], place)
    return problems


def _rows(table: SubjectTable, owners: dict[int, int]) -> list[tuple[int, int]]:
    """Named slices, each with its key, of the keys in `owners`."""
    bad = np.isin(table.key, np.array(list(owners), dtype=np.uint64))
    rows = np.flatnonzero(bad[table.subject] & table.named)
    return list(zip(rows.tolist(), table.key[table.subject[rows]].tolist(), strict=True))


def _problem(folder: FolderSubjects, i: int, owner: FolderSubjects) -> Problem:
    subject = folder.table.subjects[int(folder.table.subject[i])]
    reason = f"subject '{subject}' is in {owner.folder.name} too; a subject belongs to one split"
    return Problem(folder.folder / folder.table.names[i], reason)


def _inserted(
    owned: NDArray[np.uint64], owner: NDArray[np.int64], new: NDArray[np.uint64], place: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    at = np.searchsorted(owned, new)
    return np.insert(owned, at, new), np.insert(owner, at, place)


def _key(subject: str) -> int:
    digest = hashlib.blake2b(subject.casefold().encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _are_ends(texts: Texts) -> bool:
    """Whether the texts lie one after the other and fill their array."""
    ends = texts.ends
    return bool(not len(ends) or (ends[0] >= 0 and (np.diff(ends) >= 0).all() and ends[-1] == len(texts.data)))
