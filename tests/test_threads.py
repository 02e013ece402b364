"""Threads of the CPU: how many, by affinity, quota and option, and that they sleep while they wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import train_arguments
from running import run

from util import threads
from util.processes import ALONE, Processes, set_threads
from util.threads import COUNTS, SPINS, WAITING, how_they_wait, sleep_while_waiting, usable_processors

ROOT = Path(__file__).resolve().parent.parent


def test_threads_sleep_unless_the_user_says_otherwise() -> None:
    environment: dict[str, str] = {}
    assert how_they_wait(environment) == "which spin while they wait"
    sleep_while_waiting(environment)
    assert environment == {"GOMP_SPINCOUNT": SPINS}
    assert how_they_wait(environment) == "which soon sleep while they wait"
    for name in WAITING:
        environment = {name: "of the user"}
        sleep_while_waiting(environment)
        assert environment == {name: "of the user"} and how_they_wait(environment) == f"with {name}=of the user"


@pytest.mark.parametrize("program", ["train.py", "test.py"])
def test_the_openmp_of_torch_obeys(program: str) -> None:
    """GCC's library tells its settings when it is loaded: 0 spins. The programs decide before they import torch."""
    code = f"""
import contextlib, sys
import {program.removesuffix(".py")} as program
assert "torch" not in sys.modules
with contextlib.suppress(SystemExit):
    program.main(["--help"])
import torch
print([line for line in open("/proc/self/maps") if "libgomp" in line][:1])
"""
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    command = [sys.executable, "-c", code]
    environment = {**kept, "OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=True)
    if "libgomp" not in done.stdout:
        pytest.skip("this torch has another OpenMP library than GCC's")
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr, done.stderr


def test_a_quota_counts_as_well_as_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    own = tmp_path / "cgroup"
    assert usable_processors(tmp_path, own) == 8  # no control groups at all
    own.write_text("0::/job/step\n")
    step, job = tmp_path / "job" / "step", tmp_path / "job"
    step.mkdir(parents=True)
    assert usable_processors(tmp_path, own) == 8
    for quota, count in (("max 100000", 8), ("350000 100000", 4), ("20000 100000", 1), ("6400000 100000", 8), ("x", 8)):
        (step / "cpu.max").write_text(quota + "\n")
        assert usable_processors(tmp_path, own) == count, quota
    (job / "cpu.max").write_text("200000 100000\n")
    assert usable_processors(tmp_path, own) == 2  # of a group above


def test_a_quota_of_version_1_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    own, place = tmp_path / "own", tmp_path / "cpu"
    own.write_text("4:memory:/elsewhere\n2:cpu,cpuacct:/docker/abc\n")
    place.mkdir()  # in a container the group is the root of what is mounted
    for quota, count in ((-1, 8), (300_000, 3)):
        (place / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (place / "cpu.cfs_period_us").write_text("100000\n")
        assert usable_processors(tmp_path, own) == count


def test_the_threads_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    for name in COUNTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("util.processes.usable_processors", lambda: 6)
    try:
        for asked, variable, processes, count in (
            (None, None, ALONE, 6),
            (5, None, ALONE, 5),
            (5, "3", ALONE, 5),
            (None, None, Processes(local_size=2), 3),
            (None, "1", Processes(local_size=2), 3),  # torchrun's own
            (4, "1", Processes(local_size=2), 4),
        ):
            monkeypatch.setenv(COUNTS[0], variable) if variable else monkeypatch.delenv(COUNTS[0], raising=False)
            set_threads(processes, asked)
            assert torch.get_num_threads() == count
        monkeypatch.setenv(COUNTS[0], "2")
        torch.set_num_threads(2)  # as torch does when it is imported
        set_threads(ALONE, None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_first_line_of_a_run_says_what_was_chosen(phantom: Path, tmp_path: Path) -> None:
    options = ("--name=run", "--no_html", "--cpu_threads=2")
    done = run("train.py", *train_arguments(phantom, tmp_path / "runs", "lsc", *options))
    assert done.status == 0, done.err
    assert f", 2 threads {how_they_wait({'GOMP_SPINCOUNT': SPINS})}), number format" in done.out
    done = run("train.py", "--dataroot=D", "--cpu_threads=0")
    assert done.status == 2 and done.err == "train.py: error: --cpu_threads is 0, it must be at least 1\n"
