"""The time that a stage, and with the last one the whole run, will take: told once, when its rate is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from training.log.status import duration, listed

LEAST_SECONDS, LEAST_STEPS = 10.0, 5  # of a stage, without its first step, before its rate is known


class StageTime:
    """One stage of `n_steps` steps. Stages that come `later` have rates of their own, which nobody knows yet."""

    def __init__(self, name: str, n_steps: int, later: Sequence[str] = ()) -> None:
        self._name, self._n_steps, self._later = name, n_steps, later
        self._first: tuple[float, int] | None = None  # the clock and the steps done when the first step had ended
        self._each: float | None = None  # seconds a step
        self._told = False

    def left(self, step: int) -> float | None:
        """Seconds from `step` to the end of the stage, once its rate is known."""
        return None if self._each is None else self._each * (self._n_steps - step)

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
        if seconds < LEAST_SECONDS or steps < LEAST_STEPS:
            return ""
        self._each = each = seconds / steps
        if self._told:
            return ""
        self._told = True
        stage = f"expected time: {duration(each * self._n_steps)} for the {self._n_steps:,} steps of stage {self._name}"
        if self._later:
            begin = "they begin" if len(self._later) > 1 else "it begins"
            return f"{stage}; {listed(self._later)} will be timed when {begin}"
        left = each * (self._n_steps - step)
        until = datetime.now() + timedelta(seconds=left)
        return f"{stage}, {duration(spent + left)} in all, until {until:%Y-%m-%d %H:%M}"
