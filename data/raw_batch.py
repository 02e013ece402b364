"""A batch of slices as the cache holds them: what is sent to the device where it is prepared, a fifth of the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RawGroup:
    """n slices of one size and type.

    rows: (n,) int64, which items of the batch they are. pixels: (n, H, W) uint8, int16 (the bits of uint16, of which
    torch knows little) or float32. bits: (n, ceil(H W / 8)) uint8, masks as `np.packbits` makes them.
    places: (n, 3) int64 top, left, flip, see `TrainTransform.places`.
    """

    rows: Tensor
    pixels: Tensor
    bits: Tensor
    places: Tensor

    def each(self, change: Change) -> RawGroup:
        """With every tensor changed."""
        return RawGroup(change(self.rows), change(self.pixels), change(self.bits), change(self.places))


@dataclass(frozen=True)
class RawBatch:
    """N items before they are prepared. A, B: slices, those of one size and type together; the rest as in `Batch`."""

    A: tuple[RawGroup, ...]
    B: tuple[RawGroup, ...]
    p_A: Tensor
    p_B: Tensor
    index_A: Tensor
    index_B: Tensor
    key: Tensor

    def _each(self, change: Change) -> RawBatch:
        A, B = (tuple(group.each(change) for group in groups) for groups in (self.A, self.B))
        return RawBatch(A, B, *map(change, (self.p_A, self.p_B, self.index_A, self.index_B, self.key)))

    def to(self, device: torch.device) -> RawBatch:
        """On `device`, but for `key`: chance is drawn on the CPU."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, key=self.key)

    def pin_memory(self) -> RawBatch:
        """In memory that a GPU can copy from while others work; a DataLoader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def __len__(self) -> int:
        return len(self.key)
