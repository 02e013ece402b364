"""Several processes (torchrun, gloo) do what one does: the same batches, the same weights, one writer, one decision."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import train_arguments, write_phantom
from in_float64 import train_in_float64
from running import ROOT, Started, run, start_together
from torch import nn

import models.gradients
from models.gradients import _buckets
from util.checkpoint import checkpoint_path, read_checkpoint
from util.errors import UserError
from util.processes import Processes, join_processes

QUIET = ("--save_epoch_freq=100",)
# seven slices a domain and batches of four or five: some batches are split unevenly, and one has a single image
STEPS = {
    "pta_hybrid": ("gan", 3, ("--pool_size=0", "--batch_size=5", "--n_epochs_refine=1")),
    "refine": ("refine", 3, ("--pool_size=0", "--batch_size=5", "--n_epochs_refine=2")),
    "hungarian": ("gan", 3, ("--sgp_match=batch", "--syn_form=cos", "--pool_size=0")),
    "wgangp": ("gan", 5, ("--gan_mode=wgangp", "--pool_size=0", "--lf_bias=.1", "--lf_noise=auto", "--batch_size=3")),
    "sgp": ("sgp", 3, ("--sgp_batch_size=5",)),
    "lsc": ("lsc", 3, ("--lsc_batch_size=5",)),
}  # fmt: skip
MODEL = {"refine": "pta_hybrid", "hungarian": "pta_hybrid", "wgangp": "cycle_gan"}


def finished(started: list[Started], status: int = 0) -> str:
    """What they printed, once all have ended as they should; none outlives the test."""
    try:
        ended = [process.finished() for process in started]
    finally:
        for process in started:
            process.kill()
    text = "".join(end.out + end.err for end in ended)
    assert [end.status for end in ended] == [status] * len(started), text
    return text


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("distributed") / "data", slices=4)


def state_after(case: str, processes: int, data: Path, out: Path) -> dict[str, torch.Tensor]:
    """The model's weights after some steps of a stage, in float64."""
    stage, steps, options = STEPS[case]
    argv = train_arguments(data, out / str(processes), MODEL.get(case, case), *QUIET, *options)
    state = out / f"{processes}.pt"
    finished(start_together(train_in_float64, state, stage, steps, argv, count=processes))
    return torch.load(state, weights_only=True)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case == "pta_hybrid" else pytest.mark.slow) for case in STEPS]
)
def test_two_processes_train_as_one(case: str, data: Path, tmp_path: Path) -> None:
    """Equal to 1e-8 after three steps; pta_hybrid goes through SGP, LSC and their partners first."""
    one, two = (state_after(case, processes, data, tmp_path) for processes in (1, 2))
    assert one.keys() == two.keys()
    moved = [name for name, value in one.items() if value.is_floating_point()]
    assert max((one[name] - two[name]).abs().max().item() for name in moved) < 1e-8


@pytest.mark.slow
def test_three_processes_share_batches_of_two(data: Path, tmp_path: Path) -> None:
    """One of them never has an image, and still has the weights of all."""
    argv = train_arguments(data, tmp_path, "cycle_gan", *QUIET, "--batch_size=2", "--n_epochs_decay=0", "--name=run")
    finished(start_together("train.py", *argv, count=3))
    assert read_checkpoint(checkpoint_path(tmp_path / "run", "latest"))["position"]["step"] == 5  # 10 slices


def arguments(data: Path, out: Path, name: str, *more: str) -> list[str]:
    options = ("--pool_size=3", f"--name={name}", "--n_epochs=3", "--n_epochs_refine=2", *QUIET)
    return train_arguments(data, out, "pta_hybrid", *options, *more)


def checksum(out: Path, name: str) -> str:
    return read_checkpoint(checkpoint_path(out / name, "latest"))["sha256"]


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The checksum of two processes' run that is never stopped, for each --amp."""
    out, done = tmp_path_factory.mktemp("straight"), dict[str, str]()

    def of(amp: str) -> str:
        if amp not in done:
            finished(start_together("train.py", *arguments(data, out, amp, f"--amp={amp}"), count=2))
            done[amp] = checksum(out, amp)
        return done[amp]

    return of


