"""Batches from real worker processes: the same as without, and what is said when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import train_arguments
from running import forked_from_a_server, start

from data import sampling
from data.batch import Batch
from data.cache.packed_slices import PackedSlices
from data.cache.slice_cache import SliceCache
from data.raw_batch import RawBatch
from data.sampling import Draws
from data.unaligned_dataset import UnalignedDataset, UnalignedMaskDataset
from data.unaligned_options import UnalignedOptions
from training import loader
from training.loader import explain_worker_deaths, load, load_one
from util.errors import UserError

CPU = torch.device("cpu")


def dataset(phantom: Path, kind: type[UnalignedMaskDataset] = UnalignedMaskDataset) -> UnalignedMaskDataset:
    options = UnalignedOptions(load_size=40, preprocess="resize_and_crop", crop_size=32, flip=True)
    return kind(SliceCache(phantom, phantom.parent / "cache"), options)


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("kind", [UnalignedMaskDataset, UnalignedDataset])
def test_workers_change_nothing(phantom: Path, kind: type[UnalignedMaskDataset]) -> None:
    data = dataset(phantom, kind)
    batches = data.batches("gan", "shuffled", 0, 4)
    alone = list(load(data, batches, workers=0, device=CPU))
    assert [len(batch) for batch in alone] == [4, 4, 4, 2]
    for workers in (1, 3):
        found = list(load(data, batches, workers=workers, device=CPU))
        assert all(map(equal, found, alone)) and len(found) == 4
    rest = list(load(data, batches[2:], workers=2, device=CPU))
    assert all(map(equal, rest, alone[2:]))
    assert equal(load_one(data, batches[1].rows(1, 3), CPU), alone[1].rows(1, 3)), "nothing hangs on the batch around"
    assert equal(load_one(data, batches[1].rows(2, 2), CPU), alone[1].rows(2, 2)), "a share may be empty"


def test_workers_of_another_start_open_the_cache_again(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system does not fork: they get the dataset pickled."""
    data = dataset(phantom)
    batches = data.batches("gan", "shuffled", 0, 7)
    alone = list(load(data, batches, workers=0, device=CPU))

    def elsewhere(*arguments: object, **named: object) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(*arguments, **named, multiprocessing_context=forked_from_a_server())

    monkeypatch.setattr(loader, "DataLoader", elsewhere)
    assert all(map(equal, load(data, batches, workers=1, device=CPU), alone))


