"""How many processors this process may use, how many threads compute, and how these wait for each other."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

# What a user may have set: OpenMP's own variable, and those of GCC's and of LLVM's and Intel's library
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch takes the first of them that is set
SPINS = "10000"  # turns of GCC's OpenMP before a thread sleeps
CGROUPS = Path("/sys/fs/cgroup")


def sleep_while_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep soon while they wait for each other. It has to be called before torch is imported.

    By default they spin for long. Beside another program a thread that spins keeps the processor from the very thread
    that it waits for, until the system takes it away: a step then takes many times as long. Threads that sleep at once
    lose a third of the speed where nothing else runs (docs/benchmarks/speed.md). What the user has set about it stays.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS


def how_they_wait(environment: Mapping[str, str] = os.environ) -> str:
    """What is said of it at the start of a run."""
    found = [f"{name}={environment[name]}" for name in WAITING if name in environment]
    if not found:
        return "which spin while they wait"
    return "which soon sleep while they wait" if found == [f"GOMP_SPINCOUNT={SPINS}"] else f"with {', '.join(found)}"


def usable_processors(groups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Number of processors that this process may keep busy, at least 1: by affinity, and by its control group's quota.

    A container that is limited to 2 of 64 processors sees all 64; threads beyond its quota only wait.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(groups, own)
    return usable if quota is None else max(1, min(usable, int(quota + 0.5)))


def _quota(groups: Path, own: Path) -> float | None:
    """Processors that the control groups of this process grant, version 2 or 1; None: no limit, or no Linux."""
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return None
    granted: list[float] = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / "cpu" if controllers else groups
        place = root / path.lstrip("/")
        for folder in (
            place,
            *place.parents,
        ):  # a limit of any group above holds too; in a container its own is the root
            granted += _quota_of(folder)
            if folder == root:
                break
    return min(granted, default=None)


def _quota_of(folder: Path) -> list[float]:
    """The limit of one control group, if it has one."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return [int(quota) / int(period)] if quota != "max" else []
    with suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    return []
