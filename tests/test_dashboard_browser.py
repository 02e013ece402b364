"""The dashboard in headless Chromium, without a way to the internet, started as README says, during a real training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OFFLINE = Path(__file__).with_name("offline_dashboard.py")
BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


def without_network() -> list[str]:
    """The command in front that cuts a program off; empty where the system does not permit it."""
    command = ["unshare", "-rn"]
    permitted = shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True).returncode
    return command if permitted else []  # then Chromium's own rule and the list of its requests must do


@pytest.mark.slow
@pytest.mark.skipif(not any(Path(path).exists() for path in BROWSERS), reason="there is no Chromium on this machine")
def test_panes_are_drawn_and_move_without_internet(tmp_path: Path) -> None:
    for package in ("playwright", "visdom"):
        pytest.importorskip(package)
    fetched = subprocess.run(
        [sys.executable, "-m", "scripts.dashboard_assets"], cwd=OFFLINE.parent.parent, capture_output=True, text=True
    )
    if fetched.returncode:
        pytest.skip(f"the browser files are not installed and cannot be fetched: {fetched.stderr}")
    command = [*without_network(), sys.executable, str(OFFLINE), str(tmp_path)]
    watched = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert watched.returncode == 0, watched.stderr
    seen = json.loads(watched.stdout)
    assert seen["outside"] == [] and seen["errors"] == []
    assert seen["status"] == 0
    assert 0 < seen["first"] < seen["later"] and seen["running"]  # values move while it trains
    assert seen["last"] == 70  # a row at each step
    assert list(seen["panes"]) == ["watched", "watched: gan, epoch 10, step 70", "watched: gan, over its steps"]
    run, samples, curves = seen["panes"].values()
    assert "70 of 70" in run["text"] and str(tmp_path / "out" / "watched") in run["text"]
    assert samples["image"][0] >= 400 and samples["image"][1] >= 200
    assert set(curves["points"]) >= {"cycle", "D_A", "learning rate", "images per second"}
    assert curves["drawn"] == len(curves["points"])
