"""What is found of the subjects one by one, and how the processes' findings become those of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from evaluation.level_error import LevelledSlices
from evaluation.record import Scores
from evaluation.unpaired import ROWS, SubjectSet

T = TypeVar("T")
Rows = dict[str, dict[str, T]]  # row -> subject -> what is known of it


@dataclass
class Findings:
    """Of the subjects that a process has dealt with: numbers and embeddings, no images.

    scores: of the rows fake_B and the baselines. sets: of the rows fake_B, real_B and identity. levels: of the sides
    low and high. n_volumes: volumes written.
    """

    scores: Rows[Scores] = field(default_factory=dict)
    sets: Rows[SubjectSet] = field(default_factory=lambda: {row: {} for row in ROWS})
    levels: Rows[LevelledSlices] = field(default_factory=lambda: {side: {} for side in ("low", "high")})
    n_volumes: int = 0

    @classmethod
    def merged(cls, parts: Sequence[Findings], order: Callable[[str], Iterable[str]]) -> Findings:
        """All parts as one; a row's subjects are in `order(row)`, whoever found them."""
        return cls(
            _merged([part.scores for part in parts], order),
            _merged([part.sets for part in parts], order),
            _merged([part.levels for part in parts], order),
            sum(part.n_volumes for part in parts),
        )


def _merged(parts: Sequence[Rows[T]], order: Callable[[str], Iterable[str]]) -> Rows[T]:
    rows: Rows[T] = {}
    for part in parts:
        for row, subjects in part.items():
            rows.setdefault(row, {}).update(subjects)
    return {row: {name: found[name] for name in order(row) if name in found} for row, found in rows.items()}
