"""What shows a run elsewhere while it trains: the dashboard, event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.log.loss_log import Row

RATE, LEARNING_RATE = "images_per_s", "lr"  # columns that are no loss
NO_VALUES = ("stage", "epoch", "step", "seconds")


@dataclass(frozen=True)
class Values:
    """One row of the loss log as numbers: losses, `val_` figures, `images_per_s` and `lr`, as far as it has them."""

    stage: str
    epoch: int
    step: int
    values: Mapping[str, float]


def values_of(row: Row) -> Values:
    """The numbers of a complete row of loss_log.csv."""
    numbers = {name: float(text) for name, text in row.items() if text and name not in NO_VALUES}
    return Values(row["stage"], int(row["epoch"]), int(row["step"]), numbers)


class Follower(Protocol):
    """RunLog calls these from the training thread, so none may wait for anything; an exception is a single warning."""

    name: str  # in warnings

    def resume(self, rows: Sequence[Values], stage: str, step: int) -> None:
        """A run goes on from `step` of `stage`: these are its rows so far. Not called for a new run."""

    def stage(self, name: str, n_steps: int) -> None:
        """A stage begins."""

    def row(self, row: Values) -> None:
        """A row was added to the loss log."""

    def images(self, stage: str, epoch: int, step: int, columns: Mapping[str, np.ndarray]) -> None:
        """Sample images, (H, W) uint8 by label."""

    def close(self) -> None:
        """The run has ended."""
