"""docs/extending.md: its model and its dataset are taken from the page, registered with its lines, and train."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import train_arguments
from running import ROOT, run

import train
from data.registry import DATASETS
from models import MODELS
from models.trained import load_trained
from util.lazy import Lazy

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```python {kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def install(source: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block as the module `name`, as if it were saved where the page says."""
    assert "in `{}/` as `{}.py`".format(*name.split(".")) in PAGE
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)


def register(line: str, registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ((name, lazy),) = eval(f"{{{line}}}", {"Lazy": Lazy}).items()
    monkeypatch.setitem(registry, name, lazy)


def test_the_model_trains_is_continued_and_loaded(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(*blocks("model"), "models.deblur_model", tmp_path, monkeypatch)
    register(blocks("line")[0], MODELS, monkeypatch)
    argv = train_arguments(phantom, tmp_path, "deblur", "--name=run", "--deblur_channels=6")
    assert train.main(argv) == 0
    assert train.main([*argv, "--continue_train", "--n_epochs=2"]) == 0
    with (tmp_path / "run" / "loss_log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["stage"] for row in rows} == {"deblur"} and float(rows[0]["l1"]) > 0
    assert load_trained(tmp_path / "run").network[0].out_channels == 6  # type: ignore[index, union-attr]
    assert (tmp_path / "run" / "latest_net_deblur.pth").is_file()
    helped = run("train.py", "--model=deblur", "--help")
    assert "--deblur_channels" in helped.out


def test_the_dataset_is_used(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(*blocks("dataset"), "data.gamma_dataset", tmp_path, monkeypatch)
    register(blocks("line")[1], DATASETS, monkeypatch)
    losses = []
    for gamma in ("1.0", "3.0"):
        argv = train_arguments(
            phantom, tmp_path, "cycle_gan", "--dataset_mode=gamma", f"--gamma={gamma}", f"--name=run{gamma}"
        )
        assert train.main(argv) == 0
        with (tmp_path / f"run{gamma}" / "loss_log.csv").open() as file:
            losses.append(next(csv.DictReader(file))["cycle"])
    assert losses[0] != losses[1]
