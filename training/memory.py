"""How much memory is free, and how many images fit into it at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from training.activations import Activations

CPU_FRACTION = 0.25  # of the free memory, for activations: optimiser, loader and other programs need the rest
CPU_MOST = 512 << 20  # bytes; more images at once save no time on a CPU (docs/benchmarks/speed.md)
GPU_FRACTION = 0.6
LAPTOP = 8 << 30  # bytes, assumed if the system does not tell

ROOT = Path("/")
# files of a control group, by version: limits, usage, and the entries of memory.stat with reclaimable file pages
V1 = (("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
V2 = (("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file"))


def free_bytes(device: torch.device) -> int:
    """Free memory of the device in bytes; for a CPU that of the machine or within this job's limit, if that is less."""
    known = known_free_bytes(device)
    return LAPTOP if known is None else known


def known_free_bytes(device: torch.device) -> int | None:
    """`free_bytes` if the system tells it, else None. GPU memory that torch has reserved but not used is free."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    known = [free for free in (_machine_free_bytes(), group_free_bytes()) if free is not None]
    return min(known, default=None)


def _machine_free_bytes() -> int | None:
    try:
        lines = (ROOT / "proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def group_free_bytes() -> int | None:
    """Free bytes within the limits of this process' control groups, versions 1 and 2; None: no limit.

    Containers and slurm jobs set such limits. Groups above the process' own limit it too; a group that is not visible
    in a container is skipped.
    """
    free: list[int] = []
    for mount, own, names in _memory_groups():
        for group in (own, *own.parents):
            if group.is_relative_to(mount):
                free += _free_in_group(group, *names)
    return min(free, default=None)


def _memory_groups() -> Iterator[tuple[Path, Path, tuple[tuple[str, ...], str, tuple[str, ...]]]]:
    """By version: where the memory groups are mounted, this process' own group, and the names of the group's files."""
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


def _free_in_group(group: Path, limits: tuple[str, ...], usage: str, reclaimable: tuple[str, ...]) -> Iterator[int]:
    """Free bytes within each limit of one group; nothing if there is no such limit or group."""
    for name in limits:
        try:
            limit = int((group / name).read_text(encoding="ascii"))  # "max" means no limit and raises ValueError
            used = int((group / usage).read_text(encoding="ascii"))
            entries = [line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines()]
        except (OSError, ValueError):
            continue
        files = sum(int(entry[1]) for entry in entries if len(entry) == 2 and entry[0] in reclaimable)
        yield max(0, limit - used + min(files, used))


def fitting_micro_batch(
    activations: Activations | None, batch_size: int, device: torch.device, local_processes: int = 1
) -> int:
    """The size of a micro-batch: the batch is split into as few equal passes as its activations fit into memory.

    Args:
        activations: memory of a step; None: steps are never split.
        local_processes: processes that share the machine's memory; on GPUs each has one of its own.
    Returns:
        1 to `batch_size`.
    """
    if activations is None:
        return batch_size
    free = free_bytes(device)
    room = GPU_FRACTION * free if device.type == "cuda" else min(CPU_FRACTION * free / local_processes, CPU_MOST)
    fit = max(1, activations.images_in(int(room)))
    passes = -(-batch_size // fit)
    return -(-batch_size // passes)
