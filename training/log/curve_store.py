"""The curves of a run as a screen needs them: short however long the run is, and cheap to add to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from training.log.follower import Values

MOST_POINTS = 1000  # of a curve; then it is halved
Points = tuple[list[float], list[float]]  # steps and values


class Curve:
    """Values over steps. Each point is the mean of equally many values, so that at most MOST_POINTS are kept."""

    def __init__(self) -> None:
        self._steps: list[float] = []
        self._values: list[float] = []
        self._each = 1  # values a point
        self._waiting: list[tuple[float, float]] = []  # of the point that is not complete

    def add(self, step: float, value: float) -> None:
        """Add a value; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        self._waiting.append((step, value))
        if len(self._waiting) == self._each:
            step, value = _mean(self._waiting)
            self._steps.append(step)
            self._values.append(value)
            self._waiting = []
        if len(self._steps) == MOST_POINTS:
            pairs = list(zip(self._steps, self._values, strict=True))
            halved = [_mean(pairs[first : first + 2]) for first in range(0, MOST_POINTS, 2)]
            self._steps, self._values = [step for step, _ in halved], [value for _, value in halved]
            self._each *= 2

    def points(self) -> Points:
        """Copies of steps and values; the last point stands for the values that are not a whole point yet."""
        last = [_mean(self._waiting)] if self._waiting else []
        return [*self._steps, *(step for step, _ in last)], [*self._values, *(value for _, value in last)]


def _mean(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(step for step, _ in pairs) / len(pairs), sum(value for _, value in pairs) / len(pairs)


class Curves:
    """All curves of a run, by stage and name, in the order in which they first appeared."""

    def __init__(self) -> None:
        self._curves: dict[str, dict[str, Curve]] = {}

    def add(self, row: Values) -> None:
        """Add a row of the loss log. The time it takes does not depend on how many there are."""
        of_stage = self._curves.setdefault(row.stage, {})
        for name, value in row.values.items():
            of_stage.setdefault(name, Curve()).add(row.step, value)

    def of(self, stage: str) -> dict[str, Points]:
        """The curves of a stage that have a point."""
        points = {name: curve.points() for name, curve in self._curves.get(stage, {}).items()}
        return {name: curve for name, curve in points.items() if curve[0]}

    @property
    def stages(self) -> list[str]:
        """Names of the stages in order."""
        return list(self._curves)
