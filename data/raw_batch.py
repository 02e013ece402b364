"""A batch of slices as the cache stores them, which goes to the device because it is a fifth of the prepared batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TensorFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RawGroup:
    """n slices of one size and type.

    items: (n,) int64 positions of the slices in the batch.
    pixels: (n, H, W) uint8, float32, or int16 with the bits of uint16, which torch hardly supports.
    bits: (n, ceil(H W / 8)) uint8, masks packed by `np.packbits`.
    crops: (n, 3) int64 top, left, flip, see `TrainTransform.draw_crops`.
    """

    items: Tensor
    pixels: Tensor
    bits: Tensor
    crops: Tensor

    def map(self, function: TensorFunction) -> RawGroup:
        """The group with `function` applied to every tensor."""
        return RawGroup(function(self.items), function(self.pixels), function(self.bits), function(self.crops))


@dataclass(frozen=True)
class RawBatch:
    """N items before preparation. A, B: slices, grouped by size and type; the other fields are those of `Batch`."""

    A: tuple[RawGroup, ...]
    B: tuple[RawGroup, ...]
    p_A: Tensor
    p_B: Tensor
    index_A: Tensor
    index_B: Tensor
    key: Tensor

    def _map(self, function: TensorFunction) -> RawBatch:
        A, B = (tuple(group.map(function) for group in groups) for groups in (self.A, self.B))
        return RawBatch(A, B, *map(function, (self.p_A, self.p_B, self.index_A, self.index_B, self.key)))

    def to(self, device: torch.device) -> RawBatch:
        """The batch on `device`; `key` stays on the CPU, where random numbers are drawn."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, key=self.key)

    def pin_memory(self) -> RawBatch:
        """The batch in page-locked memory, for asynchronous copies to a GPU; called by DataLoader."""
        return self._map(lambda tensor: tensor.pin_memory())

    def __len__(self) -> int:
        return len(self.key)
