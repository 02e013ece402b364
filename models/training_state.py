"""Is what a checkpoint holds a state of this training? torch would find out at the next step, or never."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from models.image_pool import ImagePool

LARGEST = 2**53  # a count
MOVES = ("lr",)  # what training changes of an optimiser's settings
OF_THE_MACHINE = ("foreach", "fused", "capturable", "differentiable")  # how it computes, not what
MAY_GROW = ("T_max",)  # of a scheduler: a run may be continued for longer


def load_optimiser(optimiser: torch.optim.Optimizer, state: Any, name: str) -> None:
    """Take up an Adam's `state_dict()`; how it computes stays as it is here.

    Raises: ValueError: it is not a state of this optimiser, named `name`; nothing was taken up.
    """
    if not isinstance(state, dict) or state.keys() != {"state", "param_groups"}:
        raise ValueError(f"optimiser {name} has other parts")
    mine = optimiser.state_dict()["param_groups"]
    groups = state["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(mine):
        raise ValueError(f"optimiser {name} has other groups of parameters")
    taken = [_group(own, group, f"optimiser {name}") for own, group in zip(mine, groups, strict=True)]
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if not isinstance(state["state"], dict):
        raise ValueError(f"optimiser {name} has no moments by parameter")
    for key, moments in state["state"].items():
        if type(key) is not int or not 0 <= key < len(parameters):
            raise ValueError(f"optimiser {name} has moments of parameter {key!r}, of {len(parameters)}")
        _check_moments(moments, parameters[key], f"optimiser {name}, parameter {key}")
    optimiser.load_state_dict({"state": state["state"], "param_groups": taken})


def _group(own: Mapping[str, Any], group: Any, place: str) -> dict[str, Any]:
    """This group with the learning rate that it had; everything else must be as it is now."""
    if not isinstance(group, dict) or not _number(group.get("lr")) or group["lr"] < 0:
        raise ValueError(f"{place} has no learning rate")
    for name, value in own.items():
        missing = name not in group and name == "params"  # other settings may be newer than the checkpoint's torch
        if missing or (name in group and name not in (*MOVES, *OF_THE_MACHINE) and not _same(group[name], value)):
            raise ValueError(f"{place} has another {name}")
    return {**own, **{name: float(group[name]) for name in MOVES}}


def _check_moments(moments: Any, parameter: Tensor, place: str) -> None:
    if not isinstance(moments, dict) or moments.keys() != {"step", "exp_avg", "exp_avg_sq"}:
        raise ValueError(f"{place} has other moments than Adam's")
    check_tensor(moments["exp_avg"], parameter.shape, parameter.dtype, f"{place}, exp_avg")
    check_tensor(moments["exp_avg_sq"], parameter.shape, parameter.dtype, f"{place}, exp_avg_sq", finite=False)
    if not bool((moments["exp_avg_sq"] >= 0).all()):  # infinite: a gradient was near the largest number
        raise ValueError(f"{place}, exp_avg_sq has a value that is no square")
    step = moments["step"]
    if not isinstance(step, Tensor) or step.shape != () or step.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{place} does not say how often it was updated")
    if not 0 <= float(step) <= LARGEST or float(step) != int(step):
        raise ValueError(f"{place} was updated {float(step)} times")


def check_tensor(value: Any, shape: torch.Size, dtype: torch.dtype, place: str, *, finite: bool = True) -> None:
    """Raise ValueError unless it is a tensor of that shape and type in memory, of finite numbers if asked for."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided:
        raise ValueError(f"{place} is no tensor of numbers")
    if value.shape != shape or value.dtype != dtype:
        found, need = f"{tuple(value.shape)} {value.dtype}", f"{tuple(shape)} {dtype}"
        raise ValueError(f"{place} is {found}, need {need}")
    if finite and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{place} is not finite")


def load_scheduler(scheduler: LRScheduler, state: Any, name: str) -> None:
    """Take up a learning rate's `state_dict()`.

    Raises: ValueError: it is not a state of this scheduler, named `name`; nothing was taken up.
    """
    own, place = scheduler.state_dict(), f"scheduler {name}"
    # names with an underscore are torch's own and change with its versions
    if not isinstance(state, dict) or {n for n in state if n[:1] != "_"} != {n for n in own if n[:1] != "_"}:
        raise ValueError(f"{place} is of another kind")
    for part in ("last_epoch", "_step_count", *MAY_GROW):
        if part in own and not _count(state.get(part), at_least=part in MAY_GROW):
            raise ValueError(f"{place}: {part} is no count")
    rates = state.get("_last_lr")
    if not isinstance(rates, list) or len(rates) != len(own["base_lrs"]) or not all(map(_number, rates)):
        raise ValueError(f"{place} does not say the last learning rate")
    for part, value in own.items():
        if part not in state or part in ("last_epoch", "_step_count", "_last_lr", *MAY_GROW):
            continue
        if not (type(state[part]) is type(value) if part[:1] == "_" else _same(state[part], value)):
            raise ValueError(f"{place} has another {part}")
    scheduler.load_state_dict({part: state[part] for part in own if part in state})


def load_pool(pool: ImagePool, state: Any, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    """Take up a pool's `state_dict()`; images are of `shape` and `dtype`.

    Raises: ValueError: it is not a state of this pool, named `name`.
    """
    images = state["images"]
    if not isinstance(images, list) or len(images) > pool.size:
        raise ValueError(f"pool {name} has no list of at most {pool.size} images")
    for i, image in enumerate(images):
        check_tensor(image, torch.Size(shape), dtype, f"pool {name}, image {i}")
    pool.load_state_dict(state)


def count_in(value: Any, place: str) -> int:
    """`value`, which must be a whole number from 0. Raises ValueError."""
    if not _count(value, at_least=0):
        raise ValueError(f"{place} is no count")
    return value


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _count(value: Any, *, at_least: int) -> bool:
    return type(value) is int and at_least <= value <= LARGEST


def _same(value: Any, other: Any) -> bool:
    """Equal and of one kind; a whole number may be written as a fraction."""
    if isinstance(other, list | tuple):
        return type(value) is type(other) and len(value) == len(other) and all(map(_same, value, other))
    if _number(other):
        return _number(value) and value == other
    return type(value) is type(other) and bool(value == other)
