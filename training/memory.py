"""How many images fit in memory at once."""

from __future__ import annotations

from pathlib import Path

import torch

CPU_SHARE = 0.25  # of the free memory: other programs, optimiser state and the loader want the rest
CPU_MOST = 3 << 30  # bytes; on a CPU more images at once hardly save time
GPU_SHARE = 0.6


def free_bytes(device: torch.device) -> int:
    """Memory still free on the device, or on the machine for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 8 << 30  # not Linux: a laptop's worth


def fitting_micro_batch(bytes_per_image: int, batch_size: int, device: torch.device) -> int:
    """The largest number of images, at most `batch_size`, whose activations fit; at least 1."""
    if bytes_per_image <= 0:
        return batch_size
    free = free_bytes(device)
    room = GPU_SHARE * free if device.type == "cuda" else min(CPU_SHARE * free, CPU_MOST)
    return max(1, min(batch_size, int(room / bytes_per_image)))
