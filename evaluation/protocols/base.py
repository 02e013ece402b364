"""What all published protocols share: numbers of each subject, then means over what the published code averages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.record import Record
from evaluation.subjects import SubjectSlices

Floats = NDArray[np.float32]
Parts = Mapping[str, "Part"]  # subject -> what is kept of it
NO_TRUTH = "no truth to compare with"


@dataclass(frozen=True)
class Part:
    """What is kept of one subject's slices, without images but two.

    values: measure -> the numbers that its mean is taken over, one a volume or one a slice; those that could not be had
    are left out. inception: features of successive batches, see `FIDInception`. ends: the first and the last slice in
    the order of file names (h, w), for measures between subjects.
    """

    values: Mapping[str, list[float]] = field(default_factory=dict)
    inception: list[torch.Tensor] = field(default_factory=list)
    ends: tuple[Floats, Floats] | None = None


class Protocol(ABC):
    """A published way to score a synthesis.

    name: what `--protocol` calls it. title: whose it is. measures: in the order of the tables; a name that ends in
    `_sd` is the spread of another. definitions: one sentence a measure. why_none: reason where a measure does not exist
    for any subject. needs_truth: whether nothing can be scored without a truth.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    measures: ClassVar[tuple[str, ...]]
    definitions: ClassVar[Mapping[str, str]]
    why_none: ClassVar[Mapping[str, str]]
    needs_truth: ClassVar[bool] = True

    @abstractmethod
    def part(self, slices: Floats, volume: SubjectSlices) -> Part:
        """What is kept of one row of one subject.

        Args: slices: (S, H, W) float32 in [0, 1], a synthesis or a baseline. volume: the subject, with its truth.
        """

    def real(self, slices: Floats) -> Part:
        """What is kept of the real target slices (S, H, W) of one subject."""
        return Part()

    def summarise(self, record: Record, rows: Mapping[str, Parts]) -> None:
        """Write the section `protocol` into the record.

        Args: rows: `fake_B` and the baselines, and `real_B`, the real target slices.
        """
        record.put("protocol", "name", value=self.name)
        for row, parts in rows.items():
            if row != "real_B":
                for measure, value in self.scores(parts, rows.get("real_B", {})).items():
                    if isinstance(value, str):
                        record.null("protocol", "scores", row, measure, why=value)
                    else:
                        record.put("protocol", "scores", row, measure, value=value)

    def scores(self, parts: Parts, real: Parts) -> dict[str, float | str]:
        """The measures of one row, in order; in place of a number that cannot be had, the reason."""
        return {name: self._mean(name, parts) for name in self.measures}

    def _mean(self, name: str, parts: Parts) -> float | str:
        measure = name.removesuffix("_sd")
        found = [value for part in parts.values() for value in part.values.get(measure, ())]
        summary: Callable[[list[float]], float] = np.std if name != measure else np.mean
        return float(summary(found)) if found else self.why_none[measure]
