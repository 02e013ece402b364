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
from models.gradients import GradientSum
from models.training_state import load_optimiser, load_scheduler
from util.processes import ALONE, Processes
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
    """What a training step may use besides the batch: memory, number format, and the other processes of the run.

    A batch is this process' part of the step's: `images` of all processes, None: this one's are all. Losses and
    gradients are weighted by `share`, so that sums over micro-batches and processes are means over the whole.
    """

    device: torch.device
    micro_batch: int
    amp_dtype: torch.dtype | None = None
    processes: Processes = ALONE
    images: int | None = None
    images_seen: int = field(default=0)  # in the current stage, by all processes
    room: int | None = None  # bytes that measuring a step may take

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Mixed precision if asked for; losses and reductions stay in float32 by autocast's own rules."""
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    def end_step(self) -> None:
        """After a step's last update: float16's scale follows what has overflowed."""
        if self.scaler.is_enabled():
            self.scaler.update()

    def share(self, part: Batch, batch: Batch) -> float:
        """What part of the step's images `part` of this process' `batch` is."""
        return len(part) / (len(batch) if self.images is None else self.images)

    def rows(self, batch: Batch) -> list[int]:
        """How many of the step's images each process has."""
        if self.images is None:
            return [len(batch)]
        places = [self.processes.part(self.images, rank) for rank in range(self.processes.size)]
        return [place.stop - place.start for place in places]


class Update:
    """One update of one optimiser: gradients are added up over micro-batches, then over processes, then applied.

    float16's small gradients are scaled up on the way (torch.amp.GradScaler); steps that overflow are left out.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, context: StepContext) -> None:
        self._optimiser, self._context = optimiser, context
        self._sum: GradientSum | None = None
        optimiser.zero_grad(set_to_none=True)
        if context.scaler.is_enabled():  # which begins with the first loss, and a process may have no images
            context.scaler.scale(torch.zeros((), device=context.device))

    def add(self, loss: Tensor | None, through: tuple[Tensor, Tensor] | None = None) -> None:
        """Add the gradients of a micro-batch's loss, weighted by its share.

        Args: through: an image and a copy of it without graph, whose gradient so far goes on through the image.
        """
        ends: list[tuple[Tensor, Tensor | None]] = []
        if loss is not None:
            ends.append((self._context.scaler.scale(loss), None))
        if through is not None and through[1].grad is not None:
            ends.append((through[0], through[1].grad))
        if ends:
            torch.autograd.backward([end for end, _ in ends], [gradient for _, gradient in ends])

    def send(self) -> None:
        """Begin to sum over processes; what is computed until `apply` hides the wait."""
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        self._sum = GradientSum(parameters, self._context.processes)

    def apply(self) -> None:
        """Wait for the sum and move the weights."""
        if self._sum is None:
            self.send()
        assert self._sum is not None
        self._sum.wait()
        self._context.scaler.step(self._optimiser)


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
        """One update from one batch. Returns the unweighted loss terms by name, without graph.

        Of several processes each has its part of the batch, which may be empty, and of the terms its summand.
        """
        raise TypeError(f"{type(self).__name__} has no training step")

    def splits(self, stage: Stage) -> bool:
        """Whether a step of `stage` may be computed a few images at a time."""
        return False

    def activation_bytes(self, batch: Batch, stage: Stage, context: StepContext) -> int:
        """Memory that autograd keeps for the gradients of a step of `stage` on `batch`, see `kept_memory`."""
        return 0

    def pool_bytes(self, image_bytes: int) -> int:
        """Memory of the earlier images that training keeps, once there are as many as it wants."""
        return 0

    def partner_bytes(self, low: int, high: int) -> int:
        """Most memory that `partners` takes at once for so many slices of either domain."""
        return 0

    def stage_networks(self, stage: Stage) -> list[nn.Module]:
        """Networks that this stage trains; the trainer puts them in training mode and the rest in evaluation mode."""
        return [self]

    def costly_networks(self) -> list[nn.Module]:
        """Networks in which a training spends its time: those that --compile compiles."""
        return []

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

    def partners(
        self, low: Iterator[Tensor], high: Iterator[Tensor], totals: tuple[int, int], processes: Processes
    ) -> NDArray[np.int64]:
        """For every low-field slice the positions of its k nearest high-field slices: (totals[0], k).

        Args: low, high: this process' part of the `totals` slices.
        """
        raise TypeError(f"{type(self).__name__} chooses no partners")

    def visuals(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        """Images worth looking at, by name: (N, 1, H, W) in [-1, 1]."""
        return {}

    def process_state(self) -> dict[str, Any]:
        """What the processes of a run do not have in common: the images in their pools. Tensors and plain values."""
        return {}

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Take up `process_state`."""

    def training_state(self) -> dict[str, Any]:
        """State beside the networks: optimisers, schedulers and what subclasses add. Tensors and plain values only."""
        return {
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take up `training_state`; what a stage that was added since needs begins afresh.

        Raises: ValueError, LookupError, TypeError, RuntimeError, AttributeError: it is not a state of this model.
        """
        for name in self.optimisers.keys() & state["optimisers"].keys():
            load_optimiser(self.optimisers[name], state["optimisers"][name], name)
        for name in self.schedulers.keys() & state["schedulers"].keys():
            load_scheduler(self.schedulers[name], state["schedulers"][name], name)

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


def micro_batches(batch: Batch, context: StepContext) -> Iterator[tuple[int, Batch, float]]:
    """Parts that fit in memory: first row, part, and the part's share of the step's images.

    Mean losses weighted by their shares add up to the whole batch's, and so do gradients.
    """
    for start in range(0, len(batch), context.micro_batch):
        part = batch.rows(start, min(start + context.micro_batch, len(batch)))
        yield start, part, context.share(part, batch)


def accumulate(terms: dict[str, Tensor], part: Mapping[str, Tensor], share: float) -> None:
    """Add `share` times the detached terms of one micro-batch to the batch's."""
    for name, value in part.items():
        terms[name] = terms.get(name, torch.zeros((), device=value.device)) + share * value.detach()
