"""The interface between a model and the programs: its networks, its training stages and what it can do once trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.base_options import LR_POLICIES, LengthOptions, OptimiserOptions
from models.stage import Stage

if TYPE_CHECKING:
    from models.lsc_model import LSC
    from models.sgp_model import SGP


class BaseModel(nn.Module):
    """A model owns its networks, as submodules, and a list of `stages` that train them.

    A subclass declares its options in `Options` and creates networks and stages in `__init__`. Everything that must
    survive a restart is in `state_dict()`, `training_state()` or `process_state()`.
    """

    Options: type[LengthOptions] = LengthOptions

    def __init__(self, options: Any, image_size: tuple[int, int]) -> None:
        """Args: options: of class `Options`. image_size: (H, W) of the networks' input.

        Raises: UserError: options and image size do not fit together.
        """
        super().__init__()
        self.options, self.image_size = options, image_size
        self.stages: Sequence[Stage] = ()
        self.sgp: SGP | None = None  # the pretext networks, where a model has them
        self.lsc: LSC | None = None
        self.run: Mapping[str, Any] = {}  # the content of options.json, if the model was loaded from a run
        self.checkpoint: Path | None = None  # the file that its weights were loaded from
        self.title = ""  # what results are to call it, if it was loaded from a run: pta_hybrid + refinement

    def load_given_weights(self) -> None:
        """Load the weights that options name. For a run that begins: later its checkpoints hold them.

        Raises: UserError: no such file, or weights of another network.
        """

    def costly_networks(self) -> list[nn.Module]:
        """Networks that take most of the training time; --compile compiles them."""
        return []

    def exported_networks(self) -> dict[str, nn.Module]:
        """Networks whose weights are also saved by themselves, as `latest_net_NAME.pth`."""
        return {}

    @property
    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimisers of all stages, by name."""
        return {name: optimiser for stage in self.stages for name, optimiser in stage.optimisers.items()}

    def training_state(self) -> dict[str, Any]:
        """The state of optimisers and stages. Tensors and plain values only."""
        optimisers = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        state: dict[str, Any] = {"optimisers": optimisers}
        for stage in self.stages:
            state |= stage.state()
        return state

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore a `training_state`. Optimisers of a stage that was added since keep their initial state.

        Raises: ValueError, LookupError, TypeError, RuntimeError, AttributeError: not a state of this model.
        """
        for stage in self.stages:
            stage.load_optimisers(state["optimisers"])
            stage.load_state(state)

    def process_state(self) -> dict[str, Any]:
        """The state that differs between the processes of a run. Tensors and plain values only."""
        state: dict[str, Any] = {}
        for stage in self.stages:
            state |= stage.process_state()
        return state

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Restore a `process_state`. Raises: as `load_training_state`."""
        for stage in self.stages:
            stage.load_process_state(state)

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this."""
        return 1

    # What a trained model can do.

    @property
    def can_synthesise(self) -> bool:
        """Whether it makes images."""
        return self.Options.can_synthesise

    def synthesise(self, real_A: Tensor) -> Tensor:
        """Synthesise high-field images from low-field slices; both are (N, 1, H, W) in [-1, 1]."""
        raise TypeError(f"{type(self).__name__} does not synthesise")


def adam(networks: list[nn.Module], options: OptimiserOptions, *, beta2: float = 0.999) -> torch.optim.Adam:
    """Adam over all trainable parameters of `networks`."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=options.lr, betas=(options.beta1, beta2), fused=True)


def learning_rate(options: OptimiserOptions, epoch: int) -> float:
    """The rate that --lr and --lr_policy give for an epoch, counted from 0."""
    return options.lr * LR_POLICIES[options.lr_policy](options, epoch)
