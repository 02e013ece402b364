"""A training that is watched: the dashboard's server dies, is absent, or is slow, and no step is lost, nor time."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import train_arguments
from running import run
from test_dashboard import free_port, start_server

from training.log import dashboard
from training.log.dashboard import Dashboard
from training.log.run_log import RunLog
from training.loop import Trainer
from util.checkpoint import read_checkpoint

LONG = ("--batch_size=2", "--print_freq=2", "--display_freq=2")
MOST = 0.02  # of the processor's time that a training takes


class SlowVisdom(BaseHTTPRequestHandler):
    """Answers as visdom does, half a second late."""

    answers: ClassVar = {"env_state": b"[]", "win_exists": b"true"}

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.5)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answers.get(self.path.rpartition("/")[2], b"ok"))

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


@pytest.fixture
def slow_server() -> Iterator[int]:
    pytest.importorskip("visdom")
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowVisdom) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def watched(port: int) -> tuple[str, ...]:
    return ("--display_id=1", "--display_server=http://127.0.0.1", f"--display_port={port}")


def rows(run_dir: Path) -> list[dict[str, str]]:
    """The loss log without its times."""
    with (run_dir / "loss_log.csv").open(newline="", encoding="utf-8") as file:
        timed = ("seconds", "images_per_s")
        return [{name: text for name, text in row.items() if name not in timed} for row in csv.DictReader(file)]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run_dir / "latest.pt")["model"]


def test_a_server_killed_in_the_middle_costs_no_step(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has the same rows and the same weights, bit for bit, as one that nobody watched."""
    monkeypatch.setattr(dashboard, "REST_S", 0.01)
    arguments = train_arguments(phantom, tmp_path, "cycle_gan", "--batch_size=2", "--print_freq=2")
    alone = run("train.py", *arguments, "--name=alone")
    assert alone.status == 0, alone.err
    port = free_port()
    server = start_server(port, tmp_path / "visdom")
    advance, posts = RunLog.advance, []

    def kill_at_the_fourth(log: RunLog, n_images: int) -> None:
        advance(log, n_images)
        if log._step == 4:
            posts.append(log)
            server.kill()
            server.wait()

    monkeypatch.setattr(RunLog, "advance", kill_at_the_fourth)
    seen = run("train.py", *arguments, "--name=watched", *watched(port), "--display_freq=2")
    server.kill()
    assert seen.status == 0, seen.err
    assert len(posts) == 1 and "cannot be reached" in seen.out
    assert rows(tmp_path / "alone") == rows(tmp_path / "watched") != []
    ours, theirs = weights(tmp_path / "alone"), weights(tmp_path / "watched")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class ProcessorTime:
    """Wraps functions and adds up the processor time that threads spend in them, each moment once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, threading.local()

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **more: Any) -> Any:
            inside, self._depth.inside = getattr(self._depth, "inside", False), True
            began = time.thread_time()
            try:
                return function(*arguments, **more)
            finally:
                self._depth.inside = inside
                if not inside:
                    self.seconds += time.thread_time() - began

        return timed


def test_a_slow_server_takes_no_more_than_two_per_cent(
    slow_server: int, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the dashboard costs, in both threads, against the whole training, in processor time: no clock on a wall.

    A row and a picture are due at every step, far more often than anybody would ask for.
    """
    spent, times = ProcessorTime(), []
    monkeypatch.setattr(RunLog, "_tell", spent.of(RunLog._tell))
    monkeypatch.setattr(Trainer, "_log_images", spent.of(Trainer._log_images))
    monkeypatch.setattr(Dashboard, "_round", spent.of(Dashboard._round))
    advance = RunLog.advance

    def noted(log: RunLog, n_images: int) -> None:
        advance(log, n_images)
        if len(times) == 1:  # the first step imports what only the first picture needs
            spent.seconds = 0.0
        times.append(time.process_time())

    monkeypatch.setattr(RunLog, "advance", noted)
    options = (*LONG, "--n_epochs=12", "--n_epochs_decay=0", "--netG=hybrid")
    arguments = train_arguments(phantom, tmp_path, "cycle_gan", *options)
    done = run("train.py", *arguments, "--name=run", *watched(slow_server))
    assert done.status == 0 and "cannot be reached" not in done.out, done.out + done.err
    assert len(times) == 84
    assert 0 < spent.seconds <= MOST * (times[-1] - times[1])
