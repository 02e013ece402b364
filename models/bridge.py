"""A Schroedinger bridge in discrete steps, each towards a generator's prediction of x_1 (Kim et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Predictor = Callable[[Tensor, Tensor], Tensor]  # x_1 (N, 1, H, W) by x_t (N, 1, H, W) and the times (N,)


def times_of(steps: int) -> Tensor:
    """Times (steps + 1,) from 0 to 1; the first step is a half, later ones get shorter, as published."""
    inner = torch.cumsum(torch.tensor([0.0, *(1 / (i + 1) for i in range(steps - 1))]), 0)
    inner = inner / inner[-1] if steps > 1 else torch.ones(1)
    return torch.cat([torch.zeros(1), 0.5 + 0.5 * inner])


def with_time(x: Tensor, time: Tensor) -> Tensor:
    """The image with its time (N,) as a second channel, from -1 at time 0 to 1: (N, 2, H, W)."""
    return torch.cat([x, (2 * time.to(x) - 1).view(-1, 1, 1, 1).expand_as(x)], 1)


@torch.no_grad()
def sample_xt(
    x_0: Tensor, predict: Predictor, times: Tensor, index: Tensor, noise: Tensor | None, tau: float
) -> Tensor:
    """x_t of each image at its own time, (N, 1, H, W) (Kim et al. 2024).

    A step goes towards the predicted x_1, as far as its share of the time that is left, and adds Gaussian noise of the
    bridge's variance.

    Args:
        x_0: (N, 1, H, W). times: see `times_of`. index: (N,) int64, of each image's time; 0: x_0 itself.
        noise: (N, steps - 1, H, W) standard normal, one map for each step; None: the mean path. tau: its strength.
    """
    x = x_0
    for i in range(1, int(index.max()) + 1 if len(index) else 0):
        step, left = times[i] - times[i - 1], times[-1] - times[i - 1]
        part = step / left
        towards = (1 - part) * x + part * predict(x, times[i - 1].expand(len(x)))
        if noise is not None:
            towards = towards + torch.sqrt(step * (1 - part) * tau) * noise[:, i - 1 : i]
        x = torch.where((index >= i).view(-1, 1, 1, 1), towards.to(x), x)
    return x
