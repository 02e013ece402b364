"""A save is stopped at every one of its operations on files: by errors, by a kill, by a full disk. A state is left."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from torch import nn

from training.checkpoints import RunCheckpoints
from util.checkpoint import read_newest
from util.errors import UserError
from util.files import PART

ROOT = Path(__file__).resolve().parent.parent
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

FILL = """
import errno, os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from test_crash import newest, save
from util.errors import UserError
folder = Path(sys.argv[2])
for step in (1, 2, 3):
    save(folder, step, keep_last=1)
assert newest(folder) == 3
ballast = folder / "ballast"
refused = 0
with ballast.open("wb", buffering=0) as file:
    file.write(bytes(350_000))
    while True:  # a little less room every time, so that the disk is full at ever earlier moments of a save
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
print("refused", refused)
"""


TRAIN = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from conftest import train_arguments, write_phantom
from util.errors import run_cli
import train
out, data = Path(sys.argv[2]), Path(sys.argv[3])
step = train.RunLog.advance
def fill(log, n_images):  # from the first step on the disk has no byte left
    step(log, n_images)
    with open(out / "ballast", "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
train.RunLog.advance = fill
small = ("--name=run", "--lsc_features=2", "--lsc_steps=100", "--print_freq=1", "--update_html_freq=1")
sys.argv = ["train.py", *train_arguments(data, out, "lsc", *small)]
run_cli(train.main, "train.py")
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a process that sees a small file system at `tmp_path/disk`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=$SIZE none "$0" && exec "$@"', str(disk)]
    # only root, or a user with namespaces of their own, may mount; a limit on file sizes is tested for everybody
    least = {**os.environ, "SIZE": "640k"}
    if subprocess.run([*mount, "true"], env=least, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs the right to")

    def run(code: str, *more: object, size: str = "640k") -> subprocess.CompletedProcess[str]:
        command = [*mount, sys.executable, "-c", code, str(ROOT), str(disk), *map(str, more)]
        return subprocess.run(command, env={**os.environ, "SIZE": size}, capture_output=True, text=True, check=False)

    return run


def test_a_disk_that_fills_up(small_disk: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = small_disk(FILL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.removeprefix("refused ")) > 5


def test_a_full_disk_ends_training_at_the_next_save_only(
    small_disk: Callable[..., subprocess.CompletedProcess[str]], phantom: Path
) -> None:
    """Rows, pictures, report and log.txt are lost with a warning each; the checkpoint is an error of one sentence."""
    done = small_disk(TRAIN, phantom, size="8m")
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(
        r"train\.py: error: .*latest\.pt(\.part)?: cannot be saved \(No space left on device\); "
        r"no state was saved before\n",
        done.stderr,
    )
    assert "lsc  epoch 2  step 8/8" in done.stdout  # it went on to the stage's end, where it would have been saved
    for what in ("could not write loss_log.csv", "could not draw sample images", "could not write the training report"):
        assert done.stdout.count(what) == 1, done.stdout


def test_a_disk_that_is_too_small_is_told_before_the_first_step(
    small_disk: Callable[..., subprocess.CompletedProcess[str]], phantom: Path
) -> None:
    done = small_disk(TRAIN, phantom)
    assert (done.returncode, done.stdout) == (2, "")
    sentence = r"train\.py: error: .*/run: its disk has \d+ kB free and this run's files need \d\.\d+ MB at once .*\n"
    assert re.fullmatch(sentence, done.stderr)


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


def test_three_kills(tmp_path: Path) -> None:
    """`scripts/soak.sh` in short: no state is lost, and the runs end with the bits of one that was never killed."""
    command = [sys.executable, "-m", "scripts.soak", "--out", str(tmp_path / "soak"), "--kills", "3", "--seed", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 3 kills, " in done.stdout.splitlines()[-1]
    assert ", 0 failures, " in done.stdout.splitlines()[-1]
