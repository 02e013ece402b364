"""Options of every model, and what a command line must know of a model. Free of torch, which takes seconds to import.

The options of a model lie beside it, in `NAME_options.py`, so that `--help` and refusals come at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from util.needs import chosen
from util.schema import flag

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StepsByDevice:
    """Default length of a pretext stage: short on a CPU, so that it reaches the adversarial stage within an hour."""

    gpu: int
    cpu: int

    def __str__(self) -> str:
        return f"{self.gpu} on a GPU, {self.cpu} on the CPU"

    def on(self, device: torch.device) -> int:
        return self.cpu if device.type == "cpu" else self.gpu


def _linear(o: OptimiserOptions, epoch: int) -> float:
    """Constant for n_epochs, then linear decay that would reach zero one epoch after the last."""
    return 1 - max(0, epoch + 1 - o.n_epochs) / (o.n_epochs_decay + 1)


def _step(o: OptimiserOptions, epoch: int) -> float:
    """Divided by ten every lr_decay_iters epochs."""
    return 0.1 ** (epoch // o.lr_decay_iters)


def _cosine(o: OptimiserOptions, epoch: int) -> float:
    """Half a cosine over all epochs."""
    return (1 + math.cos(math.pi * epoch / (o.n_epochs + o.n_epochs_decay))) / 2


LR_POLICIES: dict[str, Callable[[OptimiserOptions, int], float]] = {
    "linear": _linear,
    "step": _step,
    "cosine": _cosine,
}


@dataclass(frozen=True)
class LengthOptions:
    """Length of training, the same flags for every model; and what must be known of a model before it is imported.

    dataset_mode: what --dataset_mode is unless it is given. paired: whether the model learns from pairs, which only
    --dataset_mode aligned has. can_synthesise: whether the trained model makes images.
    supports_BtoA: whether it can learn --direction BtoA. pretext_steps: by option, the steps that None stands for.
    keeps: options whose own default belongs to what the model is; a preset leaves them as they are.
    """

    dataset_mode: ClassVar[str] = "unaligned_mask"
    paired: ClassVar[bool] = False
    can_synthesise: ClassVar[bool] = False
    supports_BtoA: ClassVar[bool] = True
    pretext_steps: ClassVar[Mapping[str, StepsByDevice]] = {}
    keeps: ClassVar[frozenset[str]] = frozenset()

    n_epochs: int = flag(
        100, "epochs; those at the first learning rate of --lr_policy linear", group="optimisation", low=0
    )
    n_epochs_decay: int = flag(
        50, "further epochs; those over which --lr_policy linear falls to zero", group="optimisation", low=0
    )


@dataclass(frozen=True)
class OptimiserOptions(LengthOptions):
    """Length of training and its learning rate. SGP and LSC have learning rates of their own."""

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