@pytest.mark.parametrize(
    ("stage", "amp", "threads"),
    [
        ("gan", "off", 0),
        *(pytest.param(stage, "off", 0, marks=pytest.mark.slow) for stage in ("sgp", "lsc", "refine")),
        *(pytest.param(stage, "bf16", 1, marks=pytest.mark.slow) for stage in ("sgp", "gan")),
    ],
)
def test_a_signal_stops_all_at_one_step_and_the_resumed_run_has_the_same_bits(
    stage: str, amp: str, threads: int, data: Path, tmp_path: Path, straight: Callable[[str], str]
) -> None:
    """A signal that reaches one of them stops all."""
    argv = arguments(data, tmp_path, "stopped", "--print_freq=1", f"--amp={amp}", f"--num_threads={threads}")
    log = tmp_path / "stopped" / "loss_log.csv"
    first, second = started = start_together("train.py", *argv, count=2)
    first.wait_for(lambda: log.exists() and f"\n{stage}," in log.read_text())
    second.signal_group(signal.SIGTERM)
    text = finished(started, 128 + signal.SIGTERM)
    assert text.count("the last good state is") == 1, text
    assert checksum(tmp_path, "stopped") != straight(amp)
    finished(start_together("train.py", *argv, "--continue_train", count=2))
    assert checksum(tmp_path, "stopped") == straight(amp)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes_and_says_so(data: Path, tmp_path: Path) -> None:
    finished(start_together("train.py", *arguments(data, tmp_path, "run"), count=2))
    more = arguments(data, tmp_path, "run", "--continue_train", "--n_epochs_refine=3")
    assert "was saved by 2 processes, now there are 1" in run("train.py", *more).out
    assert len(read_checkpoint(checkpoint_path(tmp_path / "run", "latest"))["processes"]) == 1


@pytest.mark.slow
def test_torchrun_itself(data: Path, tmp_path: Path) -> None:
    """Started, stopped and told of by torchrun, which sends every process a copy of the signal that it gets."""
    argv = arguments(data, tmp_path, "stopped", "--print_freq=1")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py", *argv]
    log = tmp_path / "stopped" / "loss_log.csv"
    with subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True, start_new_session=True) as torchrun:
        while torchrun.poll() is None and not (log.exists() and "\ngan," in log.read_text()):
            time.sleep(0.02)
        os.killpg(torchrun.pid, signal.SIGTERM)
        out, err = torchrun.communicate(timeout=300)
    assert torchrun.returncode != 0 and out.count("the last good state is") == 1, out + err
    done = subprocess.run([*command, "--continue_train"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# pieces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(10, 3), (2, 3), (0, 2), (7, 7), (100, 1)])
def test_parts_are_all_of_a_batch_and_nearly_equal(count: int, size: int) -> None:
    parts = [list(range(count))[Processes(rank, size).part(count)] for rank in range(size)]
    assert [item for part in parts for item in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_alone_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.all_reduce", lambda *a, **k: pytest.fail("sent"))
    processes, ones = Processes(), torch.ones(2)
    assert (processes.gathered(3), processes.agreed("x"), processes.largest(2)) == ([3], "x", 2)
    assert torch.equal(processes.summed(ones), ones) and torch.equal(processes.gather_rows(ones, [2])[0], ones)
    parameter = nn.Parameter(torch.zeros(2))
    models.gradients.GradientSum([parameter], processes).wait()
    assert parameter.grad is None


def test_buckets_keep_order_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.gradients.BUCKET_BYTES", 40)
    gradients = [torch.zeros(n) for n in (4, 4, 4, 30, 2)] + [torch.zeros(2, dtype=torch.float64)]
    assert [[g.numel() for g in bucket] for bucket in _buckets(gradients)] == [[4, 4], [4], [30], [2], [2]]


@pytest.mark.parametrize("wrong", [{"RANK": "2"}, {"RANK": "-1"}, {"LOCAL_RANK": "x"}])
def test_inconsistent_variables_of_torchrun_are_refused(wrong: dict[str, str]) -> None:
    good = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    with pytest.raises(UserError, match="must be set by torchrun"), join_processes(good | wrong):
        pass
