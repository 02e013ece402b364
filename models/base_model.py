"""What the trainer and `test.py` know of a model: networks, the stages of its training, what it can do once trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.stage import Stage, StepsByDevice
from util.needs import chosen
from util.schema import flag

LRScheduler = torch.optim.lr_scheduler.LRScheduler


def _linear(optimiser: torch.optim.Optimizer, o: OptimiserOptions) -> LRScheduler:
    """Constant for n_epochs, then a line that would reach zero one epoch after the last."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda epoch: 1 - max(0, epoch + 1 - o.n_epochs) / (o.n_epochs_decay + 1)
    )


def _step(optimiser: torch.optim.Optimizer, o: OptimiserOptions) -> LRScheduler:
    """A tenth every lr_decay_iters epochs."""
    return torch.optim.lr_scheduler.StepLR(optimiser, o.lr_decay_iters, gamma=0.1)


def _cosine(optimiser: torch.optim.Optimizer, o: OptimiserOptions) -> LRScheduler:
    """Half a cosine over all epochs."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(o.n_epochs + o.n_epochs_decay, 1))


LR_POLICIES: dict[str, Callable[[torch.optim.Optimizer, OptimiserOptions], LRScheduler]] = {
    "linear": _linear,
    "step": _step,
    "cosine": _cosine,
}


@dataclass(frozen=True)
class LengthOptions:
    """Length of training, the same flags for every model."""

    n_epochs: int = flag(
        100, "epochs; those at the first learning rate of --lr_policy linear", group="optimisation", low=0
    )
    n_epochs_decay: int = flag(
        50, "further epochs; those over which --lr_policy linear falls to zero", group="optimisation", low=0
    )


@dataclass(frozen=True)
class OptimiserOptions(LengthOptions):
    """Length of training, and the learning rate of a model that has none of its own."""

    lr: float = flag(2e-4, "Adam's learning rate", group="optimisation", low=1e-9, high=1)
    beta1: float = flag(0.5, "Adam's first momentum", group="optimisation", low=0, high=0.9999)
    lr_policy: str = flag("linear", "learning rate over the epochs", group="optimisation", choices=LR_POLICIES)
    lr_decay_iters: int = flag(
        50,
        "epochs between the tenfold drops of --lr_policy step",
        group="optimisation",
        low=1,
        needs=chosen(lr_policy=("step",)),
    )


class BaseModel(nn.Module):
    """A model owns its networks, as submodules, and is a list of `stages` over them.

    A subclass declares its options in `Options` and makes networks and stages in `__init__`. Everything that must
    survive a restart is in `state_dict()` or in `training_state()`.
    """

    Options: type = LengthOptions
    pretext_steps: ClassVar[Mapping[str, StepsByDevice]] = {}  # what `None` means for which option
    dataset_mode = "unaligned_mask"
    supports_BtoA = True

    def __init__(self, options: Any, image_size: tuple[int, int]) -> None:
        """Args: options: of class `Options`. image_size: (H, W) of what the networks are shown.

        Raises: UserError: the two do not fit together.
        """
        super().__init__()
        self.options, self.image_size = options, image_size
        self.stages: Sequence[Stage] = ()
        self.run: Mapping[str, Any] = {}  # the run's options.json, where the model was loaded from a run

    def costly_networks(self) -> list[nn.Module]:
        """Networks in which a training spends its time: those that --compile compiles."""
        return []

    def exported_networks(self) -> dict[str, nn.Module]:
        """Networks whose weights are also saved alone, as `latest_net_NAME.pth`."""
        return {}

    @property
    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Those of all stages, by name."""
        return {name: optimiser for stage in self.stages for name, optimiser in stage.optimisers.items()}

    def training_state(self) -> dict[str, Any]:
        """State beside the networks: optimisers, schedulers and what stages add. Tensors and plain values only."""
        schedulers = {name: each for stage in self.stages for name, each in stage.schedulers.items()}
        state: dict[str, Any] = {
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in schedulers.items()},
        }
        for stage in self.stages:
            state |= stage.state()
        return state

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take up `training_state`; what a stage that was added since needs begins afresh.

        Raises: ValueError, LookupError, TypeError, RuntimeError, AttributeError: it is not a state of this model.
        """
        for stage in self.stages:
            stage.load_optimisers(state["optimisers"], state["schedulers"])
            stage.load_state(state)

    def process_state(self) -> dict[str, Any]:
        """What the processes of a run do not have in common. Tensors and plain values only."""
        state: dict[str, Any] = {}
        for stage in self.stages:
            state |= stage.process_state()
        return state

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Take up `process_state`. Raises: as `load_training_state`."""
        for stage in self.stages:
            stage.load_process_state(state)

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


def scheduler(optimiser: torch.optim.Optimizer, options: OptimiserOptions) -> LRScheduler:
    """The learning rate over epochs that `--lr_policy` names."""
    return LR_POLICIES[options.lr_policy](optimiser, options)
