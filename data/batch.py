"""What a dataset hands to a model, and the pairs of slices that a model may ask a dataset for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# how a stage's epoch is drawn: every slice of A once, or batches of distinct levels
SHUFFLED, LEVELS = SAMPLINGS = ("shuffled", "levels")
# what shares a crop and a flip: nothing; the two slices of an item, whose pixels a loss compares; or all slices of a
# batch, in which a loss compares any two
OWN, PAIR, BATCH = PLACES = ("own", "pair", "batch")
Levels = tuple[NDArray[np.floating], NDArray[np.floating]]  # of all slices of A and of B


@dataclass(frozen=True)
class Batch:
    """N low-field slices and N high-field partners; not pairs, unless the dataset mode says so.

    A, B: (N, 1, H, W) float32 intensities in [-1, 1], background -1.
    mask_A, mask_B: (N, 1, H, W) float32 foreground masks in {0, 1}.
    p_A, p_B: (N,) float32 relative levels in [0, 1], increasing towards superior (right, anterior).
    index_A, index_B: (N,) int64 positions in the dataset's slice lists.
    key: (N,) int64, a random key for each item of an epoch. All the randomness of an item derives from its key, so the
        number of processes and the split into micro-batches do not change it.
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

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(**{field.name: function(getattr(self, field.name)) for field in dataclasses.fields(self)})

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`; `key` stays on the CPU, where random numbers are drawn."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        return dataclasses.replace(moved, key=self.key)

    def image(self, domain: str) -> Tensor:
        """A or B."""
        return self.A if domain == "A" else self.B

    def mask(self, domain: str) -> Tensor:
        """mask_A or mask_B."""
        return self.mask_A if domain == "A" else self.mask_B

    def rows(self, start: int, stop: int) -> Batch:
        """Items `start` to `stop`, `stop` excluded."""
        return self._map(lambda tensor: tensor[start:stop])

    def items(self, positions: Sequence[int]) -> Batch:
        """The items at these positions, in this order."""
        wanted = torch.tensor(positions)
        return self._map(lambda tensor: tensor.index_select(0, wanted.to(tensor.device, non_blocking=True)))

    def __len__(self) -> int:
        return self.A.shape[0]


@dataclass(frozen=True)
class Pairs:
    """E pairs of a low-field and a high-field slice that an epoch draws from, ordered by b.

    a, b: (E,) int64 positions in the dataset's slice lists; every position of B occurs.
    share: (E,) float64, positive; how often a pair is drawn, compared with the others.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    share: NDArray[np.float64]
