"""Checks that a checkpoint's state belongs to this training; torch alone would fail only at the next step.

The checksum shows that the file is complete, and it holds only tensors and plain values. These checks detect the state
of other networks or of another version, by its parts, shapes and counts. Values are not checked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.image_pool import ImagePool


def load_optimiser(optimiser: torch.optim.Optimizer, state: Any, name: str) -> None:
    """Restore moments and learning rate from an Adam's `state_dict()`; all other settings stay those of `optimiser`.

    Raises: ValueError, LookupError, TypeError: not a state of this optimiser, named `name`; nothing was changed.
    """
    place, own, groups = f"optimiser {name}", optimiser.state_dict()["param_groups"], state["param_groups"]
    if [group["params"] for group in groups] != [group["params"] for group in own]:
        raise ValueError(f"{place} has other groups of parameters")
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for key, moments in dict(state["state"]).items():
        if key not in range(len(parameters)):
            raise ValueError(f"{place} has moments of parameter {key!r}, but only {len(parameters)} parameters")
        _check_moments(moments, parameters[key], f"{place}, parameter {key}")
    taken = [{**mine, "lr": float(group["lr"])} for mine, group in zip(own, groups, strict=True)]
    optimiser.load_state_dict({"state": state["state"], "param_groups": taken})


def _check_moments(moments: Any, parameter: Tensor, place: str) -> None:
    if not isinstance(moments, dict) or moments.keys() != {"step", "exp_avg", "exp_avg_sq"}:
        raise ValueError(f"{place} has other moments than Adam's")
    check_tensor(moments["step"], torch.Size(), torch.float32, f"{place}, step")
    for part in ("exp_avg", "exp_avg_sq"):
        check_tensor(moments[part], parameter.shape, parameter.dtype, f"{place}, {part}")


def check_tensor(value: Any, shape: torch.Size, dtype: torch.dtype, place: str) -> None:
    """Raise ValueError unless `value` is a tensor of that shape and dtype."""
    found = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else "no tensor"
    need = f"{tuple(shape)} {dtype}"
    if found != need:
        raise ValueError(f"{place} is {found}, need {need}")


def load_pool(pool: ImagePool, state: Any, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    """Restore a pool from its `state_dict()`; images are of `shape` and `dtype`.

    Raises: ValueError, LookupError, TypeError: not a state of this pool, named `name`.
    """
    images = state["images"]
    if len(images) > pool.size:
        raise ValueError(f"pool {name} has {len(images)} images, at most {pool.size} are allowed")
    for i, image in enumerate(images):
        check_tensor(image, torch.Size(shape), dtype, f"pool {name}, image {i}")
    pool.load_state_dict(state)


def count_in(value: Any, place: str) -> int:
    """`value`, which must be a whole number from 0. Raises ValueError."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{place} is {value!r}, need a whole number from 0")
    return value
