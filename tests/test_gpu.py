"""What needs a CUDA device: number formats, memory formats, compilation, no waiting, resuming. Skipped elsewhere."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import train_arguments, write_phantom
from tiny_models import batch, last_step, pta

import train
from models.generator_pair import GeneratorPair
from models.update import StepContext
from options.train_options import TrainOptions
from training.acceleration import accelerate, compile_networks
from util.checkpoint import checkpoint_path, read_checkpoint

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
GPU = "cuda"
STEPS = 3


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def trained(dtype: torch.dtype | None = None, **options: object) -> tuple[dict[str, float], GeneratorPair]:
    """Losses of the third step on the GPU, and the model."""
    model = pta(pool_size=0).to(GPU)
    device = torch.device(GPU, 0)
    accelerate(model, TrainOptions(**options))  # type: ignore[arg-type]
    compile_networks(model, TrainOptions(**options), device)  # type: ignore[arg-type]
    where = StepContext(device, 4, dtype)
    if dtype is torch.float16:
        where.scaler = torch.amp.GradScaler(GPU, init_scale=256.0)
    for step in range(STEPS):
        L = last_step(model, batch(key=4 * step).to(device), where)
        where.end_step()
    return {name: value.item() for name, value in L.items()}, model


@pytest.fixture(scope="module")
def on_cpu() -> dict[str, float]:
    model, where = pta(pool_size=0), StepContext(torch.device("cpu"), 4)
    for step in range(STEPS):
        L = last_step(model, batch(key=4 * step), where)
    return {name: value.item() for name, value in L.items()}


@pytest.mark.parametrize(("dtype", "near"), [(None, 1e-2), (torch.bfloat16, 0.05), (torch.float16, 0.05)])
def test_a_gpu_trains_as_a_cpu_in_every_number_format(
    dtype: torch.dtype | None, near: float, on_cpu: dict[str, float]
) -> None:
    """The same chance on every device: it is drawn on the CPU from each item's key."""
    assert trained(dtype)[0] == pytest.approx(on_cpu, rel=near)


@pytest.mark.parametrize("option", ["channels_last", "checkpoint_activations", "compile"])
def test_accelerated_steps_are_the_same_steps(option: str, on_cpu: dict[str, float]) -> None:
    assert trained(**{option: True})[0] == pytest.approx(on_cpu, rel=1e-2)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_step_never_waits_for_the_device(dtype: torch.dtype | None) -> None:
    device = torch.device(GPU, 0)
    model, where = pta(lf_noise=0.1, lf_bias=0.1).to(device), StepContext(device, 2, dtype)
    data = batch().to(device)
    last_step(model, data, where)  # the first one chooses kernels and makes the optimisers' states
    where.end_step()
    with waiting_is_an_error():
        last_step(model, dataclasses.replace(data, key=data.key + 4), where)


def test_a_run_is_resumed_and_tested_on_the_gpu(tmp_path: Path) -> None:
    data = write_phantom(tmp_path / "data")
    more = ("--gpu_ids=0", "--name=run", "--lsc_features=2", "--num_threads=1", "--amp=auto")
    train.main(train_arguments(data, tmp_path, "pta_hybrid", *more))
    train.main(train_arguments(data, tmp_path, "pta_hybrid", *more, "--continue_train", "--n_epochs=2"))
    saved = read_checkpoint(checkpoint_path(tmp_path / "run", "latest"))
    assert saved["position"]["epoch"] == 3
    assert all(weight.isfinite().all() for weight in saved["model"].values() if weight.is_floating_point())
    command = [sys.executable, "test.py", f"--dataroot={data}", f"--checkpoints_dir={tmp_path}", "--name=run"]
    subprocess.run([*command, f"--results_dir={tmp_path / 'results'}"], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "results" / "run" / "test_latest" / "metrics.json").exists()


def test_one_process_of_torchrun_trains_on_its_gpu(tmp_path: Path) -> None:
    data = write_phantom(tmp_path / "data")
    argv = [a for a in train_arguments(data, tmp_path, "cycle_gan", "--name=run") if not a.startswith("--gpu_ids")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=gpu", "train.py", *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    processes = read_checkpoint(checkpoint_path(tmp_path / "run", "latest"))["processes"]
    assert len(processes) == torch.cuda.device_count()
