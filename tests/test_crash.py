"""A save is stopped at every one of its operations on files: by errors, by a kill, by a full disk. A state is left."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from conftest import train_arguments
from running import ROOT, Finished, as_typed, run, start
from torch import nn

from training.checkpoints import RunCheckpoints
from training.log.run_log import RunLog
from util.checkpoint import read_newest
from util.errors import UserError
from util.files import PART

NO_RIGHT = 77  # status of a process that may not mount
NETWORKS = {"G_AB": nn.Linear(2, 2)}
CALLS = ("fsync", "replace", "link", "unlink", "open", "close")


def save(run_dir: Path, step: int, keep_last: int = 2) -> None:
    """One save as a run makes it: latest.pt and EPOCH.pt with weights, older epochs pruned."""
    state = {"weight": torch.full((4000,), float(step)), "step": step}
    RunCheckpoints(run_dir, keep_last).save((str(step), "latest"), state, NETWORKS)


def newest(run_dir: Path) -> int:
    """The step of the newest state that can be read; its tensor must be that step's too."""
    content = read_newest(run_dir).content
    assert torch.equal(content["weight"], torch.full((4000,), float(content["step"])))
    return content["step"]


@contextmanager
def operations(during: Callable[[int, str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Call `during(n, name)` before the n-th operation on files (0 the first) within the block; gives their names."""
    done: list[str] = []

    def before(name: str) -> None:
        done.append(name)
        during(len(done) - 1, name)

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            before("write")
            return super().write(data)

    def open_file(path: Path, mode: str = "r", **more: Any) -> Any:
        before("create")
        return io.BufferedWriter(Raw(str(path), "w"))

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            before(name)
            return original(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_file)
        for name in CALLS:
            patch.setattr(os, name, counted(name))
        yield done


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after three saves; tests copy it."""
    folder = tmp_path_factory.mktemp("saved")
    for step in (1, 2, 3):
        save(folder, step)
    return folder


@pytest.fixture
def names(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations of an undisturbed save."""
    folder = copytree(saved, tmp_path / "undisturbed")
    with operations(lambda n, name: None, monkeypatch) as done:
        save(folder, 4)
    return done


def test_a_save_is_synced_before_it_takes_its_place(names: list[str]) -> None:
    """All files are written and synced before the first rename; the folder is synced before anything is pruned."""
    first_rename = names.index("replace")
    assert names[:first_rename].count("fsync") == names.count("create") == 6  # two checkpoints, weights in two formats
    assert "write" not in names[first_rename:]
    folder_sync = len(names) - 1 - names[::-1].index("fsync")
    assert folder_sync > len(names) - 1 - names[::-1].index("replace")
    assert names[folder_sync:].count("unlink") >= 3  # epoch 2 and its weights


@pytest.mark.parametrize("kind", [errno.EIO, errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "persistently"])
def test_every_operation_fails_in_turn(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], persistent: bool, kind: int
) -> None:
    """The old state or the new one can be read, an error is one sentence, and the next save needs no help."""
    outcomes = set()
    for failing in range(len(names)):
        folder = copytree(saved, tmp_path / str(failing))

        def fail(n: int, name: str, failing: int = failing) -> None:
            if n == failing or (persistent and n > failing):
                raise OSError(kind, os.strerror(kind))

        with operations(fail, monkeypatch) as done:
            try:
                save(folder, 4)
                outcome = "saved"
            except UserError as error:
                outcome = "refused"
                assert f"cannot be saved ({os.strerror(kind)}); the last good state is {folder}" in str(error)
        assert done[: failing + 1] == names[: failing + 1]
        assert newest(folder) in ((4,) if outcome == "saved" else (3, 4)), names[failing]
        save(folder, 5)
        assert newest(folder) == 5
        assert not list(folder.glob(f"previous.pt{PART}*"))
        outcomes.add((names[failing], outcome))
    assert {("create", "refused"), ("write", "refused"), ("fsync", "refused"), ("replace", "refused")} <= outcomes
    assert ("unlink", "saved") in outcomes  # what cannot be pruned stops nothing


def test_killed_before_every_operation(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    """SIGKILL, which no clean-up survives, before each operation in turn, and after the last."""
    seen = []
    for fatal in range(len(names) + 1):
        folder = copytree(saved, tmp_path / str(fatal))
        child = os.fork()
        if child == 0:
            with operations(lambda n, name: os.kill(os.getpid(), 9) if n == fatal else None, monkeypatch):  # noqa: B023
                save(folder, 4)
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        seen.append(newest(folder))
        assert (folder / "latest.pt").is_file()
        save(folder, 5)
        assert newest(folder) == 5
        (folder / "latest.pt").write_bytes(b"torn")
        assert newest(folder) == seen[-1]  # previous.pt
    assert sorted(set(seen)) == [3, 4]
    assert seen == sorted(seen)  # the new state, once it is there, stays


def test_without_hard_links_the_earlier_state_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*names: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert newest(tmp_path) == 3
    (tmp_path / "latest.pt").unlink()
    assert newest(tmp_path) == 2


# a real full disk -----------------------------------------------------------------------------------------------------


def on_a_small_disk(disk: Path, size: str, work: Callable[..., object], *arguments: object) -> None:
    """In a process of its own: mount a file system of this size that nobody else sees, and work there."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, recursively_private = 0x20000, 0x44000
    failed = libc.unshare(new_mounts) or libc.mount(b"none", b"/", None, recursively_private, None)
    if failed or libc.mount(b"tmpfs", bytes(disk), b"tmpfs", 0, f"size={size}".encode()):
        sys.exit(NO_RIGHT)
    work(disk, *arguments)


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[..., Finished]:
    """Call a function with the path of a small file system, in a process of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def run(size: str, work: Callable[..., object], *arguments: object) -> Finished:
        done = start(on_a_small_disk, disk, size, work, *arguments).finished()
        if done.status == NO_RIGHT:  # only root may mount; a limit on file sizes is tested for everybody
            pytest.skip("mounting a small file system needs the right to")
        return done

    return run


def fill_up(folder: Path) -> None:
    """Save with ever less room, so that the disk is full at ever earlier moments of a save."""
    for step in (1, 2, 3):
        save(folder, step, keep_last=1)
    assert newest(folder) == 3
    ballast, refused, last = folder / "ballast", 0, 3
    with ballast.open("wb", buffering=0) as file:
        file.write(bytes(350_000))
        while True:
            try:
                save(folder, 4 + refused, keep_last=1)
            except UserError as error:
                assert os.strerror(errno.ENOSPC) in str(error), error
                refused += 1
                assert newest(folder) == last, (newest(folder), last)
            else:
                last = newest(folder)
            try:
                file.write(bytes(8192))
            except OSError:
                break
    assert refused > 5, refused
    ballast.unlink()
    save(folder, 1000, keep_last=1)
    assert newest(folder) == 1000


def test_a_disk_that_fills_up(small_disk: Callable[..., Finished]) -> None:
    done = small_disk("640k", fill_up)
    assert done.status == 0, done.err


def train_until_it_is_full(disk: Path, data: Path) -> None:
    """Train there; from the first step on the disk has no byte left."""
    step = RunLog.advance

    def fill(log: RunLog, n_images: int) -> None:
        step(log, n_images)
        with (disk / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    RunLog.advance = fill  # type: ignore[method-assign]
    small = ("--name=run", "--html", "--lsc_steps=100", "--print_freq=1", "--update_html_freq=1")
    as_typed("train.py", train_arguments(data, disk, "lsc", *small))


def test_a_full_disk_ends_training_at_the_next_save_only(small_disk: Callable[..., Finished], phantom: Path) -> None:
    """Rows, pictures, report and log.txt are lost with a warning each; the checkpoint is an error of one sentence."""
    done = small_disk("8m", train_until_it_is_full, phantom)
    assert done.status == 2, done.err
    assert done.err.startswith("train.py: error: ") and done.err.count("\n") == 1
    assert "latest.pt" in done.err and os.strerror(errno.ENOSPC) in done.err and "no state was saved before" in done.err
    assert "lsc  epoch 2  step 8/8" in done.out  # it went on to the stage's end, where it would have been saved
    for what in ("could not write loss_log.csv", "could not draw sample images", "could not write the training report"):
        assert done.out.count(what) == 1, done.out


def test_a_disk_that_is_too_small_is_told_before_the_first_step(
    small_disk: Callable[..., Finished], phantom: Path, tmp_path: Path
) -> None:
    done = small_disk("640k", train_until_it_is_full, phantom)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"train.py: error: {tmp_path / 'disk' / 'run'}: its disk") and done.err.count("\n") == 1
    assert re.search(r"\b\d+ kB\b.*\b\d\.\d+ MB\b.* --checkpoints_dir\b", done.err), "what is free and what is needed"


@pytest.mark.parametrize("most", [0, 1000, 10_000])
def test_a_file_that_may_not_grow(saved: Path, tmp_path: Path, most: int) -> None:
    """A limit on the size of files, which needs no right to mount: EFBIG at the first byte, and in the middle."""
    folder = copytree(saved, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be saved \(File too large\); the last good state is"):
            save(folder, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    save(folder, 4)
    assert newest(folder) == 4


# a training that is killed --------------------------------------------------------------------------------------------


def train_until_killed(step: int, argv: list[str]) -> None:
    """SIGKILL to the training and its workers as this step ends."""
    advance, steps = RunLog.advance, iter(range(1, step + 1))

    def die(log: RunLog, n_images: int) -> None:
        advance(log, n_images)
        if next(steps) == step:
            os.killpg(0, signal.SIGKILL)

    RunLog.advance = die  # type: ignore[method-assign]
    as_typed("train.py", argv)


def test_a_killed_training_goes_on_to_the_same_bits(phantom: Path, tmp_path: Path) -> None:
    """Killed in the middle of an epoch, some steps after a save: the steps since then are made again."""
    argv = train_arguments(phantom, tmp_path, "lsc", "--lsc_steps=100", "--save_latest_freq=8")
    killed = [*argv, "--name=killed", "--num_threads=1"]
    assert start(train_until_killed, 7, killed).finished().status == -signal.SIGKILL
    assert read_newest(tmp_path / "killed").content["position"]["step"] in range(1, 7)
    for arguments in ([*killed, "--continue_train"], [*argv, "--name=whole"]):
        assert run("train.py", *arguments).status == 0
    assert len({read_newest(tmp_path / name).content["sha256"] for name in ("killed", "whole")}) == 1


@pytest.mark.slow
def test_three_kills(tmp_path: Path) -> None:
    """`scripts/soak.sh` in short: no state is lost, and the runs end with the bits of one that was never killed."""
    command = [sys.executable, "-m", "scripts.soak", "--out", str(tmp_path / "soak"), "--kills", "3", "--seed", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 3 kills, " in done.stdout.splitlines()[-1]
    assert ", 0 failures, " in done.stdout.splitlines()[-1]
