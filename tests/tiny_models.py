"""Tiny models, batches and updates for tests of training steps."""

from __future__ import annotations

import torch
from torch import Tensor

from data.batch import Batch
from models.cycle_gan_model import CycleGANModel
from models.cycle_gan_options import CycleGANOptions
from models.gan_stage import GANStage
from models.generator_pair import GeneratorPair
from models.pta_model import PTAModel
from models.pta_options import PTAOptions
from models.update import StepContext, Update

SIDE = 32
SMALL = {
    "hybrid_width": 24, "hybrid_depth": 2, "hybrid_heads": 2, "hybrid_mlp": 32, "hybrid_patch": 8, "hybrid_features": 4,
    "netD": "n_layers", "n_layers_D": 1, "ndf": 4,
}  # fmt: skip
SMALL_SGP = {"sgp_input": 32, "sgp_patch": 8, "sgp_width": 32, "sgp_depth": 1, "sgp_heads": 2, "sgp_embedding": 16}


def smooth_images(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(-1, 1)


def batch(n: int = 4, key: int = 0) -> Batch:
    mask = torch.ones(n, 1, SIDE, SIDE)
    mask[..., :12] = 0
    levels, index = torch.linspace(0.1, 0.9, n), torch.arange(n)
    return Batch(
        smooth_images(n, 1), smooth_images(n, 2), mask, mask.flip(-1), levels, levels, index, index, index + key
    )


def in_double(data: Batch) -> Batch:
    return data._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def context(micro_batch: int = 4, **more: object) -> StepContext:
    return StepContext(torch.device("cpu"), micro_batch, **more)


def pta(**options: object) -> PTAModel:
    torch.manual_seed(0)
    return PTAModel(PTAOptions(**{**SMALL, **SMALL_SGP, "lsc_blocks": 8, **options}), (SIDE, SIDE))


def cycle_gan(**options: object) -> CycleGANModel:
    torch.manual_seed(0)
    return CycleGANModel(CycleGANOptions(**{**SMALL, **options}), (SIDE, SIDE))


def gan_stage(model: GeneratorPair) -> GANStage:
    (stage,) = (stage for stage in model.stages if isinstance(stage, GANStage))
    return stage


def last_step(model: GeneratorPair, data: Batch, where: StepContext) -> dict[str, Tensor]:
    """A step of the model's last stage."""
    stage = model.stages[-1]
    stage.begin(model)
    return stage.step(data, where)


class WholeGraph(Update):
    """The same loss as one graph: unweighted `terms` and their weighted sum `total`, both with gradients to come."""

    def __init__(self, where: StepContext) -> None:
        self.context, self.terms, self._fraction = where, {}, 1.0
        self.total = torch.zeros(())

    def add(self, name: str, weight: float, term: Tensor) -> None:
        self.terms[name] = self.terms[name] + term if name in self.terms else term
        self.total = self.total + weight * term

    hold = add

    def cut(self, image: Tensor) -> Tensor:
        return image

    def join(self, leaf: Tensor | None = None) -> None: ...


def generator_losses(model: GeneratorPair, data: Batch, where: StepContext | None = None) -> tuple[WholeGraph, dict]:
    """The generators' loss as one graph, and the syntheses by domain."""
    whole = WholeGraph(where or context())
    return whole, gan_stage(model).losses(data, whole)


def snapshot(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, Tensor], model: torch.nn.Module) -> set[str]:
    return {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
