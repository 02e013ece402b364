"""Helpers for passes through networks: any generator, number formats, freezing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.networks.hybrid import HybridGenerator


def full(x: Tensor) -> Tensor:
    """Convert bfloat16 and float16 to float32; float32 and float64 stay as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def translate(generator: nn.Module, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Apply any generator to x (N, 1, H, W). Returns the image and the hybrid's foreground logits, else None."""
    if isinstance(generator, HybridGenerator):
        return generator(x, mask)
    return generator(x), None


def hidden_states(generator: nn.Module, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Hidden states (N, C, h, w) of any generator's encoder, from fine to coarse; nothing is decoded."""
    if isinstance(generator, HybridGenerator):
        return generator.hidden(x, mask)
    return generator.hidden(x)  # type: ignore[operator]


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Freeze the networks' weights within the block; gradients still pass through to the inputs."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
