"""A stage of training owns everything that happens in it. A model has a list of stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data.batch import OWN, SHUFFLED, Batch, Levels, Pairs
from models.training_state import load_optimiser
from models.update import StepContext, Update
from util.processes import Processes


class Stage:
    """The networks that a stage trains, its step, validation and pictures, and the state that survives a restart.

    A subclass fills `optimisers` and implements `learning_rate` and `losses`, or `step` if a step is more than one
    update. The trainer calls these methods.

    Attributes:
        name: in `loss_log.csv`, reports and checkpoints. It also seeds the order of slices, so it must never change.
        sampling: how an epoch is drawn, one of SAMPLINGS; places: what shares a random crop and flip, one of PLACES
            (data/batch.py).
        least_batch: minimum batch size; --batch_size counts if it is larger.
        splits: whether a step may be computed in micro-batches.
        chooses_partners: whether `partners_from` decides which b is paired with which a.
        smaller: options that reduce the memory of a step, the most harmless first.
        networks: the networks that the stage trains; only these are in training mode and get gradients.
        epochs, steps: the stage ends after whichever comes first. steps None: no limit.
        epochs_before: number of epochs in earlier stages, added to the epoch in checkpoint names; None: the stage
            saves only `latest`.
    """

    name: ClassVar[str]
    sampling = SHUFFLED
    places = OWN
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

    def begin(self, model: nn.Module) -> None:
        """Put the stage's networks in training mode and freeze the rest of `model`."""
        model.eval().requires_grad_(False)
        for network in self.networks:
            network.train().requires_grad_(True)

    def learning_rate(self, epoch: int, step: int) -> float:
        """The rate of all optimisers for a step; epochs and steps of the stage are counted from 0.

        It follows from the options and from where the stage is, so a run that is continued for longer needs no state.
        """
        raise TypeError(f"stage {self.name} has no learning rate")

    def set_learning_rate(self, epoch: int, step: int) -> None:
        """Give the optimisers their rate for a step."""
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate(epoch, step)

    def last_rate(self) -> float | None:
        """The optimisers' learning rate in the last step; None without optimisers."""
        groups = (group for optimiser in self.optimisers.values() for group in optimiser.param_groups)
        return next((float(group["lr"]) for group in groups), None)

    def losses(self, batch: Batch, update: Update) -> object:
        """Pass every term of the loss on a micro-batch to `update`."""
        raise TypeError(f"stage {self.name} has no loss")

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        """One training step. Returns the unweighted loss terms by name, detached.

        With several processes, each gets its part of the batch, which may be empty, and returns that part's
        contribution to every term; the terms are the sums over all processes.
        """
        (optimiser,) = self.optimisers.values()
        update = Update(optimiser, context)
        for _, part in update.micro_batches(batch, split=self.splits):
            with context.autocast():
                self.losses(part, update)
        update.apply()
        return update.terms

    def validate(self, unseen: Iterator[Batch], seen: Iterator[Batch], context: StepContext) -> dict[str, float]:
        """Figures at the end of an epoch, from batches of unseen and of training slices; none by default.

        Plain names: `psnr` is measured on unseen slices, `train_psnr` on training slices; the log adds `val_` to all.
        """
        return {}

    def ended_early(self) -> str:
        """The reason to end the stage early; empty if there is none."""
        return ""

    def partners_from(
        self, low: Iterator[Tensor], high: Iterator[Tensor], levels: Levels, processes: Processes
    ) -> Pairs:
        """The pairs of slices that the stage's items are drawn from.

        Args: low, high: this process' part of the slices; `levels`: those of all slices of A and of B.
        """
        raise TypeError(f"stage {self.name} chooses no partners")

    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        """Sample images for the log and the report, by name: (N, 1, H, W) in [-1, 1]."""
        return {"real_A": batch.A, "real_B": batch.B}

    def state(self) -> dict[str, Any]:
        """State to save besides networks, optimisers and schedulers. Tensors and plain values only."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`.

        Raises: ValueError, LookupError, TypeError: not a state of this stage.
        """

    def load_optimisers(self, optimisers: Mapping[str, Any]) -> None:
        """Restore the optimisers that were saved; one that was added since keeps its initial state."""
        for name in self.optimisers.keys() & optimisers.keys():
            load_optimiser(self.optimisers[name], optimisers[name], name)

    def process_state(self) -> dict[str, Any]:
        """State that differs between the processes of a run: image pools. Tensors and plain values only."""
        return {}

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Restore a `process_state`. Raises: as `load_state`."""
