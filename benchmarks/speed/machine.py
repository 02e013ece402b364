"""Rates of the machine itself, measured in the same run for comparison with every measured speed."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

CHANNELS = (64, 256, 512)  # of the convolutions; the best rate counts
PIXELS = 56  # per side
SECONDS = 1.0  # each rate is the best within this time
BANDWIDTH_BYTES = 256 << 20


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Shortest time of a call of `work` in about `SECONDS`, device synchronised; at least three after a warm-up."""

    def once() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        times.append(once())
    return min(times)


def conv_rate(device: torch.device, dtype: torch.dtype, batch: int = 8) -> float:
    """FLOP/s of the fastest 3x3 convolution of 64, 256 and 512 channels, forward, channels last, in `dtype`."""
    rates = []
    for channels in CHANNELS:
        x = torch.randn(batch, channels, PIXELS, PIXELS, device=device, dtype=dtype)
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
        x, weight = (tensor.to(memory_format=torch.channels_last) for tensor in (x, weight))
        flop = 2 * batch * PIXELS**2 * channels**2 * 9
        with torch.no_grad():
            rates.append(flop / best_seconds(lambda x=x, weight=weight: F.conv2d(x, weight, padding=1), device))  # type: ignore[misc]
    return max(rates)


def copy_rate(device: torch.device) -> float:
    """Bytes/s of a large copy on the device; bytes read and bytes written both count."""
    source = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * BANDWIDTH_BYTES / best_seconds(lambda: target.copy_(source), device)
