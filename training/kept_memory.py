"""How much memory autograd keeps for the backward pass of a training step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from data.batch import Batch
from models.stage import Stage
from models.update import StepContext, Update


class KeptMemory:
    """Bytes of the tensors that autograd keeps: now, and `most` at any time. Storages in `excluded` do not count."""

    def __init__(self, excluded: set[int], limit: int | None) -> None:
        self._excluded, self._limit = excluded, limit
        self._uses: Counter[int] = Counter()  # by a storage's address: autograd may keep a storage several times
        self._now = self.most = 0

    def take(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        self._uses[address] += 1
        if self._uses[address] > 1 or address in self._excluded:
            return
        self._now += storage.nbytes()
        self.most = max(self.most, self._now)
        if self._limit is not None and self._now > self._limit:
            raise MemoryError(f"a step keeps more than {self._limit} bytes")

    def release(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        self._uses[address] -= 1
        if not self._uses[address] and address not in self._excluded:
            self._now -= storage.nbytes()


class _Kept:
    """A tensor that autograd keeps, counted until it is dropped. Detached: its graph would keep it alive for ever."""

    def __init__(self, tensor: Tensor, memory: KeptMemory) -> None:
        self.tensor, self._memory = tensor.detach(), memory
        memory.take(tensor.untyped_storage())

    def __del__(self) -> None:
        self._memory.release(self.tensor.untyped_storage())


@contextmanager
def kept_memory(model: nn.Module, context: StepContext) -> Iterator[KeptMemory]:
    """Count what autograd keeps for the work in the block; the model's parameters and buffers do not count.

    Afterwards random states and buffers (running statistics) are what they were before.

    Raises: MemoryError: autograd keeps more than `context.room`.
    """
    excluded = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    memory = KeptMemory(excluded, context.room)
    buffers = [buffer.clone() for buffer in model.buffers()]
    devices = [context.device] if context.device.type == "cuda" else []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Kept(tensor, memory), lambda kept: kept.tensor)
    with torch.random.fork_rng(devices), hooks:
        yield memory
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


def kept_bytes(model: nn.Module, stage: Stage, batch: Batch, context: StepContext) -> int:
    """The most bytes that autograd keeps at once in a step of `stage` on `batch`, in the first optimiser's update.

    Computes gradients and drops them; no weight changes. Call `stage.begin(model)` first.

    Raises: as `kept_memory`.
    """
    optimiser = next(iter(stage.optimisers.values()))
    try:
        with kept_memory(model, context) as memory, context.autocast():
            stage.losses(batch, Update(optimiser, context))
    finally:
        optimiser.zero_grad(set_to_none=True)
    return memory.most
