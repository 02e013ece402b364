"""A stage of a training: the object that owns everything that happens in it. A model is a list of stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.batch import Batch
from models.training_state import load_optimiser, load_scheduler
from models.update import StepContext, Update
from util.processes import Processes


@dataclass(frozen=True)
class StepsByDevice:
    """Default length of a pretext stage: a CPU must reach the adversarial stage within the hour, too."""

    gpu: int
    cpu: int

    def __str__(self) -> str:
        return f"{self.gpu} on a GPU, {self.cpu} on the CPU"

    def on(self, device: torch.device) -> int:
        return self.cpu if device.type == "cpu" else self.gpu


class Stage:
    """What a stage trains, how a step of it goes, how it is measured and shown, and what of it must survive a restart.

    A subclass fills `optimisers` and `schedulers` and implements `losses`, or `step` where a step is more than one
    update. The trainer calls the rest.

    Attributes:
        name: in `loss_log.csv`, reports and checkpoints. It also seeds the order of slices, so it never changes.
        sampling: `shuffled`, or `levels`: every batch holds slices of distinct levels.
        least_batch: batches have --batch_size images, but no fewer than these.
        splits: whether a step may be computed a few images at a time.
        chooses_partners: whether `partner_table` says which b goes with which a.
        smaller: options that make a step take less memory, the most harmless first.
        networks: what the stage trains; only these are in training mode and have gradients.
        epochs, steps: the stage's length; it ends with whichever comes first. None: no limit on steps.
        epochs_before: checkpoints are named by the epoch, counted on from so many of earlier stages; None: the stage
            leaves none but `latest`.
    """

    name: ClassVar[str]
    sampling = "shuffled"
    least_batch = 1
    splits = False
    chooses_partners = False
    smaller: tuple[str, ...] = ()

    def __init__(
        self, networks: Sequence[nn.Module], epochs: int, steps: int | None = None, epochs_before: int | None = 0
    ) -> None:
        self.networks = list(networks)
        self.epochs, self.steps, self.epochs_before = epochs, steps, epochs_before
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.schedulers: dict[str, torch.optim.lr_scheduler.LRScheduler] = {}

    def begin(self, model: nn.Module) -> None:
        """Put the stage's networks in training mode, and freeze everything else in `model`."""
        model.eval().requires_grad_(False)
        for network in self.networks:
            network.train().requires_grad_(True)

    def losses(self, batch: Batch, update: Update) -> object:
        """Give `update` every term of the loss on a micro-batch."""
        raise TypeError(f"stage {self.name} has no loss")

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """One training step. Returns the unweighted loss terms by name, without graph.

        With several processes, each is given its part of the batch, which may be empty, and returns its summand of
        every term.
        """
        (optimiser,) = self.optimisers.values()
        update = Update(optimiser, context)
        for _, part in update.micro_batches(batch, split=self.splits):
            with context.autocast():
                self.losses(part, update)
        update.apply()
        return update.terms

    def end_epoch(self) -> None:
        """Move the learning rates on by one epoch."""
        for scheduler in self.schedulers.values():
            scheduler.step()

    def validate(self, batches: Iterator[Batch], context: StepContext) -> dict[str, float]:
        """Figures on unseen slices at the end of an epoch; none by default."""
        return {}

    def ended_early(self) -> str:
        """Why the stage should end before its time; empty if it should not."""
        return ""

    def partner_table(
        self, low: Iterator[Tensor], high: Iterator[Tensor], totals: tuple[int, int], processes: Processes
    ) -> NDArray[np.int64]:
        """For every low-field slice the positions of the high-field slices that it may be shown with: (totals[0], k).

        Args: low, high: this process' part of the `totals` slices.
        """
        raise TypeError(f"stage {self.name} chooses no partners")

    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        """Images worth looking at, by name: (N, 1, H, W) in [-1, 1]."""
        return {"real_A": batch.A, "real_B": batch.B}

    def state(self) -> dict[str, Any]:
        """What must survive a restart beside networks, optimisers and schedulers. Tensors and plain values only."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up `state`.

        Raises: ValueError, LookupError, TypeError: it is not a state of this stage.
        """

    def load_optimisers(self, optimisers: Mapping[str, Any], schedulers: Mapping[str, Any]) -> None:
        """Take up the states of those that were saved; one that was added since begins afresh."""
        for name in self.optimisers.keys() & optimisers.keys():
            load_optimiser(self.optimisers[name], optimisers[name], name)
        for name in self.schedulers.keys() & schedulers.keys():
            load_scheduler(self.schedulers[name], schedulers[name], name)

    def process_state(self) -> dict[str, Any]:
        """What the processes of a run do not have in common: the images in their pools. Tensors and plain values."""
        return {}

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Take up `process_state`."""
