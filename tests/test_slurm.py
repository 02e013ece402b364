"""The slurm scripts with a made-up slurm on PATH: two "machines" on this one, arguments, signals, requeueing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import train_arguments
from made_up_volumes import write_volumes

import preprocessing_images

ROOT = Path(__file__).resolve().parent.parent
STOPPED = 128 + signal.SIGUSR1
SRUN = """#!/usr/bin/env bash
# as slurm's: the command once on every machine, the worst status
echo "$@" >> "$FAKE/srun.log"
while [[ $1 == --* ]]; do shift; done
for machine in $MACHINES; do SLURM_NODEID=$machine "$@" & pids+=($!); done
echo $$ > "$FAKE/srun.pid"
worst=0
for pid in "${pids[@]}"; do wait "$pid"; status=$?; if (( status > worst )); then worst=$status; fi; done
exit "$worst"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then for machine in $MACHINES; do echo localhost; done; fi
if [ "$1" = requeue ]; then echo "$2" >> "$FAKE/requeued"; fi
"""
TORCHRUN = """#!/usr/bin/env bash
# stands for Python with torchrun: one worker, and status 1 if that does not end well
printf '%s\\n' "$@" >> "$FAKE/arguments"
case $BEHAVIOUR in
saves) {python} -c '
import pathlib, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(138))
pathlib.Path(sys.argv[1]).touch()
signal.pause()' "$FAKE/ready" || exit 1 ;;
fails) exit 1 ;;
esac
"""


class Slurm:
    """One job of a made-up cluster: `sbatch SCRIPT ARGUMENTS` as slurm would run it on its first machine."""

    def __init__(self, folder: Path, machines: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("fake_torchrun", TORCHRUN)):
            (folder / name).write_text(text.replace("{python}", sys.executable))
            (folder / name).chmod(0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM")},
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "FAKE": str(folder),
            "MACHINES": " ".join(map(str, range(machines))),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "pair",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "RENDEZVOUS_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "PYTHON": sys.executable,
        }

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        spooled = self.folder / "slurm_script"  # slurm runs a copy from a folder of its own
        spooled.write_text((ROOT / "scripts" / script).read_text())
        return subprocess.Popen(
            ["bash", str(spooled), *arguments],
            env={**self.environment, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(script, *arguments, **environment)
        text, _ = process.communicate(timeout=300)
        return process.returncode, text

    def warn(self) -> None:
        """SIGUSR1 to every process of the step, as slurmstepd does, but not to the batch script or srun."""
        for pid in descendants(int((self.folder / "srun.pid").read_text())):
            os.kill(pid, signal.SIGUSR1)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


def descendants(pid: int) -> list[int]:
    children = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.05)


def test_arguments_arrive_as_they_were_typed(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path / "slurm", machines=2)
    odd = ["--name", "a b", "--dataroot=$(touch hacked)", "*", "it's", '"', "`id`", ""]
    status, text = slurm.run("slurm_train.sh", *odd, PYTHON=str(tmp_path / "slurm" / "fake_torchrun"), BEHAVIOUR="ends")
    assert status == 0 and not slurm.lines("requeued"), text
    once = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d"]
    once += ["--rdzv_id=4711.0", f"--rdzv_endpoint=localhost:{slurm.environment['RENDEZVOUS_PORT']}", "train.py", *odd]
    assert sorted(slurm.lines("arguments")) == sorted(2 * once)  # of two machines, whose lines may mix
    assert "--ntasks-per-node=1" in slurm.lines("srun.log")[0]
    assert not (ROOT / "hacked").exists() and not (tmp_path / "slurm" / "hacked").exists()


def test_a_warned_job_is_requeued_and_a_failed_one_is_not(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path / "slurm", machines=1)
    python = str(tmp_path / "slurm" / "fake_torchrun")
    status, text = slurm.run("slurm_train.sh", "--name", "x", PYTHON=python, BEHAVIOUR="fails")
    assert status == 1 and not slurm.lines("requeued"), text
    job = slurm.start("slurm_train.sh", "--name", "x", PYTHON=python, BEHAVIOUR="saves", SLURM_GPUS_ON_NODE="4")
    wait_for(slurm.folder / "ready", job)
    slurm.warn()
    text, _ = job.communicate(timeout=60)
    assert job.returncode == STOPPED and slurm.lines("requeued") == ["4711"], text
    assert "--nproc_per_node=4" in slurm.lines("arguments")


def test_what_is_no_program_is_told_before_anything_is_started(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path / "slurm", machines=2)
    for arguments in ([], ["--dataroot", "DATA"]):
        status, text = slurm.run("slurm_run.sh", *arguments)
        assert status == 2 and "is no program here" in text
    assert not slurm.lines("srun.log")


@pytest.mark.slow
def test_two_machines_slice_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    volumes = write_volumes(tmp_path / "volumes")
    preprocessing_images.main([*volumes, "--out", str(tmp_path / "one"), "--workers", "1"])
    slurm = Slurm(tmp_path / "slurm", machines=2)
    status, text = slurm.run("slurm_run.sh", "preprocessing_images.py", *volumes, "--out", str(tmp_path / "two"))
    assert status == 0, text
    assert text.count(": 6 volumes") == 1
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*.*"))
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.slow
def test_a_training_is_saved_requeued_and_continued(phantom: Path, tmp_path: Path) -> None:
    slurm, out = Slurm(tmp_path / "slurm", machines=1), tmp_path / "out"
    arguments = [a for a in train_arguments(phantom, out, "lsc", "--name=run") if "lsc_steps" not in a]
    arguments += ["--lsc_steps=100000", "--save_latest_freq=1000000", "--print_freq=4"]
    for restart in (0, 1):
        job = slurm.start("slurm_train.sh", *arguments, SLURM_RESTART_COUNT=str(restart))
        log = out / "run" / "loss_log.csv"
        before = log.stat().st_size if log.exists() else 0
        end = time.monotonic() + 240
        while not log.exists() or log.stat().st_size <= before:
            assert job.poll() is None, job.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.1)
        slurm.warn()
        text, _ = job.communicate(timeout=120)
        assert job.returncode == STOPPED and "stopped by SIGUSR1" in text, text
        assert (out / "run" / "latest.pt").exists()
    assert slurm.lines("requeued") == ["4711", "4711"]
    assert len(json.loads((out / "run" / "run.json").read_text())["resumed"]) == 1
