"""Gaussian blur of images, as two products with banded matrices."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def gaussian_blur(x: Tensor, sigma: float, width: int) -> Tensor:
    """x blurred along both axes by a Gaussian of `width` pixels (odd), mirrored at its edges without repeating them.

    On two CPU cores a product with an (H, H) and a (W, W) matrix is six to twenty times as fast as convolutions of one
    channel, backward included (96 and 224 pixels); the numbers are theirs.

    Args:
        x: (N, C, H, W); H and W above width // 2.
        sigma: standard deviation in pixels.

    Returns:
        (N, C, H, W), float32 in mixed precision too: differences of blurred images keep their digits.
    """
    height, width_of_x = x.shape[-2:]
    with torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype is torch.float64 else x.float()
        along_y = _blur_matrix(height, sigma, width, x.dtype, x.device)
        along_x = _blur_matrix(width_of_x, sigma, width, x.dtype, x.device)
        return along_y @ x @ along_x.T


@lru_cache(maxsize=64)
def _blur_matrix(side: int, sigma: float, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(side, side): each row the weights of one blurred pixel, which add up to 1."""
    with torch.no_grad(), torch.inference_mode(False):  # a kept tensor must do for training, whoever asks first
        reach = torch.arange(-(width // 2), width // 2 + 1)
        weights = torch.exp(-0.5 * (reach / sigma) ** 2)
        places = (torch.arange(side)[:, None] + reach).abs()  # mirrored at the first pixel, then at the last
        places = side - 1 - (side - 1 - places).abs()
        matrix = torch.zeros(side, side).scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))
        return matrix.to(device, dtype, non_blocking=True)
