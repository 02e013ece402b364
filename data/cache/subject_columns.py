"""The table of a folder's subjects as columns of the cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.cache.store import Columns, Texts
from data.folder.subjects import SubjectTable

SUBJECT_COLUMNS: dict[str, type[np.generic]] = {
    "names": np.uint8,
    "names_end": np.int64,
    "subjects": np.uint8,
    "subjects_end": np.int64,
    "subject": np.int32,
    "named": np.bool_,
    "key": np.uint64,
}


def subject_columns(table: SubjectTable) -> dict[str, NDArray]:
    """The columns of `table`, see `SUBJECT_COLUMNS`."""
    names, subjects = Texts.of(table.names).columns("names"), Texts.of(table.subjects).columns("subjects")
    return {**names, **subjects, "subject": table.subject, "named": table.named, "key": table.key}


def subjects_from(columns: Columns) -> SubjectTable | None:
    """The inverse of `subject_columns`; None if the columns contradict each other."""
    names, subjects = Texts.from_columns(columns, "names"), Texts.from_columns(columns, "subjects")
    table = SubjectTable(names, subjects, columns["subject"], columns["named"], columns["key"])
    fits = names.contiguous() and subjects.contiguous() and len(table.key) == len(subjects)
    fits = fits and len(table.subject) == len(table.named) == len(names)
    fits = fits and (not len(names) or 0 <= table.subject.min() <= table.subject.max() < len(subjects))
    return table if fits else None
