"""Files that cannot be used, with reasons: summarised in one sentence, listed in a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from util.errors import UserError, printable
from util.files import replace_text

BAD_FILES_NAME = "bad_files.csv"
IN_SENTENCE = 3  # problems named in a sentence; further ones are counted


@dataclass(frozen=True)
class Problem:
    """One bad file; `reason` does not repeat the path.

    anonymous: what a manifest says of it, where path or reason may name a person; empty: both.
    """

    path: Path
    reason: str
    anonymous: str = ""

    @classmethod
    def of(cls, path: Path, error: UserError) -> Problem:
        """The problem of `path` that `error` describes."""
        return cls(path, str(error).removeprefix(printable(f"{path}: ")))

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.reason}")


def listed(problems: Sequence[Problem]) -> str:
    """The first few problems for a sentence: `a.nii: truncated; b.nii: 4-D (and 7 more)`."""
    more = len(problems) - IN_SENTENCE
    return "; ".join(map(str, problems[:IN_SENTENCE])) + (f" (and {more} more)" if more > 0 else "")


def as_rows(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """The problems as listed in run.json and metrics.json."""
    return [{"path": printable(str(problem.path)), "reason": problem.reason} for problem in problems]


def write_problems(file: Path, problems: Sequence[Problem]) -> None:
    """Write a CSV table with columns path and reason. Raises OSError."""
    with replace_text(file) as text:
        rows = csv.writer(text)
        rows.writerow(("path", "reason"))
        rows.writerows((printable(str(problem.path)), problem.reason) for problem in problems)
