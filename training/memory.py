"""How much memory is free, and how many images fit in it at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from training.activations import Activations

CPU_SHARE = 0.25  # of the free memory: other programs, optimiser state and the loader want the rest
CPU_MOST = 512 << 20  # bytes; more images at once save no time on a CPU (docs/benchmarks/speed.md)
GPU_SHARE = 0.6
LAPTOP = 8 << 30  # bytes, where the system does not say

ROOT = Path("/")
# of a control group, by version: its limits, its use, and the names in memory.stat of file pages, which it gives back
V1 = (("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
V2 = (("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file"))


def free_bytes(device: torch.device) -> int:
    """Memory still free on the device; for the CPU on the machine, or what this job's limit leaves if that is less."""
    known = known_free_bytes(device)
    return LAPTOP if known is None else known


def known_free_bytes(device: torch.device) -> int | None:
    """`free_bytes` where the system tells it, else None. A GPU's memory that torch holds and does not use is free."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    rooms = [room for room in (_machine(), group_free_bytes()) if room is not None]
    return min(rooms, default=None)


def _machine() -> int | None:
    try:
        lines = (ROOT / "proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def group_free_bytes() -> int | None:
    """What the limits of this process' control groups leave (containers, slurm jobs; versions 1 and 2); None: no limit.

    Every group above the process' own limits it too. A group that a container does not show is passed over.
    """
    rooms: list[int] = []
    for mount, place, names in _memory_groups():
        for group in (place, *place.parents):
            if group.is_relative_to(mount):
                rooms += _rooms(group, *names)
    return min(rooms, default=None)


def _memory_groups() -> Iterator[tuple[Path, Path, tuple[tuple[str, ...], str, tuple[str, ...]]]]:
    """For each version: where its groups of memory are mounted, this process' own, and the names of its files."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount = ROOT / "sys/fs/cgroup"
            yield mount, mount / path.lstrip("/"), V2
        elif "memory" in controllers.split(","):
            mount = ROOT / "sys/fs/cgroup/memory"
            yield mount, mount / path.lstrip("/"), V1


def _rooms(group: Path, limits: tuple[str, ...], use: str, files: tuple[str, ...]) -> Iterator[int]:
    """What each limit of one group leaves; nothing where there is no such limit or group."""
    for name in limits:
        try:
            limit = int((group / name).read_text(encoding="ascii"))  # "max": no limit, a ValueError
            used = int((group / use).read_text(encoding="ascii"))
            rows = [line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines()]
        except (OSError, ValueError):
            continue
        kept = sum(int(row[1]) for row in rows if len(row) == 2 and row[0] in files)
        yield max(0, limit - used + min(kept, used))


def fitting_micro_batch(
    activations: Activations | None, batch_size: int, device: torch.device, sharing: int = 1
) -> int:
    """How many images at once: as many passes as there must be for their activations to fit, of equal size.

    Args:
        activations: None: steps are never split.
        sharing: so many processes share the machine's memory, each with a GPU of its own if there are GPUs.
    Returns:
        1 to `batch_size`.
    """
    if activations is None:
        return batch_size
    free = free_bytes(device)
    room = GPU_SHARE * free if device.type == "cuda" else min(CPU_SHARE * free / sharing, CPU_MOST)
    fit = max(1, activations.images_in(int(room)))
    passes = -(-batch_size // fit)
    return -(-batch_size // passes)
