"""What a dataset hands to a model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """N low-field slices and N high-field partners; not pairs, unless the dataset mode says so.

    A, B: (N, 1, H, W) float32 intensities in [-1, 1], background -1.
    mask_A, mask_B: (N, 1, H, W) float32 foreground masks in {0, 1}.
    p_A, p_B: (N,) float32 relative levels in [0, 1], increasing towards superior (right, anterior).
    index_A, index_B: (N,) int64 positions in the dataset's slice lists.
    key: (N,) int64, one for each item of an epoch: all that is random about the item follows from it and from nothing
        else, so neither the number of processes nor how a batch is split can change it.
    """

    A: Tensor
    B: Tensor
    mask_A: Tensor
    mask_B: Tensor
    p_A: Tensor
    p_B: Tensor
    index_A: Tensor
    index_B: Tensor
    key: Tensor

    def _each(self, change: object) -> Batch:
        return Batch(**{field.name: change(getattr(self, field.name)) for field in dataclasses.fields(self)})  # type: ignore[operator]

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`, but for `key`: chance is drawn on the CPU."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        return dataclasses.replace(moved, key=self.key)

    def image(self, domain: str) -> Tensor:
        """A or B."""
        return self.A if domain == "A" else self.B

    def mask(self, domain: str) -> Tensor:
        """mask_A or mask_B."""
        return self.mask_A if domain == "A" else self.mask_B

    def rows(self, start: int, stop: int) -> Batch:
        """The part of the batch from row `start` up to `stop`."""
        return self._each(lambda tensor: tensor[start:stop])

    def __len__(self) -> int:
        return self.A.shape[0]
