"""The figure of validation: how close made images come to true ones, inside the head."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def psnr_in_head(images: Iterable[tuple[Tensor, Tensor, Tensor]]) -> float:
    """PSNR in dB (data range 1) over all pixels of all masks; NaN without any.

    Args: images: (made, true, mask), (N, 1, H, W) each, intensities in [-1, 1]; drawn one after the other.
    """
    totals = torch.zeros(2)
    for made, true, mask in images:
        error = ((made.float() - true) / 2).square() * mask
        totals += torch.stack([error.sum(), mask.sum()]).cpu()
    return -10 * float(torch.log10(totals[0] / totals[1]))
