"""Stops a training that has diverged, names the loss or gradient that is not finite, and keeps it from being saved."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.update import StepContext
from util.errors import UserError

SMALLEST_SCALE = 2.0**-10  # of the float16 loss scale, which starts at 65536 and halves at every overflow


def finite(model: nn.Module, losses: Mapping[str, Tensor], context: StepContext, place: str) -> dict[str, float]:
    """Check that the losses and the gradients of a step are finite. Returns the losses as numbers. Syncs the device.

    Args:
        model: its parameters still hold the step's gradients, summed over all processes.
        losses: this process' contributions to the losses.
        place: step, stage and last good state, for the message.
    Raises:
        UserError: a loss or a gradient is not finite; the message names the first. In float16 gradients overflow now
            and then and the scaler skips such a step, so this is an error only if the loss scale has become tiny.
            Raised in every process alike.
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
            raise UserError(f"float16 gradients overflow at every loss scale at {place}; --amp bf16 or off may help")
        return numbers
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if not math.isfinite(_largest(gradients.values())):
        name = next(name for name, gradient in gradients.items() if not math.isfinite(_largest([gradient])))
        network, _, parameter = name.partition(".")
        raise UserError(f"the gradient of {network} ({parameter}) is not finite at {place}; a smaller --lr may help")
    return numbers


def _largest(tensors: object) -> float:
    """The largest absolute value; NaN if any value is NaN."""
    return float(torch.nn.utils.get_total_norm(tensors, math.inf))  # type: ignore[arg-type]
