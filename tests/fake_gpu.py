"""A GPU that computes nothing, for machines without one: shapes, types and devices are followed, numbers are not.

Tensors on the CPU stay what they are. What would fail on a GPU fails here as well: a CPU tensor that meets one of the
GPU, a value or a size that only the GPU knows, and, where `waiting` is forbidden, a copy for which the CPU would wait.
Kernels and gradients are torch's own affair: `backward` gives every leaf that it would reach zeros for a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from models.base_model import BaseModel

DEVICE = torch.device("cuda", 0)
NEW_COPY, COPY_INTO = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default


class Waits(AssertionError):
    """The CPU would wait for the GPU."""


class FakeGPU(FakeTensorMode):
    """Inside, `.to("cuda")` and work on its results are followed on paper."""

    def __init__(self, *, waiting: bool = False) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._waiting = waiting

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        on_gpu = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        if not on_gpu and not any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        if not self._waiting:
            _check_copy(func, args, kwargs)
        return super().__torch_dispatch__(func, types, args, kwargs)

    def move(self, model: BaseModel) -> BaseModel:
        """`model.to(DEVICE)`, its optimisers too."""
        moved: dict[int, Tensor] = {}

        def move(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            if id(tensor) not in moved:
                there = self.from_tensor(tensor)
                with self:
                    there = there.detach().to(DEVICE, non_blocking=True)
                if isinstance(tensor, nn.Parameter):
                    there = nn.Parameter(there, requires_grad=tensor.requires_grad)
                moved[id(tensor)] = there
            return moved[id(tensor)]

        for module in model.modules():
            for kept in (module._parameters, module._buffers):
                for name, tensor in kept.items():
                    kept[name] = move(tensor)
        for optimiser in model.optimisers.values():
            for group in optimiser.param_groups:
                group["params"] = [moved[id(parameter)] for parameter in group["params"]]
        return model


def _check_copy(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    if func is NEW_COPY:
        source, target = args[0].device, torch.device(kwargs.get("device") or args[0].device)
        free = kwargs.get("non_blocking", False)
    elif func is COPY_INTO:
        source, target = args[1].device, args[0].device
        free = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    else:
        return
    if (source.type, target.type) == ("cuda", "cpu"):
        raise Waits("a copy to the CPU")
    if (source.type, target.type) == ("cpu", "cuda") and not free:
        raise Waits("a copy to the GPU without non_blocking")


def backward(ends: Tensor | Sequence[Tensor], gradients: object = None) -> None:
    """In the place of `torch.autograd.backward`, which needs a driver: zeros for every leaf that it would reach."""
    nodes = [end.grad_fn for end in ([ends] if isinstance(ends, Tensor) else ends)]
    met = {*nodes, None}
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaf.grad = torch.zeros_like(leaf)
        further = {following for following, _ in node.next_functions} - met
        met |= further
        nodes += further


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed precision of a GPU that is not there, and gradients without a driver."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.autograd, "backward", backward)
