"""The discrete way of a Schroedinger bridge, towards a generator's picture of where it ends (Kim et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Picture = Callable[[Tensor, Tensor], Tensor]  # of x (N, 1, H, W) at the times (N,): the end of the way, (N, 1, H, W)


def times_of(steps: int) -> Tensor:
    """Times (steps + 1,) from 0 to 1; the first step is half of the way, later ones get shorter, as published."""
    inner = torch.cumsum(torch.tensor([0.0, *(1 / (i + 1) for i in range(steps - 1))]), 0)
    inner = inner / inner[-1] if steps > 1 else torch.ones(1)
    return torch.cat([torch.zeros(1), 0.5 + 0.5 * inner])


def with_time(x: Tensor, time: Tensor) -> Tensor:
    """The image with its time (N,) as a second channel, from -1 at the beginning of the way to 1: (N, 2, H, W)."""
    return torch.cat([x, (2 * time.to(x) - 1).view(-1, 1, 1, 1).expand_as(x)], 1)


@torch.no_grad()
def walked(start: Tensor, picture: Picture, times: Tensor, index: Tensor, noise: Tensor | None, tau: float) -> Tensor:
    """Where each image is at its own time: x_t of its `index`, (N, 1, H, W).

    A step goes towards the picture of the end, as far as its part of what is left of the way, and adds Gaussian noise
    of the bridge's variance.

    Args:
        start: (N, 1, H, W), x at time 0. times: see `times_of`. index: (N,) int64, 0: the start.
        noise: (N, steps - 1, H, W) standard normal, one map for each step; None: the mean way. tau: its strength.
    """
    x = start
    for i in range(1, int(index.max()) + 1 if len(index) else 0):
        step, left = times[i] - times[i - 1], times[-1] - times[i - 1]
        part = step / left
        towards = (1 - part) * x + part * picture(x, times[i - 1].expand(len(x)))
        if noise is not None:
            towards = towards + torch.sqrt(step * (1 - part) * tau) * noise[:, i - 1 : i]
        x = torch.where((index >= i).view(-1, 1, 1, 1), towards.to(x), x)
    return x