def test_a_raw_batch_is_a_fraction_of_what_it_becomes(phantom: Path) -> None:
    data = dataset(phantom)
    raw = data.raw(data.batches("gan", "shuffled", 0, 4)[0])
    assert isinstance(raw, RawBatch) and len(raw) == 4
    assert raw.A[0].pixels.dtype == torch.uint8 and raw.A[0].bits.shape == (4, 32 * 32 // 8)
    assert equal(data.prepare(raw.to(CPU)), data.__getitems__(data.batches("gan", "shuffled", 0, 4)[0]))


def test_slices_of_several_sizes_keep_their_order(tmp_path: Path) -> None:
    for domain in "AB":
        (tmp_path / f"data/train{domain}").mkdir(parents=True)
        for i in range(6):
            image = np.full((20 + i % 3, 24), i / 10, dtype=np.float32)
            np.save(tmp_path / f"data/train{domain}/s_{i}.npy", image)
            (tmp_path / f"data/train{domain}_mask").mkdir(exist_ok=True)
            np.save(tmp_path / f"data/train{domain}_mask/s_{i}.npy", np.ones(image.shape, bool))
    options = UnalignedOptions(load_size=16, preprocess="resize")
    data = UnalignedMaskDataset(SliceCache(tmp_path / "data", tmp_path / "cache"), options)
    order = np.array([5, 0, 3, 1, 4, 2, 2])
    p = np.zeros(7, np.float32)
    keys = np.arange(7)
    batch = data.__getitems__(Draws(order, order[::-1].copy(), p, p, keys, keys, keys))
    np.testing.assert_allclose(batch.A.mean((1, 2, 3)), order / 5 - 1, atol=1e-5)
    np.testing.assert_allclose(batch.B.mean((1, 2, 3)), order[::-1] / 5 - 1, atol=1e-5)
    seen = torch.cat(list(data.slices("A", 4)))
    np.testing.assert_allclose(seen.mean((1, 2, 3)), np.arange(6) / 5 - 1, atol=1e-5)


def test_slices_are_those_of_test_time(phantom: Path) -> None:
    data = UnalignedMaskDataset(SliceCache(phantom, phantom.parent / "cache"), UnalignedOptions(load_size=40))
    parts = list(data.slices("B", 5))
    assert [len(part) for part in parts] == [5, 5, 4] and parts[0].shape == (5, 1, 40, 40)
    nothing = np.zeros(14, int)
    draws = Draws(nothing, np.arange(14), np.zeros(14, np.float32), data.B.p, nothing, nothing, nothing)
    torch.testing.assert_close(torch.cat(parts), data.__getitems__(draws).B, rtol=0, atol=1e-6)


def test_sampling_a_million_slices_takes_n_log_n() -> None:
    seconds = {}
    for count in (10**5, 10**6):
        p = np.random.default_rng(0).random(count, dtype=np.float32)
        volumes = np.arange(count) // 150
        start = time.process_time()
        sampling.shuffled_epoch(p, p, rng=np.random.default_rng(1), tolerance=0.03)
        settings = {"batch_size": 64, "tolerance": 0.03, "crop": 0.1}
        draws = sampling.level_epoch(p, p, volumes, volumes, rng=np.random.default_rng(1), **settings)
        seconds[count] = time.process_time() - start
        assert len(draws) >= count
    assert seconds[10**6] < 40 * seconds[10**5], "10 times as many; 12 for the logarithm, and caches that are too small"
    assert seconds[10**6] < 20


def refuse(self: PackedSlices, wanted: object) -> object:
    raise UserError("slice 7 of sub-1 is not to be had")


def exhaust(self: PackedSlices, wanted: object) -> object:
    raise MemoryError


def die(self: PackedSlices, wanted: object) -> object:
    os.kill(os.getpid(), signal.SIGKILL)
    return time.sleep(60)


def leave(self: PackedSlices, wanted: object) -> object:
    os._exit(7)


def train_with(phantom: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[..., object], workers: int) -> str:
    """What a training says whose loading has `trouble`."""
    import train

    plain = PackedSlices.gather

    def gather(self: PackedSlices, wanted: object) -> object:
        """The training process itself loads too, to measure a step."""
        elsewhere = workers and torch.utils.data.get_worker_info() is None
        return plain(self, wanted) if elsewhere else trouble(self, wanted)

    monkeypatch.setattr(PackedSlices, "gather", gather)
    arguments = train_arguments(phantom, phantom.parent / "out", "lsc", f"--num_threads={workers}")
    with pytest.raises(UserError) as caught:
        train.main(arguments)
    return str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_error_in_a_worker_is_told_as_it_is(
    phantom: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    assert train_with(phantom, monkeypatch, refuse, workers) == "slice 7 of sub-1 is not to be had"


def test_a_worker_without_memory_says_so(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = train_with(phantom, monkeypatch, exhaust, 2)
    assert said == "a process that loads slices ran out of memory; lower --num_threads or --batch_size"


def test_a_worker_that_is_killed_names_the_signal_and_what_to_lower(
    phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = train_with(phantom, monkeypatch, die, 2)
    assert said.startswith("a process that loads slices (pid ")
    assert " was killed by SIGKILL: the system most likely ran out of memory; " in said
    assert "lower --num_threads (2) or --batch_size (4)" in said and "\n" not in said


def test_a_worker_that_ends_by_itself_is_told_too(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = train_with(phantom, monkeypatch, leave, 1)
    assert " ended unexpectedly; lower --num_threads (1)" in said


def test_a_worker_that_dies_while_handing_over_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch then raises what the broken connection raised, if it looks before the system has noticed the death."""
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=time.sleep, args=(60,))
    worker.start()

    class Broken(Iterator[object]):
        _workers = (worker,)

        def __next__(self) -> object:
            worker.kill()
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(UserError) as caught, explain_worker_deaths(1, 16):
        next(loader._loaded(Broken()))
    assert f"(pid {worker.pid}) was killed by SIGKILL: the system" in str(caught.value)
    monkeypatch.setattr(Broken, "_workers", ())
    monkeypatch.setattr(loader, "EXIT_S", 0.1)
    with pytest.raises(ConnectionResetError), explain_worker_deaths(1, 16):
        next(loader._loaded(Broken()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Killed. ", "(pid 12) was killed by SIGKILL: the system"),
        ("DataLoader worker (pid 12) is killed by signal: Bus error. It is possible", "was killed by SIGBUS: shared"),
        ("DataLoader worker (pid 12) is killed by signal: Segmentation fault. ", "was killed by SIGSEGV: a library"),
        ("DataLoader worker (pid 12) is killed by signal: Terminated. ", "was killed by SIGTERM; lower"),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "(pid 12, 13) ended unexpectedly; lower"),
        (
            "DataLoader worker (pid 9) exited unexpectedly with exit code 1. Details",
            "(pid 9) ended unexpectedly; lower",
        ),
    ],
)
def test_what_torch_says_of_a_death_is_understood(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught, explain_worker_deaths(2, 16):
        raise RuntimeError(text)
    assert said in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), explain_worker_deaths(2, 16):
        raise RuntimeError("size mismatch")


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
def test_a_worker_killed_from_outside_ends_the_program_in_one_line(phantom: Path, tmp_path: Path) -> None:
    """The whole program, killed in the middle of a step: status 2, one line, no traceback."""
    arguments = train_arguments(phantom, tmp_path / "out", "lsc", "--num_threads=1", "--lsc_steps=100000")
    program, killed = start("train.py", *arguments, "--n_epochs=100000"), 0
    end = time.monotonic() + 240
    while program.running and time.monotonic() < end:
        for worker in workers_of(program.pid):  # one that has nothing left to do may be killed unnoticed
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            killed += 1
        time.sleep(0.05)
    done = program.finished(0)
    assert killed, "no worker was seen"
    assert done.status == 2, done.err
    assert done.err.count("\n") == 1 and done.err.startswith("train.py: error: ") and "SIGKILL" in done.err
