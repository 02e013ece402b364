"""Not a test: a training in float64 for some steps of a stage, which tests/test_distributed.py starts in processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

import training.loader
import training.loop
from data.batch import Batch
from options.train_options import parse
from programs.training import make_trainer
from training.signals import Stopped, StopRequest
from util.processes import join_processes


class After(StopRequest):
    """Asks for a stop after so many steps of a stage."""

    def __init__(self, trainer: object, stage: str, steps: int) -> None:
        self.trainer, self.place = trainer, (stage, steps)

    @property
    def signal(self) -> int:  # type: ignore[override]
        at = self.trainer.position  # type: ignore[attr-defined]
        name = self.trainer.model.stages[at["stage"]].name  # type: ignore[attr-defined]
        return 15 if (name, at["step"]) == self.place else 0


def double(batch: Batch) -> Batch:
    return batch._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def in_float64(load: Callable[..., Iterator[Batch]]) -> Callable[..., Iterator[Batch]]:
    return lambda *places, **settings: map(double, load(*places, **settings))


def train_in_float64(state: Path, stage: str, steps: int, argv: list[str]) -> None:
    """Train with these arguments; after so many steps of `stage` the first process saves the model's state."""
    training.loop.load = in_float64(training.loader.load)  # type: ignore[assignment]
    training.loader.load = training.loop.load
    with ExitStack() as held:
        trainer = make_trainer(parse(argv), argv, held, held.enter_context(join_processes()))
        trainer.model.double()
        trainer.stop = After(trainer, stage, steps)  # type: ignore[assignment]
        with suppress(Stopped):
            trainer.fit()
            raise AssertionError(f"{stage} ended before step {steps}")
        if trainer.processes.first:
            torch.save(trainer.model.state_dict(), state)
