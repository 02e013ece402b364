"""Passes through networks: any generator on an image, several at once, and their number formats."""

from __future__ import annotations

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


def translate_all(
    generator: nn.Module, inputs: list[tuple[Tensor, Tensor | None]], *, apart: bool
) -> list[tuple[Tensor, Tensor | None]]:
    """`translate` of several (image, mask), in one pass unless they must stay `apart`: batch statistics would mix them.

    Either all have a mask or none.
    """
    if apart or len({image.shape[1:] for image, _ in inputs}) > 1:
        return [translate(generator, image, mask) for image, mask in inputs]
    masks = [mask for _, mask in inputs if mask is not None]
    images, logits = translate(generator, torch.cat([x for x, _ in inputs]), torch.cat(masks) if masks else None)
    sizes = [len(image) for image, _ in inputs]
    each_logits = [None] * len(inputs) if logits is None else logits.split(sizes)
    return list(zip(images.split(sizes), each_logits, strict=True))
