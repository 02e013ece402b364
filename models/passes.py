"""Passes through networks: any generator on an image, and number formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.networks.hybrid import HybridGenerator


def full(x: Tensor) -> Tensor:
    """x in float32 if mixed precision made it shorter; float64 stays."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def translate(generator: nn.Module, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Any generator on x (N, 1, H, W): the image, and the hybrid's foreground logits or None."""
    if isinstance(generator, HybridGenerator):
        return generator(x, mask)
    return generator(x), None


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Within the block no gradients are computed for the networks' weights; those of their inputs are."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
