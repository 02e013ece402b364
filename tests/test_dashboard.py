"""The visdom dashboard against a real server on the loopback, an absent one, a dying one and one that never answers."""

from __future__ import annotations

import ast
import base64
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import train_arguments
from PIL import Image

import train
from options.display_options import DisplayOptions
from training.log import dashboard
from training.log.run_log import RunLog
from util.errors import UserError

# `python -m visdom.server` without its download of the browser's scripts, which no test needs
SERVER = "from visdom.server.run_server import main; main()"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


def start_server(port: int, folder: Path) -> subprocess.Popen[bytes]:
    pytest.importorskip("visdom")
    command = [sys.executable, "-c", SERVER, "-port", str(port), "-env_path", str(folder), "-bind_local"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: answers(port))
    return process


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    process = start_server(port, tmp_path / "visdom")
    yield port, process
    process.kill()
    process.wait()


def options(port: int) -> DisplayOptions:
    return DisplayOptions(display_id=7, display_server="http://127.0.0.1", display_port=port, html=False)


def train_a_little(log: RunLog, first: int = 1, n_steps: int = 3) -> None:
    """A few steps with losses and pictures, which ask the server for nothing: that is another thread's work."""
    requests = pytest.importorskip("requests")
    request, training = requests.Session.request, threading.current_thread()

    def elsewhere(session: Any, *arguments: Any, **more: Any) -> Any:
        assert threading.current_thread() is not training
        return request(session, *arguments, **more)

    with patch.object(requests.Session, "request", elsewhere):
        for step in range(first, first + n_steps):
            log.advance(4)
            log.losses(1, step, {"D_A": 1.0 / step, "D_B": 0.5 / step, "cycle": 0.5 * step}, 1e-3)
            log.images(1, step, {"real_A": torch.zeros(2, 1, 8, 10), "fake_B": torch.ones(2, 1, 8, 10)})


def warnings(run_dir: Path) -> list[str]:
    lines = (run_dir / "log.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "warning: " in line]


def panes(port: int, env: str) -> dict[str, Any]:
    """All panes of an environment, by their names without ID and run folder."""
    windows = json.loads(dashboard._connect(options(port), env).get_window_data(env=env))
    return {window.split("-")[2]: content for window, content in windows.items()}


def traces(pane: dict[str, Any]) -> dict[str, Any]:
    return {trace["name"]: trace for trace in pane["content"]["data"]}


def test_curves_and_labelled_images_arrive(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "REST_S", 0.05)
    port, _ = server
    log = RunLog(tmp_path, options(port), console=False)
    log.stage("lsc", 1)
    log.advance(4)
    log.losses(0, 1, {"restore": 0.25})
    log.stage("gan", 3)
    train_a_little(log)
    log.validation(1, 3, {"psnr": 21.5})
    log.close()

    shown = panes(port, tmp_path.name)
    assert set(shown) == {"lsc", "gan", "_images", "_run"}
    assert sorted(shown, key=lambda name: shown[name]["i"]) == ["_run", "_images", "gan", "lsc"]
    assert shown["gan"]["title"] == f"{tmp_path.name}: gan, over its steps"
    gan = traces(shown["gan"])
    assert list(gan) == ["D_A", "D_B", "cycle", "learning rate", "images per second", "val_psnr"]
    assert gan["D_A"]["x"] == [1, 2, 3]
    np.testing.assert_allclose(gan["D_A"]["y"], [1, 1 / 2, 1 / 3], rtol=1e-5)
    assert gan["cycle"]["y"] == [0.5, 1.0, 1.5] and gan["learning rate"]["y"] == [1e-3] * 3
    assert (gan["val_psnr"]["x"], gan["val_psnr"]["y"]) == ([3], [21.5])
    assert gan["val_psnr"]["mode"] == "lines+markers"  # of one point no line can be drawn
    axes = {name: trace["yaxis"] for name, trace in gan.items()}
    assert axes["D_A"] == axes["D_B"] and len(set(axes.values())) == 5  # what differs in size has axes of its own
    assert traces(shown["lsc"])["restore"]["y"] == [0.25]
    told = shown["_run"]["content"]
    assert "3 of 3" in told and str(tmp_path) in told and "gan" in told

    assert shown["_images"]["title"] == f"{tmp_path.name}: gan, epoch 1, step 3"
    source = shown["_images"]["content"]["src"].partition(",")[2]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("L"))
    times = 120 // (10 + 2 * 2)  # small pictures are enlarged
    # a line of labels above two images, in two columns
    assert picture.shape == (18 + times * (2 * 8 + 3 * 2), times * 2 * (10 + 2 * 2))
    left, right = picture[18:, : 14 * times], picture[18:, 14 * times :]
    assert left.max() == 128 and right.max() == 255  # 0 and 1 of [-1, 1]
    assert picture[:18].max() > 200  # the labels are there
    assert warnings(tmp_path) == []


