"""The subjects of slice folders as arrays, and people who are in two splits. Only names are read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.folder.people import person_of
from data.folder.slices import has_subject
from util.problems import Problem


@dataclass(frozen=True)
class SubjectTable:
    """N slices of S subjects.

    names: N file names, sorted. subjects: S subject names, sorted.
    subject: (N,) int32 position in `subjects`. named: (N,) whether the file name contains the subject.
    key: (S,) uint64, equal for subjects that are one person, whatever the case of the name.
    """

    names: Sequence[str]
    subjects: Sequence[str]
    subject: NDArray[np.int32]
    named: NDArray[np.bool_]
    key: NDArray[np.uint64]

    @classmethod
    def of(
        cls, names: Sequence[str], subject_names: Sequence[str], people: Mapping[str, str] | None = None
    ) -> SubjectTable:
        """Args: names, subject_names: file name and subject of each slice; people: by subject, else by its name."""
        subjects = sorted(set(subject_names))
        number = {subject: i for i, subject in enumerate(subjects)}
        return cls(
            names,
            subjects,
            np.array([number[subject] for subject in subject_names], dtype=np.int32),
            np.array([has_subject(Path(name).stem) for name in names], dtype=np.bool_),
            np.array([_key((people or {}).get(s) or person_of(s)) for s in subjects], dtype=np.uint64),
        )


@dataclass(frozen=True)
class FolderSubjects:
    """The subjects of one slice folder; `in_manifest`: they come from a manifest."""

    folder: Path
    split: str
    table: SubjectTable
    in_manifest: bool


def shared_subjects(folders: Sequence[FolderSubjects]) -> list[Problem]:
    """Slices of people who are in an earlier split too, ignoring case; `folders` in the order of splits.

    Without a manifest, a name that is the only one in every folder that has it (`img_001`, ...) is no subject.
    """
    keys = [np.unique(folder.table.key) for folder in folders]
    empty = np.empty(0, np.uint64)
    real = [here for folder, here in zip(folders, keys, strict=True) if folder.in_manifest or len(here) > 1]
    subjects = np.unique(np.concatenate([empty, *real]))
    seen, first_folder = empty, np.empty(0, np.int64)  # sorted keys, and the first folder of each
    problems = []
    for n, folder in enumerate(folders):
        table = folder.table
        named = np.bincount(table.subject[table.named], minlength=len(table.key)) > 0
        here = np.intersect1d(table.key[named], subjects)
        at = np.searchsorted(seen, here)
        known = at < len(seen)
        known[known] = seen[at[known]] == here[known]
        first = first_folder[at[known]]
        other_split = np.array([folders[i].split != folder.split for i in range(n)], dtype=np.bool_)
        if len(first) and (leaked := other_split[first]).any():
            firsts = dict(zip(here[known][leaked].tolist(), first[leaked].tolist(), strict=True))
            reasons: dict[int, str] = {}
            for i, key in _named_slices(table, firsts):
                s = int(table.subject[i])
                if s not in reasons:
                    reasons[s] = _reason(table.subjects[s], key, folders[firsts[key]])
                problems.append(Problem(folder.folder / table.names[i], reasons[s]))
        at = np.searchsorted(seen, here[~known])
        seen, first_folder = np.insert(seen, at, here[~known]), np.insert(first_folder, at, n)
    return problems


def _named_slices(table: SubjectTable, keys: Collection[int]) -> list[tuple[int, int]]:
    """Index and key of the slices whose file names contain a subject of `keys`."""
    wanted = np.isin(table.key, np.array(list(keys), dtype=np.uint64))
    indices = np.flatnonzero(wanted[table.subject] & table.named)
    return list(zip(indices.tolist(), table.key[table.subject[indices]].tolist(), strict=True))


def _reason(subject: str, key: int, first: FolderSubjects) -> str:
    """Why slices of `subject` are refused: the person `key` is in the folder `first` of an earlier split."""
    there = [first.table.subjects[s] for s in np.flatnonzero(first.table.key == np.uint64(key)).tolist()]
    if subject.casefold() in (name.casefold() for name in there):
        return f"subject '{subject}' is in {first.folder.name} too; a subject belongs to one split"
    return (
        f"subject '{subject}' is the same person as '{there[0]}' in {first.folder.name}, by its name or the manifest; "
        f"a person belongs to one split"
    )


def _key(person: str) -> int:
    digest = hashlib.blake2b(person.casefold().encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
