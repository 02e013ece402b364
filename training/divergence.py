"""A training that has diverged stops, says what is no longer finite, and never saves that state."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.update import StepContext
from util.errors import UserError

SMALLEST_SCALE = 2.0**-10  # of float16's loss: halved at every overflow, from 65536


def finite(model: nn.Module, losses: Mapping[str, Tensor], context: StepContext, place: str) -> dict[str, float]:
    """The losses as numbers, once they and the gradients of their step are known to be finite. Waits for the device.

    Args:
        model: its parameters still have the step's gradients, summed over all processes.
        losses: this process' summands.
        place: step, stage and last good state, for the message.
    Raises:
        UserError: a loss is not finite, or a network's gradient; the message names the first. In float16 gradients
            overflow now and then, and such a step is left out; in every process alike, if they never stop to.
    """
    numbers: dict[str, float] = {}
    for part in context.processes.gathered({name: float(value) for name, value in losses.items()}):
        for name, value in part.items():
            numbers[name] = numbers.get(name, 0.0) + value
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise UserError(f"loss '{name}' is {value} at {place}; a smaller --lr may help")
    if context.scaler.is_enabled():
        if context.scaler.get_scale() < SMALLEST_SCALE:
            raise UserError(f"float16 gradients overflow whatever their scale at {place}; --amp bf16 or off may help")
        return numbers
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if not math.isfinite(_largest(gradients.values())):
        name = next(name for name, gradient in gradients.items() if not math.isfinite(_largest([gradient])))
        network, _, parameter = name.partition(".")
        raise UserError(f"the gradient of {network} ({parameter}) is not finite at {place}; a smaller --lr may help")
    return numbers


def _largest(tensors: object) -> float:
    """The largest absolute value; NaN if there is one."""
    return float(torch.nn.utils.get_total_norm(tensors, math.inf))  # type: ignore[arg-type]
