"""SIGTERM, SIGINT and SIGUSR1 end a run with its state saved, a second one at once; one folder holds one training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import train_arguments

import train
from options.train_options import parse
from training.run_folder import requeued
from training.run_lock import LOCK_NAME, run_lock
from training.signals import SIGNALS, stop_on_signals
from util.checkpoint import read_newest
from util.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
LONG = ("--lsc_steps=100000", "--n_epochs=100000", "--no_html", "--save_latest_freq=1000000")


def arguments(phantom: Path, out: Path, *more: str) -> list[str]:
    return [a for a in train_arguments(phantom, out, "lsc", "--name=run") if "lsc_steps" not in a] + [*LONG, *more]


class Training:
    """A training in a process group of its own, as a terminal or a scheduler starts it."""

    def __init__(self, argv: list[str]) -> None:
        command = [sys.executable, str(ROOT / "train.py"), *argv]
        self.process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True)

    def wait_for(self, path: Path, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not path.exists() or not path.stat().st_size:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end, f"no {path}"
            time.sleep(0.05)

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)


@pytest.fixture
def start() -> Iterator[type[Training]]:
    started: list[Training] = []

    class Started(Training):
        def __init__(self, argv: list[str]) -> None:
            super().__init__(argv)
            started.append(self)

    yield Started
    for training in started:
        if training.process.poll() is None:
            training.process.kill()
        training.process.communicate()


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[] if n == signal.SIGINT else pytest.mark.slow) for n in SIGNALS]
)
def test_a_signal_saves_and_leaves(
    phantom: Path, tmp_path: Path, start: type[Training], number: signal.Signals
) -> None:
    """To the whole group, as Ctrl-C and slurm do it: the workers must not die before the last step is done."""
    run_dir = tmp_path / "run"
    training = start(arguments(phantom, tmp_path, "--num_threads=1"))
    training.wait_for(run_dir / "loss_log.csv")
    with pytest.raises(UserError, match=f"in use by process {training.process.pid} on"):
        train.main(arguments(phantom, tmp_path, "--overwrite"))
    training.signal_group(number)
    out, err = training.process.communicate(timeout=120)
    assert training.process.returncode == 128 + number, err
    assert err == f"{number.name}: saving after this step; a second signal ends at once, without saving\n"
    last = out.splitlines()[-1]
    assert last.startswith(f"stopped by {number.name}, the last good state is {run_dir / 'latest.pt'}; add --continue")
    newest = read_newest(run_dir)
    assert newest.path == run_dir / "latest.pt"
    assert newest.content["position"]["step"] > 0
    again = start(arguments(phantom, tmp_path, "--continue_train"))  # the lock went with the process
    again.wait_for(run_dir / "log.txt")
    again.process.kill()
    again.process.wait()
    with run_lock(run_dir):  # with SIGKILL, too
        pass


def test_only_the_first_signal_is_held_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_signals() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.signal == signal.SIGUSR1
        assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * 3  # the second kills
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom training.signals import stop_on_signals\nwith stop_on_signals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('held', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("held\n", -signal.SIGINT)


# one folder, one training ---------------------------------------------------------------------------------------------


def test_the_lock_names_its_holder_even_while_it_writes(tmp_path: Path) -> None:
    """Record locks are the process's own, so the other one is a process."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom training.run_lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdin=-1, stdout=-1, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    holder = json.loads((tmp_path / LOCK_NAME).read_text())
    with pytest.raises(UserError, match=f"process {other.pid} on {holder['host']} since 20"), run_lock(tmp_path):
        pass
    (tmp_path / LOCK_NAME).write_text("")
    with pytest.raises(UserError, match="in use by another process"), run_lock(tmp_path):
        pass
    other.communicate("")
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_a_start_by_mistake_writes_nothing_into_a_folder_in_use(phantom: Path, tmp_path: Path) -> None:
    """Not even bad_files.csv: the data are read once the folder is held, and no sooner."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "bad_files.csv").write_text("path,reason\nof,another\n")
    (phantom / "trainA" / "trainA0_001.png").write_bytes(b"")
    code = (
        "import sys\nfrom pathlib import Path\nfrom training.run_lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, run_dir], cwd=ROOT, stdin=-1, stdout=-1, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    for more in ([], ["--skip_bad"], ["--overwrite"], ["--continue_train"]):
        with pytest.raises(UserError, match=f"in use by process {other.pid}"):
            train.main(train_arguments(phantom, tmp_path, "lsc", "--name=run", *more))
    other.communicate("")
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before
    with pytest.raises(UserError, match="bad file, the first is"):
        train.main(train_arguments(phantom, tmp_path, "lsc", "--name=run"))
    assert [path.name for path in run_dir.iterdir()] == ["bad_files.csv"]
    (run_dir / "5.pt").touch()
    (phantom / "trainA" / "trainA0_002.png").write_bytes(b"")
    with pytest.raises(UserError, match="holds a trained run"):
        train.main(train_arguments(phantom, tmp_path, "lsc", "--name=run"))
    assert len((run_dir / "bad_files.csv").read_text().splitlines()) == 2


def test_a_lock_whose_file_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that never began removes its lock, perhaps after another has opened it."""
    monkeypatch.setattr("training.run_lock.fcntl.lockf", lambda *lock: (tmp_path / LOCK_NAME).unlink())
    with pytest.raises(UserError, match="another training has just left it; start again"), run_lock(tmp_path):
        pass


def test_without_locks_a_warning_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def none(*lock: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("training.run_lock.fcntl.lockf", none)
    with run_lock(tmp_path):
        assert "(No locks available)" in capsys.readouterr().err


# a job that slurm has started again -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("restarts", "goes_on"), [("1", True), ("12", True), ("0", False), ("", False), ("x", False)])
def test_a_requeued_job_goes_on_by_itself(tmp_path: Path, restarts: str, goes_on: bool) -> None:
    run = parse(["--dataroot=D", f"--checkpoints_dir={tmp_path}", "--name=run", "--overwrite"])
    environment = {"SLURM_RESTART_COUNT": restarts}
    assert requeued(run, environment) == run  # nothing was saved yet
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "previous.pt").touch()
    train_options = requeued(run, environment).train
    assert (train_options.continue_train, train_options.overwrite) == (goes_on, not goes_on)
    assert requeued(run, {}) == run
