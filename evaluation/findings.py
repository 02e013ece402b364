"""The findings for each subject, and how those of several processes are merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from evaluation.level_error import LevelledSlices
from evaluation.protocols.base import Part
from evaluation.record import Scores
from evaluation.slice_scores import SliceScores
from evaluation.trust.scores import TrustScores
from evaluation.unpaired import ROWS, SubjectSet

T = TypeVar("T")
Rows = dict[str, dict[str, T]]  # row -> subject -> finding


@dataclass
class Findings:
    """Measures and embeddings of the subjects that a process has tested, without images.

    scores: rows fake_B and the baselines. sets: rows fake_B, real_B and identity. levels: rows low and high (field).
    slices: row fake_B, what is measured of every slice.
    trust: row fake_B, how well the trust map finds the true error; empty without --trust.
    protocol: rows fake_B, the baselines and real_B, what the published protocol keeps; empty without --protocol.
    n_volumes: number of volumes written. incomplete: subjects of which slices are missing, and how many there are.
    """

    scores: Rows[Scores] = field(default_factory=dict)
    sets: Rows[SubjectSet] = field(default_factory=lambda: {row: {} for row in ROWS})
    levels: Rows[LevelledSlices] = field(default_factory=lambda: {side: {} for side in ("low", "high")})
    slices: Rows[SliceScores] = field(default_factory=lambda: {"fake_B": {}})
    n_volumes: int = 0
    incomplete: Rows[str] = field(default_factory=lambda: {"fake_B": {}})
    trust: Rows[TrustScores] = field(default_factory=lambda: {"fake_B": {}})
    protocol: Rows[Part] = field(default_factory=dict)

    @classmethod
    def merged(cls, parts: Sequence[Findings], order: Callable[[str], Iterable[str]]) -> Findings:
        """The union of all parts; the subjects of a row are in the order `order(row)`."""
        return cls(
            _merged([part.scores for part in parts], order),
            _merged([part.sets for part in parts], order),
            _merged([part.levels for part in parts], order),
            _merged([part.slices for part in parts], order),
            sum(part.n_volumes for part in parts),
            _merged([part.incomplete for part in parts], order),
            _merged([part.trust for part in parts], order),
            _merged([part.protocol for part in parts], order),
        )


def _merged(parts: Sequence[Rows[T]], order: Callable[[str], Iterable[str]]) -> Rows[T]:
    rows: Rows[T] = {}
    for part in parts:
        for row, subjects in part.items():
            rows.setdefault(row, {}).update(subjects)
    return {row: {name: found[name] for name in order(row) if name in found} for row, found in rows.items()}
