"""The processes of one program that torchrun started together, and what they tell each other.

One process by itself is a world of size 1: nothing is sent, and every call gives back what it was given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from util.errors import UserError

T = TypeVar("T")

# the first process may check a large data folder while the others wait; torchrun ends all as soon as one has ended badly
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """This process' place among `size` processes; `local_rank` counts those on its own machine.

    Messages are plain Python values of our own processes. They travel between CPUs (gloo), so no device is waited for.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    messages: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, logs and reports for all."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process' part of `count` items in a row: parts of all processes differ by at most one item."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gathered(self, value: T) -> list[T]:
        """Every process' value, in the order of ranks, in every process."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.messages)
        return values  # type: ignore[return-value]

    def agreed(self, value: T) -> T:
        """The first process' value, in every process."""
        if self.size == 1:
            return value
        values = [value if self.first else None]
        dist.broadcast_object_list(values, src=0, group=self.messages)
        return values[0]  # type: ignore[return-value]

    def largest(self, value: int) -> int:
        """The largest of all processes' values, in every process."""
        if self.size == 1:
            return value
        found = torch.tensor([value])
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.messages)
        return int(found)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors of one shape, in every process; on the tensor's device."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total


@contextmanager
def join_world(environment: Mapping[str, str] = os.environ) -> Iterator[World]:
    """The world that torchrun's variables describe, joined within the block; a world of one without them.

    Raises:
        UserError: the variables do not describe one.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in environment for name in names):
        yield World()
        return
    found = {name: environment[name] for name in names}
    if not all(text.isdecimal() for text in found.values()) or not int(found["RANK"]) < int(found["WORLD_SIZE"]):
        raise UserError(f"{', '.join(f'{n}={v}' for n, v in found.items())}: torchrun sets these, nothing else should")
    rank, size, local_rank = (int(text) for text in found.values())
    if size == 1:
        yield World()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(rank, size, local_rank, dist.new_group(backend="gloo", timeout=PATIENCE))
    finally:
        dist.destroy_process_group()
