"""What differs between machines: names that are not UTF-8, a small /dev/shm, Windows."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest
import torch
from conftest import train_arguments, write_phantom
from running import run

from preprocessing import parallel
from training import loader
from util.errors import ON_WINDOWS, UserError
from util.shared_memory import needs_shared_memory
from util.standard_streams import lossy_streams

FULL = OSError(errno.ENOSPC, "No space left on device")  # as a lock in /dev/shm raises it: without a file's name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take UTF-8 names alone")
def test_names_that_are_not_utf8_silence_no_report(tmp_path: Path) -> None:
    """Folders in Latin-1: all programs work, and what they write is UTF-8. Slices with such names are refused."""
    root = tmp_path / os.fsdecode(b"caf\xe9")
    data = write_phantom(root / "data")
    trained = run("train.py", *train_arguments(data, root / "runs", "cycle_gan", "--name=run", "--html"))
    assert trained.status == 0 and "could not write" not in trained.out + trained.err
    places = (f"--checkpoints_dir={root / 'runs'}", f"--results_dir={root / 'results'}")
    tested = run("test.py", f"--dataroot={data}", "--name=run", *places, "--gpu_ids=-1")
    assert tested.status == 0, tested.err
    results = root / "results" / "run" / "test_latest"
    for path in (root / "runs" / "run" / "web" / "index.html", results / "index.html"):
        assert "\\udce9" in path.read_text(encoding="utf-8"), path
    checked = run("train.py", f"--dataroot={data}", "--check_data", f"--checkpoints_dir={root / 'runs'}")
    assert checked.status == 0, checked.err


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8", errors="strict"))
    with lossy_streams():
        print("caf\udce9/é")
    assert written.getvalue().decode() == "caf\\udce9/é\n"


def test_on_windows_the_programs_say_what_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("util.errors.sys.platform", "win32")
    for program in ("train.py", "test.py", "preprocessing_images.py"):
        done = run(program, "--help")
        assert (done.status, done.out, done.err) == (2, "", f"{program}: error: {ON_WINDOWS}\n")


def test_full_shared_memory_is_not_blamed_on_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*anything: object) -> None:
        raise FULL

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", refuse)
    simulate = ("--simulate", "--n_train=1", "--n_val=0", "--n_test=0", "--matrix=32", "--workers=2")
    done = run("preprocessing_images.py", f"--out={tmp_path / 'out'}", *simulate)
    assert done.status == 2 and "/dev/shm" in done.err and "--workers 1" in done.err and "--out" not in done.err


def test_a_worker_without_shared_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises it for a batch that does not fit; a queue would lose the batch, and training would wait for it."""
    text = "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"

    def refuse(tensor: torch.Tensor) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(UserError, match=r"\(/dev/shm\) is full .*device \(28\)\).* --num_threads 0"):
        loader._shared(torch.zeros(1))


def test_other_errors_of_the_system_keep_their_place() -> None:
    for error in (OSError(errno.ENOSPC, "No space left on device", "/data/a.png"), OSError(errno.EIO, "broken")):
        with pytest.raises(OSError, match=r"No space|broken"), needs_shared_memory("--workers 1"):
            raise error
    with pytest.raises(UserError, match="shared memory"), needs_shared_memory("--workers 1"):
        raise FULL
