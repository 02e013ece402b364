"""How much memory a training step needs for its gradients."""

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
    """Bytes of the tensors that autograd keeps at this moment, and the most so far; `own` storages are not counted."""

    def __init__(self, own: set[int], room: int | None) -> None:
        self._own, self._room = own, room
        self._uses: Counter[int] = Counter()  # of a storage, by its address: it may be kept several times
        self._now = self.most = 0

    def take(self, storage: torch.UntypedStorage) -> None:
        place = storage.data_ptr()
        self._uses[place] += 1
        if self._uses[place] > 1 or place in self._own:
            return
        self._now += storage.nbytes()
        self.most = max(self.most, self._now)
        if self._room is not None and self._now > self._room:
            raise MemoryError(f"a step keeps more than {self._room} bytes")

    def release(self, storage: torch.UntypedStorage) -> None:
        place = storage.data_ptr()
        self._uses[place] -= 1
        if not self._uses[place] and place not in self._own:
            self._now -= storage.nbytes()


class _Kept:
    """A tensor that autograd keeps, counted for as long. Without its graph, which would keep the tensor for ever."""

    def __init__(self, tensor: Tensor, memory: KeptMemory) -> None:
        self.tensor, self._memory = tensor.detach(), memory
        memory.take(tensor.untyped_storage())

    def __del__(self) -> None:
        self._memory.release(self.tensor.untyped_storage())


@contextmanager
def kept_memory(model: nn.Module, context: StepContext) -> Iterator[KeptMemory]:
    """Counts what autograd keeps of the work in the block, until its results are dropped; the model's own is left out.

    Neither random numbers nor buffers (running statistics) are other than before when it ends.

    Raises: MemoryError: it is more than `context.room`.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    memory = KeptMemory(own, context.room)
    buffers = [buffer.clone() for buffer in model.buffers()]
    devices = [context.device] if context.device.type == "cuda" else []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Kept(tensor, memory), lambda kept: kept.tensor)
    with torch.random.fork_rng(devices), hooks:
        yield memory
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


def kept_bytes(model: nn.Module, stage: Stage, batch: Batch, context: StepContext) -> int:
    """Most memory that autograd keeps at once in a step of `stage` on `batch`; the first optimiser's update counts.

    Computes its gradients and drops them; no weight moves. `stage.begin(model)` has been called.

    Raises: as `kept_memory`.
    """
    optimiser = next(iter(stage.optimisers.values()))
    try:
        with kept_memory(model, context) as memory, context.autocast():
            stage.losses(batch, Update(optimiser, context))
    finally:
        optimiser.zero_grad(set_to_none=True)
    return memory.most
