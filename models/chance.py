"""Random numbers that depend on the item and not on its batch: they follow from the item's key and their purpose.

So an item gets the same random numbers in any batch, micro-batch or process, and after any restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


@torch.autocast("cpu", enabled=False)  # called within a step, whose mixed precision would round the numbers
def drawn(keys: Tensor, purpose: str, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    """Call `draw` with a generator (on the CPU) for each item and stack the results: (N, …).

    Args:
        keys: (N,) int64 on the CPU, see `Batch.key`.
        purpose: what the numbers are for; the numbers for two purposes are independent.
        draw: returns a tensor; its shape is the same for every item.
    """
    generator = torch.Generator()
    if not len(keys):  # a process may have no images of a batch
        return draw(generator).unsqueeze(0)[:0]
    return torch.stack([draw(generator.manual_seed(_seed(key, purpose))) for key in keys.tolist()])


def uniform(keys: Tensor, purpose: str, *shape: int) -> Tensor:
    """(N, *shape) in [0, 1), on the CPU; arguments as `drawn`."""
    return drawn(keys, purpose, lambda generator: torch.rand(shape, generator=generator))


def normal(keys: Tensor, purpose: str, *shape: int) -> Tensor:
    """(N, *shape) from the standard normal distribution, on the CPU; arguments as `drawn`."""
    return drawn(keys, purpose, lambda generator: torch.randn(shape, generator=generator))


def _seed(key: int, purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{purpose} {key}".encode(), digest_size=7).digest())
