"""The time that a stage, and with the last one the whole run, will take: told once, when its rate is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from training.log.training_report import duration

LEAST_SECONDS, LEAST_STEPS = 10.0, 5  # of a stage, without its first step, before its rate is known


class StageTime:
    """One stage of `n_steps` steps. Stages that come `later` have rates of their own, which nobody knows yet."""

    def __init__(self, name: str, n_steps: int, later: Sequence[str] = ()) -> None:
        self._name, self._n_steps, self._later = name, n_steps, later
        self._first: tuple[float, int] | None = None  # the clock and the steps done when the first step had ended
        self._told = False

    def sentence(self, now: float, step: int, spent: float) -> str:
        """What to expect, the first time that it is known; else an empty text.

        Args:
            now: the clock, in seconds, after `step` steps of the stage; the device must have finished them.
            spent: seconds that the run has taken so far.
        """
        if self._first is None:
            self._first = now, step
            return ""
        seconds, steps = now - self._first[0], step - self._first[1]
        if self._told or seconds < LEAST_SECONDS or steps < LEAST_STEPS:
            return ""
        self._told = True
        each = seconds / steps
        stage = f"expected time: {duration(each * self._n_steps)} for the {self._n_steps:,} steps of stage {self._name}"
        if self._later:
            *most, last = self._later
            names = f"{', '.join(most)} and {last}" if most else last
            return f"{stage}; {names} will be timed when {'they begin' if most else 'it begins'}"
        left = each * (self._n_steps - step)
        until = datetime.now() + timedelta(seconds=left)
        return f"{stage}, {duration(spent + left)} in all, until {until:%Y-%m-%d %H:%M}"