def test_runs_with_one_id_do_not_write_into_each_other(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its environment; with one name in two folders, or with one --display_env, each has its own panes."""
    monkeypatch.setattr(dashboard, "REST_S", 0.05)
    port, _ = server
    for number, place in enumerate(("a/one", "a/two", "b/one")):
        (tmp_path / place).mkdir(parents=True)
        for display in (options(port), replace(options(port), display_env="all")):
            log = RunLog(tmp_path / place, display, console=False)
            log.stage("gan", 1)
            log.advance(1)
            log.losses(1, 1, {"G": float(number)})
            log.close()
    client = dashboard._connect(options(port), "main")
    assert {"one", "two", "all"} <= set(client.get_env_list())
    values = {
        env: sorted(
            traces(pane)["G"]["y"][0]
            for name, pane in json.loads(client.get_window_data(env=env)).items()
            if name.endswith("gan")
        )
        for env in ("one", "two", "all")
    }
    assert values == {"one": [0, 2], "two": [1], "all": [0, 1, 2]}


def test_a_picture_of_another_size_gets_another_pane_in_the_same_place(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pane keeps the size that it was opened with."""
    monkeypatch.setattr(dashboard, "REST_S", 0.05)
    port, _ = server
    log = RunLog(tmp_path, options(port), console=False)
    client = dashboard._connect(options(port), tmp_path.name)
    for stage, images in (("sgp", 1), ("gan", 3)):
        log.stage(stage, 1)
        log.advance(1)
        log.losses(1, 1, {"G": 1.0})
        log.images(1, 1, {"real_A": torch.zeros(images, 1, 8, 10)})
        wait_until(lambda stage=stage: stage in panes(port, tmp_path.name).get("_images", {}).get("title", ""))
    log.close()
    shown = json.loads(client.get_window_data(env=tmp_path.name))
    assert sum("_images" in window for window in shown) == 1
    shown = panes(port, tmp_path.name)
    assert sorted(shown, key=lambda name: shown[name]["i"]) == ["_run", "_images", "gan", "sgp"]


def test_a_resumed_run_shows_its_past_and_a_new_one_of_the_name_does_not(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "REST_S", 0.05)
    port, _ = server
    before = RunLog(tmp_path, DisplayOptions(html=False), console=False)  # without a dashboard
    for stage in ("sgp", "gan"):
        before.stage(stage, 4)
        train_a_little(before, n_steps=4)
    before.close()
    resumed = RunLog(tmp_path, options(port), console=False)
    resumed.resume("gan", 2)
    resumed.stage("gan", 4, 2)
    resumed.close()
    shown = panes(port, tmp_path.name)
    assert set(shown) == {"sgp", "gan", "_run"}
    assert traces(shown["sgp"])["cycle"]["x"] == [1, 2, 3, 4] and traces(shown["gan"])["cycle"]["x"] == [1, 2]
    anew = RunLog(tmp_path, options(port), console=False)
    anew.stage("gan", 4)
    anew.close()
    assert set(panes(port, tmp_path.name)) == {"_run"}


def test_names_are_text(server, tmp_path: Path) -> None:
    port, _ = server
    run_dir = tmp_path / "<b>bold" / "caf\udce9"
    run_dir.mkdir(parents=True)
    log = RunLog(run_dir, options(port), console=False)
    log.stage("<i>", 1)
    log.advance(1)
    log.losses(1, 1, {"<script>": 1.0})
    log.close()
    shown = panes(port, "caf\\udce9")
    assert "&lt;b&gt;bold" in shown["_run"]["content"] and "<b>bold" not in shown["_run"]["content"]
    (title,) = [text["text"] for text in shown["<i>"]["content"]["layout"]["annotations"] if "script" in text["text"]]
    assert "&lt;script&gt;" in title


def test_absent_server_is_one_warning_and_no_wait(tmp_path: Path) -> None:
    pytest.importorskip("visdom")
    port = free_port()
    log = RunLog(tmp_path, options(port), console=False)
    log.stage("gan", 6)
    train_a_little(log)
    wait_until(lambda: len(warnings(tmp_path)) == 1)
    train_a_little(log, first=4)
    log.close()
    (warning,) = warnings(tmp_path)
    assert f"http://127.0.0.1:{port}" in warning
    assert f"bash scripts/dashboard.sh -port {port}" in warning


def test_server_that_dies_and_comes_back(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, process = server
    monkeypatch.setattr(dashboard, "RETRY_S", 0.2)
    monkeypatch.setattr(dashboard, "REST_S", 0.05)
    env = tmp_path.name
    log = RunLog(tmp_path, options(port), console=False)
    log.stage("lsc", 1)
    log.advance(1)
    log.losses(1, 1, {"restore": 1.0})
    log.stage("gan", 12)
    train_a_little(log)
    client = dashboard._connect(options(port), env)
    wait_until(lambda: env in client.get_env_list() and "_images" in panes(port, env))
    process.kill()
    process.wait()
    train_a_little(log, first=4)
    wait_until(lambda: len(warnings(tmp_path)) == 1)
    again = start_server(port, tmp_path / "visdom_again")
    try:  # the steps made while the server was away are shown too, and the stages that had ended before
        wait_until(lambda: env in client.get_env_list() and len(panes(port, env)) == 4)
        assert traces(panes(port, env)["gan"])["D_A"]["x"] == [1, 2, 3, 4, 5, 6]
        assert traces(panes(port, env)["lsc"])["restore"]["x"] == [1]
    finally:
        again.kill()
        again.wait()
    log.close()
    assert len(warnings(tmp_path)) == 1


def test_a_server_that_was_quickly_started_again_gets_everything(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request has failed in between, so only the missing pane tells."""
    monkeypatch.setattr(dashboard, "REST_S", 0.05)
    sending, a_round = threading.Lock(), dashboard.Dashboard._round

    def one_round(board: dashboard.Dashboard, client: Any) -> Any:
        with sending:
            return a_round(board, client)

    monkeypatch.setattr(dashboard.Dashboard, "_round", one_round)
    port, process = server
    env = tmp_path.name
    log = RunLog(tmp_path, options(port), console=False)
    log.stage("lsc", 1)
    log.advance(1)
    log.losses(1, 1, {"restore": 1.0})
    client = dashboard._connect(options(port), env)
    wait_until(lambda: env in client.get_env_list() and {"_run", "lsc"} == set(panes(port, env)))
    with sending:  # a pane is there before the reply that says so: no request may be on its way
        process.kill()
        process.wait()
        again = start_server(port, tmp_path / "visdom_again")
    try:
        log.stage("gan", 3)
        train_a_little(log)
        wait_until(lambda: env in client.get_env_list() and set(panes(port, env)) == {"lsc", "gan", "_images", "_run"})
        assert warnings(tmp_path) == []  # now: what is on its way as the server ends may fail
    finally:
        again.kill()
        again.wait()
    log.close()


def test_server_that_never_answers_does_not_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("visdom")
    monkeypatch.setattr(dashboard, "TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as black_hole:  # the kernel accepts, nobody ever reads
        log = RunLog(tmp_path, options(black_hole.getsockname()[1]), console=False)
        log.stage("gan", 3)
        train_a_little(log)
        wait_until(lambda: len(warnings(tmp_path)) == 1)
        log.close()  # although the server still holds a connection open
    assert len(warnings(tmp_path)) == 1


@pytest.mark.parametrize("package", ["visdom", "matplotlib"])
def test_what_only_some_runs_need_is_imported_only_on_demand(package: str) -> None:
    for path in Path(dashboard.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert package not in {name.partition(".")[0] for name in names}, path


def test_missing_visdom_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--display_id 7 .*requirements-dashboard\.txt"):
        RunLog(tmp_path, options(8097), console=False)


def test_an_absent_visdom_is_told_before_there_is_a_run_folder(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.log.dashboard.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--display_id 1 needs visdom"):
        train.main(train_arguments(phantom, tmp_path / "out", "lsc", "--name=watched", "--display_id=1"))
    assert not (tmp_path / "out").exists()
