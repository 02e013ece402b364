"""Random numbers that belong to an item, not to its batch: every item has a key, and every use of chance a name.

So the same item meets the same chance in any batch, micro-batch or process, and after any restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


@torch.autocast("cpu", enabled=False)  # drawn within a step, whose mixed precision would round it
def drawn(keys: Tensor, purpose: str, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    """What `draw` makes of each item's own generator (on the CPU), stacked: (N, …).

    Args:
        keys: (N,) int64 on the CPU, see `Batch.key`.
        purpose: what the numbers are for; two purposes have nothing in common.
        draw: gives tensors of one shape.
    """
    generator = torch.Generator()
    if not len(keys):  # a process may have none of a batch
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
