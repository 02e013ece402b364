"""What the trainer and `test.py` know of a model: stages, a training step, a state, and what it can do once trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.batch import Batch
from util.schema import flag

LR_POLICIES = ("linear", "step", "cosine")


@dataclass(frozen=True)
class OptimiserOptions:
    """Length of training and the learning rate, the same flags for every model."""

    n_epochs: int = flag(100, "epochs at the first learning rate", group="optimisation", low=0)
    n_epochs_decay: int = flag(50, "epochs over which --lr_policy linear falls to zero", group="optimisation", low=0)
    lr: float = flag(2e-4, "Adam's learning rate", group="optimisation", low=1e-9, high=1)
    beta1: float = flag(0.5, "Adam's first momentum", group="optimisation", low=0, high=0.9999)
    lr_policy: str = flag("linear", "learning rate over the epochs", group="optimisation", choices=LR_POLICIES)
    lr_decay_iters: int = flag(50, "epochs between the tenfold drops of --lr_policy step", group="optimisation", low=1)


@dataclass(frozen=True)
class StepsByDevice:
    """Default length of a pretext stage: a CPU must reach the adversarial stage within the hour, too."""

    gpu: int
    cpu: int

    def __str__(self) -> str:
        return f"{self.gpu} on a GPU, {self.cpu} on the CPU"

    def on(self, device: torch.device) -> int:
        return self.cpu if device.type == "cpu" else self.gpu


@dataclass(frozen=True)
class Stage:
    """One part of a training: its name, how many epochs, at most how many steps, and which batches it wants.

    `sampling` is `shuffled` or `levels` (distinct levels in a batch); batches have --batch_size items, but no fewer
    than `least_batch`. Checkpoints are named by the epoch, counted on from `epochs_before` of earlier stages; None: the
    stage leaves none but `latest`.
    """

    name: str
    epochs: int
    steps: int | None = None
    sampling: str = "shuffled"
    least_batch: int = 1
    epochs_before: int | None = 0


@dataclass
class StepContext:
    """What a training step may use besides the batch: where randomness comes from and how much fits in memory."""

    device: torch.device
    generator: torch.Generator  # CPU; its state is part of a checkpoint
    micro_batch: int
    amp_dtype: torch.dtype | None = None
    images_seen: int = field(default=0)  # in the current stage

    def autocast(self) -> torch.autocast:
        """Mixed precision if asked for; losses and reductions stay in float32 by autocast's own rules."""
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)


class BaseModel(nn.Module):
    """A model owns its networks (submodules), its optimisers, and the stages of its training.

    Subclasses fill `stages`, `optimisers` and `schedulers` in `__init__` and implement `training_step`. Everything that
    must survive a restart is in `state_dict()` or in `training_state()`.
    """

    Options: type = OptimiserOptions
    pretext_steps: ClassVar[Mapping[str, StepsByDevice]] = {}  # what `None` means for which option
    dataset_mode = "unaligned_mask"
    supports_BtoA = True

    def __init__(self) -> None:
        super().__init__()
        self.stages: tuple[Stage, ...] = ()
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.schedulers: dict[str, torch.optim.lr_scheduler.LRScheduler] = {}
        self.run: Mapping[str, Any] = {}  # the run's options.json, where the model was loaded from a run

    def training_step(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        """One update from one batch. Returns the unweighted loss terms by name, without graph."""
        raise TypeError(f"{type(self).__name__} has no training step")

    def activation_bytes(self, batch: Batch, stage: Stage, context: StepContext) -> int:
        """Memory that one image's activations take in a step of `stage`; 0 where a step is never split."""
        return 0

    def stage_networks(self, stage: Stage) -> list[nn.Module]:
        """Networks that this stage trains; the trainer puts them in training mode and the rest in evaluation mode."""
        return [self]

    def step_schedulers(self, stage: Stage) -> None:
        """Move the learning rates of `stage` on by one epoch."""
        if stage.name in self.schedulers:
            self.schedulers[stage.name].step()

    def validate(self, stage: Stage, batches: Iterator[Batch], context: StepContext) -> dict[str, float]:
        """Figures on unseen slices at the end of an epoch of `stage`; none by default."""
        return {}

    def wants_to_stop(self, stage: Stage) -> str:
        """Why `stage` should end before its time, empty if it should not."""
        return ""

    def wants_partners(self, stage: Stage) -> bool:
        """Whether `stage` needs the table that `partners` makes."""
        return False

    def partners(self, low: Iterator[Tensor], high: Iterator[Tensor]) -> NDArray[np.int64]:
        """For every low-field slice the positions of its k nearest high-field slices: (len low, k)."""
        raise TypeError(f"{type(self).__name__} chooses no partners")

    def visuals(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        """Images worth looking at, by name: (N, 1, H, W) in [-1, 1]."""
        return {}

    def training_state(self) -> dict[str, Any]:
        """State beside the networks: optimisers, schedulers and what subclasses add. Tensors and plain values only."""
        return {
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take up `training_state`; what a stage that was added since needs begins afresh."""
        for kind, parts in (("optimisers", self.optimisers), ("schedulers", self.schedulers)):
            for name in parts.keys() & state[kind].keys():
                parts[name].load_state_dict(state[kind][name])

    def exported_networks(self) -> dict[str, nn.Module]:
        """Networks whose weights are also saved alone, as `latest_net_NAME.pth`."""
        return {}

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this."""
        return 1

    # What a trained model can do. Those with pretext networks also have `sgp` or `lsc`.
    can_synthesise = False

    def synthesise(self, real_A: Tensor) -> Tensor:
        """High-field-like images of low-field slices: (N, 1, H, W) in [-1, 1] both."""
        raise TypeError(f"{type(self).__name__} does not synthesise")


def adam(networks: list[nn.Module], options: OptimiserOptions, *, beta2: float = 0.999) -> torch.optim.Adam:
    """Adam over all trainable parameters of `networks`."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=options.lr, betas=(options.beta1, beta2), fused=True)


def scheduler(optimiser: torch.optim.Optimizer, options: OptimiserOptions) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over epochs that `--lr_policy` names.

    linear: constant for n_epochs, then a line that would reach zero one epoch after the last. step: a tenth every
    lr_decay_iters epochs. cosine: half a cosine over all epochs.
    """
    total = options.n_epochs + options.n_epochs_decay
    if options.lr_policy == "step":
        return torch.optim.lr_scheduler.StepLR(optimiser, options.lr_decay_iters, gamma=0.1)
    if options.lr_policy == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(total, 1))
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda epoch: 1 - max(0, epoch + 1 - options.n_epochs) / (options.n_epochs_decay + 1)
    )


def micro_batches(batch: Batch, size: int) -> Iterator[tuple[int, Batch, float]]:
    """Parts of at most `size` rows: first row, part, and the part's share of the batch.

    Mean losses weighted by their shares add up to the batch's, and so do gradients.
    """
    for start in range(0, len(batch), size):
        part = batch.rows(start, min(start + size, len(batch)))
        yield start, part, len(part) / len(batch)


def accumulate(terms: dict[str, Tensor], part: Mapping[str, Tensor], share: float) -> None:
    """Add `share` times the detached terms of one micro-batch to the batch's."""
    for name, value in part.items():
        terms[name] = terms.get(name, torch.zeros((), device=value.device)) + share * value.detach()
