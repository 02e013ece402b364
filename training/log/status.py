"""Where a run is, in one sentence: its stage and step, the time left, how it ended, and its validation figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from training.log.follower import Values
from training.log.loss_log import VALIDATION

RUNNING, ENDED, STOPPED, FAILED = "running", "ended", "stopped", "failed"
ON_TRAINING = f"{VALIDATION}train_"  # figures of training slices, which show no progress
FALLING = ("error", "mae", "mse", "nrmse", "loss", "kid", "fid", "kd")  # in names of figures that are better when low
RISING = ("psnr", "ssim", "corr", "dice", "accuracy")  # and when high


@dataclass(frozen=True)
class Status:
    """The state of the run.

    state: running, ended, stopped (by a signal, to be continued) or failed. reason: why it stopped or failed.
    step, n_steps: of `stage`. later: the stages that come after it. seconds: that the run has trained.
    left: seconds to the end of the stage, if they are known.
    """

    state: str
    stage: str
    step: int
    n_steps: int
    later: Sequence[str] = ()
    seconds: float = 0.0
    left: float | None = None
    reason: str = ""


@dataclass
class StageSoFar:
    """What the rows of a stage have shown: its last epoch, and each figure's last and best value with their epochs."""

    epoch: int = 0
    first_step: int = 0
    step: int = 0
    rate: float | None = None
    last: dict[str, tuple[float, int]] = field(default_factory=dict)
    best: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, row: Values) -> None:
        """Add a row of the loss log."""
        self.first_step = self.first_step or row.step
        self.epoch, self.step = row.epoch, row.step
        self.rate = row.values.get("images_per_s", self.rate)
        for name, value in row.values.items():
            if not name.startswith(VALIDATION) or name.startswith(ON_TRAINING) or not math.isfinite(value):
                continue
            self.last[name] = value, row.epoch
            sign = direction(name)
            if sign and (name not in self.best or sign * value > sign * self.best[name][0]):
                self.best[name] = value, row.epoch


def direction(name: str) -> int:
    """1 if a figure is better when high, -1 if when low, 0 if its name does not tell."""
    words = name.removeprefix(VALIDATION).lower().replace("-", "_").split("_")
    if name.startswith(f"{VALIDATION}1-") or any(word in FALLING for word in words):
        return -1
    return int(any(word in RISING for word in words))


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `12 min` or `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def verdict(status: Status, stages: dict[str, StageSoFar]) -> str:
    """Where the run is, how it goes on or how it ended, and its validation figures.

    Args: stages: what there is of each, oldest first.
    """
    return f"{_state(status, stages.get(status.stage))}{validation(stages)}"


def _state(status: Status, so_far: StageSoFar | None) -> str:
    place = _place(status, so_far)
    if status.state == ENDED:
        return f"Ended: all stages are complete, after {duration(status.seconds)} of training."
    if status.state == STOPPED:
        return f"Stopped in {place}: {status.reason}."
    if status.state == FAILED:
        return f"Ended by an error in {place}: {status.reason}."
    if not status.n_steps:
        return "Training is being prepared; no stage has begun."
    return f"Training: {place}; {_time_left(status)}."


def _place(status: Status, so_far: StageSoFar | None) -> str:
    if not status.n_steps:
        return "the preparation"
    epoch = f", epoch {so_far.epoch}" if so_far is not None and so_far.epoch else ""
    part = 100 * status.step // status.n_steps
    return f"stage {status.stage}{epoch}, step {status.step:,} of {status.n_steps:,} ({part} %)"


def _time_left(status: Status) -> str:
    follow = f"{listed(status.later)} will follow" if status.later else "it is the last stage"
    if status.left is None:
        return f"the time left is not known yet; {follow}"
    until = datetime.now() + timedelta(seconds=status.left)
    return f"about {duration(status.left)} left in this stage, until {until:%Y-%m-%d %H:%M}; {follow}"


def validation(stages: dict[str, StageSoFar]) -> str:
    """The figures of the newest stage that has any, with the best epoch of each; empty without any."""
    newest = next(((name, stage) for name, stage in reversed(stages.items()) if stage.last), None)
    if newest is None:
        return ""
    stage, found = newest
    parts = []
    for name, (value, epoch) in found.last.items():
        best = found.best.get(name)
        text = f"{name} {value:.4g} after epoch {epoch}"
        if best is not None:
            text += ", its best so far" if best[1] == epoch else f", best {best[0]:.4g} after epoch {best[1]}"
        parts.append(text)
    return f" Validation of {stage}: {'; '.join(parts)}."


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
