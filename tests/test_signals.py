"""SIGTERM, SIGINT and SIGUSR1 end a run with its state saved, a second one at once; one folder holds one training."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import train_arguments
from running import Started, run, start

from options.train_options import parse
from training.run_folder import requeued
from training.run_lock import LOCK_NAME, run_lock
from training.signals import SIGNALS, stop_on_signals
from util.checkpoint import read_newest
from util.errors import UserError

LONG = ("--lsc_steps=100000", "--n_epochs=100000", "--save_latest_freq=1000000")


def arguments(phantom: Path, out: Path, *more: str) -> list[str]:
    return [a for a in train_arguments(phantom, out, "lsc", "--name=run") if "lsc_steps" not in a] + [*LONG, *more]


def holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[] if n == signal.SIGINT else pytest.mark.slow) for n in SIGNALS]
)
def test_a_signal_saves_and_leaves(phantom: Path, tmp_path: Path, number: signal.Signals) -> None:
    """To the whole group, as Ctrl-C and slurm do it: the workers must not die before the last step is done."""
    run_dir = tmp_path / "run"
    training = start("train.py", *arguments(phantom, tmp_path, "--num_threads=1", "--html"))
    training.wait_for(lambda: holds_something(run_dir / "loss_log.csv"))
    refused = run("train.py", *arguments(phantom, tmp_path, "--overwrite"))
    assert refused.status == 2 and f"in use by process {training.pid} on" in refused.err
    training.signal_group(number)
    done = training.finished()
    assert done.status == 128 + number, done.err
    assert done.err.startswith(f"{number.name}: ") and done.err.count("\n") == 1
    last = done.out.splitlines()[-1]
    assert number.name in last and str(run_dir / "latest.pt") in last and "--continue_train" in last
    page = (run_dir / "web" / "index.html").read_text(encoding="utf-8")
    assert "Training report, stopped" in page and f"stopped by {number.name}, the last" in page
    newest = read_newest(run_dir)
    assert newest.path == run_dir / "latest.pt"
    assert newest.content["position"]["step"] > 0
    again = start("train.py", *arguments(phantom, tmp_path, "--continue_train"))  # the lock went with the process
    again.wait_for(lambda: holds_something(run_dir / "log.txt"))
    again.kill()
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


def send_itself_two_signals() -> None:
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        print("held", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("alive", flush=True)


def test_a_second_signal_leaves_at_once() -> None:
    done = start(send_itself_two_signals).finished()
    assert (done.out, done.status) == ("held\n", -signal.SIGINT)


# one folder, one training ---------------------------------------------------------------------------------------------


def hold(run_dir: Path) -> None:
    with run_lock(run_dir):
        print("held", flush=True)
        signal.pause()


@pytest.fixture
def holding() -> Iterator[Callable[[Path], Started]]:
    """Starts a process that holds a run folder's lock: record locks are a process's own, so it takes another one."""
    started: list[Started] = []

    def begin(run_dir: Path) -> Started:
        started.append(start(hold, run_dir))
        started[-1].wait_for(lambda: started[-1].printed()[0] == "held\n")
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def test_the_lock_names_its_holder_even_while_it_writes(tmp_path: Path, holding: Callable[[Path], Started]) -> None:
    other = holding(tmp_path)
    holder = json.loads((tmp_path / LOCK_NAME).read_text())
    with pytest.raises(UserError, match=f"process {other.pid} on {holder['host']} since 20"), run_lock(tmp_path):
        pass
    (tmp_path / LOCK_NAME).write_text("")
    with pytest.raises(UserError, match="in use by another process"), run_lock(tmp_path):
        pass
    other.kill()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_a_start_by_mistake_writes_nothing_into_a_folder_in_use(
    phantom: Path, tmp_path: Path, holding: Callable[[Path], Started]
) -> None:
    """Not even bad_files.csv: the data are read once the folder is held, and no sooner."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "bad_files.csv").write_text("path,reason\nof,another\n")
    (phantom / "trainA" / "trainA0_001.png").write_bytes(b"")
    other = holding(run_dir)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    argv = train_arguments(phantom, tmp_path, "lsc", "--name=run")
    for more in ([], ["--skip_bad"], ["--overwrite"], ["--continue_train"]):
        refused = run("train.py", *argv, *more)
        assert refused.status == 2 and f"in use by process {other.pid}" in refused.err
    other.kill()
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before
    assert "bad file, the first is" in run("train.py", *argv).err
    assert [path.name for path in run_dir.iterdir()] == ["bad_files.csv"]
    (run_dir / "5.pt").touch()
    (phantom / "trainA" / "trainA0_002.png").write_bytes(b"")
    assert "holds a trained run" in run("train.py", *argv).err
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
