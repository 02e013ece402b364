"""Files that cannot be used, and why: found all at once, told in one sentence, listed in a table that can be sorted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from util.errors import UserError, printable
from util.files import replace_text

BAD_FILES_NAME = "bad_files.csv"
IN_SENTENCE = 3  # problems that a sentence names; further ones are counted


@dataclass(frozen=True)
class Problem:
    """One bad file; `reason` does not repeat the path."""

    path: Path
    reason: str

    @classmethod
    def of(cls, path: Path, error: UserError) -> Problem:
        """What `error` says of `path`."""
        return cls(path, str(error).removeprefix(printable(f"{path}: ")))

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.reason}")


def listed(problems: Sequence[Problem]) -> str:
    """The first few for a sentence: `a.nii: truncated; b.nii: 4-D (and 7 more)`."""
    more = len(problems) - IN_SENTENCE
    return "; ".join(map(str, problems[:IN_SENTENCE])) + (f" (and {more} more)" if more > 0 else "")


def as_rows(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """As run.json and metrics.json keep what was left out."""
    return [{"path": printable(str(problem.path)), "reason": problem.reason} for problem in problems]


def write_problems(file: Path, problems: Sequence[Problem]) -> None:
    """Write columns path and reason; of no problems, the header alone. Raises OSError."""
    with replace_text(file) as text:
        rows = csv.writer(text)
        rows.writerow(("path", "reason"))
        rows.writerows((printable(str(problem.path)), problem.reason) for problem in problems)
