"""What changes slowly over a low-field image: taken from a slice of A at the same level of another head.

A simulated low-field image of b has the tissues' grey values, but its smooth part is b's: receive fields, and regions
that are bright at one field strength and dark at the other, like the deep grey nuclei. A slice of A shows both as they
are at low field. Fourier domain adaptation (Yang and Soatto 2020) likewise gives an image the low frequencies of some
other one; here the content is alike and the heads are laid over each other.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.networks.blur import gaussian_blur
from models.passes import full

REACH = 1 / 16  # standard deviation of the local mean, in parts of the longer side: 15 mm of a field of view of 240 mm
CALM = 0.02  # added to both parts of a local mean, so that the few pixels at a head's border do not decide
MOST = 2.0  # largest change in grey values, either way


@torch.no_grad()
def shading(image: Tensor, mask: Tensor, partner: Tensor, partner_mask: Tensor) -> Tensor:
    """Factors (N, 1, H, W) that give each image its partner's local mean, within [1 / MOST, MOST].

    Args: images (N, 1, H, W) in [-1, 1], -1 being no signal; masks (N, 1, H, W) in {0, 1}. Where a mask is empty the
        factors are those of a head that fills the image.
    """
    if not len(image):
        return torch.ones_like(image)
    ours = local_mean(image, mask)
    theirs = functional.grid_sample(
        local_mean(partner, partner_mask), overlay(mask, partner_mask), padding_mode="border", align_corners=False
    )
    return (theirs / ours).clamp(1 / MOST, MOST)


def local_mean(image: Tensor, mask: Tensor) -> Tensor:
    """Mean signal (N, 1, H, W), above 0, of the head around each pixel of images in [-1, 1]."""
    side = max(image.shape[-2:])
    sigma = side * REACH
    width = 2 * min(round(3 * sigma), min(image.shape[-2:]) - 1) + 1
    signal = (full(image) + 1) / 2 * mask
    return (gaussian_blur(signal, sigma, width) + CALM) / (gaussian_blur(mask, sigma, width) + CALM)


def overlay(mask: Tensor, partner_mask: Tensor) -> Tensor:
    """Where the partner's image is read for each pixel, (N, H, W, 2) as for `grid_sample`: its head laid over ours.

    Centre and extent (standard deviation along each axis) of the masks agree afterwards; the heads are not turned.
    """
    ours, theirs = _centre_and_extent(mask), _centre_and_extent(partner_mask)
    lines = []
    for axis, (centre, extent), (their_centre, their_extent) in zip((0, 1), ours, theirs, strict=True):
        places = _places(mask.shape[-2:][axis], mask)
        lines.append((places - centre[:, None]) / extent[:, None] * their_extent[:, None] + their_centre[:, None])
    y, x = lines
    height, width = mask.shape[-2:]
    return torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)


def _centre_and_extent(mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each mask (N, 1, H, W), along y and then x, in parts of half a side: mean and standard deviation, (N,) each.

    An empty mask counts as a full one.
    """
    mask = torch.where(mask.sum((1, 2, 3), keepdim=True) > 0, mask, torch.ones_like(mask))
    found = []
    for across in (-1, -2):
        profile = mask.sum((1, across))
        weights = profile / profile.sum(1, keepdim=True)
        places = _places(profile.shape[1], mask)
        centre = (weights * places).sum(1)
        variance = (weights * (places - centre[:, None]).square()).sum(1)
        found.append((centre, variance.sqrt().clamp(min=1 / profile.shape[1])))
    return found


def _places(n: int, like: Tensor) -> Tensor:
    """Middles (n,) of the pixels of an axis that runs from -1 to 1."""
    return (2 * torch.arange(n, dtype=like.dtype, device=like.device) + 1) / n - 1
