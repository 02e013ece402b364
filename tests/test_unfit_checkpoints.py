"""Checkpoints with a right checksum over a wrong state: one sentence that names the file, whatever is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from conftest import train_arguments, write_phantom

import train
from util.checkpoint import checkpoint_path, read_checkpoint, unseal, write_checkpoint
from util.errors import UserError

Content = dict[str, Any]
OPTIONS = ("--name=run", "--no_html", "--netG=resnet_6blocks", "--pool_size=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a data folder `phantom` and of `runs/run`, a small cycle_gan of two epochs."""
    root = tmp_path_factory.mktemp("trained")
    write_phantom(root / "phantom", splits=("train",))
    train.main(train_arguments(root / "phantom", root / "runs", "cycle_gan", *OPTIONS))
    return root


def without(*names: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]

    return change


def with_value(value: Any, *names: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for name in names[:-1]:
            content = content[name]
        content[names[-1]] = value

    return change


NOWHERE = "it does not say where the training stood"
ANOTHER = r"it is not a state of this run \("
UNFIT = {
    "no position": (without("position"), NOWHERE),
    "no step": (without("position", "step"), NOWHERE),
    "a negative epoch": (with_value(-1, "position", "epoch"), NOWHERE),
    "half a batch": (with_value(0.5, "position", "batch"), NOWHERE),
    "a list for a position": (with_value([0], "position"), NOWHERE),
    "no networks": (without("model"), ANOTHER),
    "a network's part": (without("model", "D_A.layers.0.weight"), ANOTHER),
    "a list for the networks": (with_value([1], "model"), ANOTHER),
    "a weight of another shape": (with_value(torch.zeros(2), "model", "D_A.layers.0.weight"), ANOTHER),
    "no training state": (without("training"), ANOTHER),
    "no optimisers": (without("training", "optimisers"), ANOTHER),
    "text for an optimiser": (with_value("adam", "training", "optimisers", "G"), ANOTHER),
    "fewer groups": (with_value([], "training", "optimisers", "G", "param_groups"), ANOTHER),
    "no pool": (without("training", "pools", "A"), ANOTHER),
    "no generators": (without("generators"), ANOTHER),
    "a short state of torch's generator": (with_value(torch.zeros(3).byte(), "generators", "torch"), ANOTHER),
    "numbers for a generator's bytes": (with_value(torch.zeros(3), "generators", "steps"), ANOTHER),
    "a short state of Python's generator": (with_value((3, (1,), None), "generators", "python"), ANOTHER),
    "a huge number in it": (with_value((3, (2**80,) * 625, None), "generators", "python"), ANOTHER),
    "another kind of NumPy generator": (with_value("eval", "generators", "numpy", "bit_generator"), ANOTHER),
    "a stage that does not exist": (with_value(7, "position", "stage"), "refine, has begun"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_state_that_does_not_fit_is_refused(trained: Path, tmp_path: Path, kind: str) -> None:
    change, words = UNFIT[kind]
    runs = copytree(trained / "runs", tmp_path / "runs")
    path = checkpoint_path(runs / "run", "latest")
    content = unseal(read_checkpoint(path))
    change(content)
    write_checkpoint(path, content)
    with pytest.raises(UserError, match=words) as refused:
        train.main(train_arguments(trained / "phantom", runs, "cycle_gan", *OPTIONS, "--continue_train"))
    assert str(path) in str(refused.value) or "refine" in words
    assert len(str(refused.value)) < 1000


def test_other_slices_are_told(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run may go on with more data; nobody should do so unawares."""
    root = copytree(trained, tmp_path / "copy")
    argv = train_arguments(root / "phantom", root / "runs", "cycle_gan", *OPTIONS, "--continue_train")
    first = json.loads((root / "runs" / "run" / "run.json").read_text())["data_fingerprint"]
    words = f"warning: --dataroot {root / 'phantom'}: other slices than those that {root / 'runs' / 'run'} began with"
    train.main(argv)
    assert words not in capsys.readouterr().out
    for folder in ("trainA", "trainA_mask"):
        slices = root / "phantom" / folder
        (slices / "new_000.png").write_bytes(next(slices.iterdir()).read_bytes())
    train.main(argv)
    assert words in capsys.readouterr().out
    info = json.loads((root / "runs" / "run" / "run.json").read_text())
    assert info["data_fingerprint"] == info["resumed"][0]["data_fingerprint"] == first
    assert info["resumed"][1]["data_fingerprint"] != first
