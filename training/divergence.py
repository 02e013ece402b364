"""A training that has diverged stops, says what is no longer finite, and never saves that state."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from util.errors import UserError


def finite(model: nn.Module, losses: Mapping[str, Tensor], place: str) -> dict[str, float]:
    """The losses as numbers, once they and the gradients of their step are known to be finite. Waits for the device.

    Args:
        model: its parameters still have the step's gradients.
        place: step, stage and last good state, for the message.
    Raises:
        UserError: a loss is not finite, or a network's gradient; the message names the first.
    """
    numbers = {name: float(value) for name, value in losses.items()}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise UserError(f"loss '{name}' is {value} at {place}; a smaller --lr may help")
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if not math.isfinite(_largest(gradients.values())):
        name = next(name for name, gradient in gradients.items() if not math.isfinite(_largest([gradient])))
        network, _, parameter = name.partition(".")
        raise UserError(f"the gradient of {network} ({parameter}) is not finite at {place}; a smaller --lr may help")
    return numbers


def _largest(tensors: object) -> float:
    """The largest absolute value; NaN if there is one."""
    return float(torch.nn.utils.get_total_norm(tensors, math.inf))  # type: ignore[arg-type]
