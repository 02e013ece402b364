"""Free memory: the machine's, or what the control groups of a container or job leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training import memory
from training.memory import LAPTOP, free_bytes, group_free_bytes, known_free_bytes

CPU = torch.device("cpu")
GB = 10**9
UNLIMITED = 9223372036854771712  # how version 1 says that there is no limit


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine; tests fill its /proc and /sys."""
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    return tmp_path


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="ascii")


def machine(root: Path, available: int) -> None:
    write(root / "proc/meminfo", f"MemTotal: 64000000 kB\nMemFree: 1 kB\nMemAvailable: {available // 1000} kB")


def group_v2(place: Path, limit: object, used: int, files: int = 0, high: object = "max") -> None:
    write(place / "memory.max", limit)
    write(place / "memory.high", high)
    write(place / "memory.current", used)
    write(place / "memory.stat", f"anon {used - files}\nactive_file {files // 2}\ninactive_file {files // 2}\nshmem 5")


def group_v1(place: Path, limit: int, used: int, files: int = 0) -> None:
    write(place / "memory.limit_in_bytes", limit)
    write(place / "memory.usage_in_bytes", used)
    stat = f"cache 1\nactive_file 7\ntotal_active_file {files // 2}\ntotal_inactive_file {files // 2}"
    write(place / "memory.stat", stat)


def test_without_groups_it_is_the_machines(root: Path) -> None:
    machine(root, 32 * GB)
    assert group_free_bytes() is None
    assert free_bytes(CPU) == known_free_bytes(CPU) == 32 * GB // 1000 * 1024


def test_a_system_that_tells_nothing(root: Path) -> None:
    assert known_free_bytes(CPU) is None
    assert free_bytes(CPU) == LAPTOP


def test_version_2_counts_file_pages_as_free(root: Path) -> None:
    machine(root, 32 * GB)
    write(root / "proc/self/cgroup", "0::/job")
    group_v2(root / "sys/fs/cgroup/job", 10 * GB, 7 * GB, files=4 * GB)
    assert free_bytes(CPU) == 7 * GB
    group_v2(root / "sys/fs/cgroup/job", 10 * GB, 7 * GB, files=4 * GB, high=8 * GB)
    assert free_bytes(CPU) == 5 * GB, "beyond memory.high it is slowed down until it gives back"
    group_v2(root / "sys/fs/cgroup/job", 10 * GB, 12 * GB)
    assert free_bytes(CPU) == 0


def test_every_group_above_counts(root: Path) -> None:
    """slurm limits the job, whose steps and tasks are groups below it."""
    machine(root, 32 * GB)
    job = root / "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7"
    write(root / "proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0")
    group_v2(job / "step_0/user/task_0", "max", 1 * GB)
    group_v2(job, 6 * GB, 2 * GB)
    group_v2(root / "sys/fs/cgroup/system.slice", 20 * GB, 3 * GB)
    assert free_bytes(CPU) == 4 * GB


def test_a_container_sees_its_own_group_as_the_top(root: Path) -> None:
    machine(root, 32 * GB)
    group_v2(root / "sys/fs/cgroup", 4 * GB, 1 * GB)
    for path in ("/", "/docker/not-shown-here", "/../../elsewhere"):
        write(root / "proc/self/cgroup", f"0::{path}")
        assert free_bytes(CPU) == 3 * GB


def test_the_machine_may_have_less_than_the_limit_leaves(root: Path) -> None:
    machine(root, 2 * GB)
    write(root / "proc/self/cgroup", "0::/")
    group_v2(root / "sys/fs/cgroup", 400 * GB, 1 * GB)
    assert free_bytes(CPU) == 2 * GB // 1000 * 1024


def test_version_1(root: Path) -> None:
    machine(root, 32 * GB)
    lines = "11:cpu,cpuacct:/x\n9:name=systemd:/a:b\n4:memory:/slurm/uid_1/job_7\n0::/"
    write(root / "proc/self/cgroup", lines)
    above = root / "sys/fs/cgroup/memory"
    group_v1(above, UNLIMITED, 20 * GB)
    assert free_bytes(CPU) == 32 * GB // 1000 * 1024
    group_v1(above / "slurm/uid_1/job_7", 5 * GB, 3 * GB, files=1 * GB)
    assert free_bytes(CPU) == 3 * GB


def test_this_machine_has_some() -> None:
    assert 0 < free_bytes(CPU) < 1 << 50
