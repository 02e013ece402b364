"""Checkpoints of another run or version, whole and with a right checksum: one sentence that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from conftest import train_arguments, write_phantom

import train
from models.lsc_model import LSCModel, LSCOptions
from options.train_options import parse
from programs.training import make_trainer
from util.checkpoint import checkpoint_path, read_checkpoint, unseal, write_checkpoint
from util.errors import UserError

Content = dict[str, Any]
OPTIONS = ("--name=run", "--netG=resnet_6blocks", "--pool_size=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a data folder `phantom` and of `runs/run`, a small cycle_gan of two epochs."""
    root = tmp_path_factory.mktemp("trained")
    write_phantom(root / "phantom", splits=("train",))
    train.main(train_arguments(root / "phantom", root / "runs", "cycle_gan", *OPTIONS))
    return root


def without(*names: Any) -> Callable[[Content], None]:
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


def moments(name: str, value: Any, parameter: int = 1) -> Callable[[Content], None]:
    """One of what Adam keeps for a parameter of the discriminators."""
    return with_value(value, "training", "optimisers", "D", "state", parameter, name)


def pooled(image: Any) -> Callable[[Content], None]:
    return with_value(image, "processes", 0, "pools", "B", "images", 0)


NOWHERE = "it does not say where the training stood"
ANOTHER = r"it is not a state of this run \("
UNFIT = {
    "no position": (without("position"), NOWHERE),
    "no step": (without("position", "step"), NOWHERE),
    "half a batch": (with_value(0.5, "position", "batch"), NOWHERE),
    "no networks": (without("model"), ANOTHER),
    "a network's part": (without("model", "D_A.layers.0.weight"), ANOTHER),
    "a weight of another shape": (with_value(torch.zeros(2), "model", "D_A.layers.0.weight"), ANOTHER),
    "no training state": (without("training"), ANOTHER),
    "no optimisers": (without("training", "optimisers"), ANOTHER),
    "text for an optimiser": (with_value("adam", "training", "optimisers", "G"), ANOTHER),
    "fewer groups": (with_value([], "training", "optimisers", "G", "param_groups"), "other groups of parameters"),
    "other parameters": (
        with_value([0], "training", "optimisers", "G", "param_groups", 0, "params"),
        "other groups of parameters",
    ),
    "no learning rate": (without("training", "optimisers", "G", "param_groups", 0, "lr"), ANOTHER),
    "moments of another shape": (moments("exp_avg", torch.zeros(2)), "D, parameter 1, exp_avg is .*2,.* need"),
    "moments of another type": (moments("exp_avg_sq", torch.zeros(4).double()), "float64, need .* torch.float32"),
    "several counts of updates": (moments("step", torch.ones(4)), "step is .*4,"),
    "no squares": (without("training", "optimisers", "D", "state", 1, "exp_avg_sq"), "other moments than Adam's"),
    "moments of a third order": (moments("max_exp_avg_sq", torch.zeros(4)), "other moments than Adam's"),
    "moments of one parameter too many": (
        with_value({}, "training", "optimisers", "D", "state", 1000),
        "moments of parameter 1000",
    ),
    "half an update": (with_value(0.5, "training", "updates"), "updates is 0.5, need"),
    "pooled images of another size": (pooled(torch.zeros(1, 16, 16)), "pool B, image 0 is .*16, 16"),
    "pooled images of bytes": (pooled(torch.zeros(1, 32, 32).byte()), "pool B, image 0 is .*uint8"),
    "a number for a pooled image": (pooled(3), "pool B, image 0 is no tensor"),
    "more pooled images than a pool takes": (
        with_value([torch.zeros(1, 32, 32)] * 3, "processes", 0, "pools", "A", "images"),
        "at most 2",
    ),
    "no pool": (without("processes", 0, "pools", "A"), ANOTHER),
    "no generators": (without("processes", 0, "generators"), ANOTHER),
    "a short state of torch's generator": (
        with_value(torch.zeros(3).byte(), "processes", 0, "generators", "torch"),
        ANOTHER,
    ),
    "no processes": (with_value([], "processes"), ANOTHER),
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
    assert "cannot be continued" in str(refused.value) or "refine" in words
    assert len(str(refused.value)) < 1000


def test_settings_of_the_machine_are_this_machines(trained: Path, tmp_path: Path) -> None:
    """A state of a torch without fused kernels, and without one that this torch has, goes on; the kernels are ours."""
    runs = copytree(trained / "runs", tmp_path / "runs")
    path = checkpoint_path(runs / "run", "latest")
    content = unseal(read_checkpoint(path))
    group = content["training"]["optimisers"]["G"]["param_groups"][0]
    group |= {"fused": "no", "foreach": True, "not known here": 1}
    del group["amsgrad"]
    write_checkpoint(path, content)
    argv = train_arguments(trained / "phantom", runs, "cycle_gan", *OPTIONS, "--continue_train", "--n_epochs=2")
    with ExitStack() as held:
        trainer = make_trainer(parse(argv), argv, held)
        trainer.fit()
    found = trainer.model.optimisers["G"].param_groups[0]
    assert (found["fused"], found["foreach"], found["amsgrad"]) == (True, None, False)
    assert "not known here" not in found


@pytest.mark.parametrize("verdict", [1, None, ["memorised"]])
def test_the_verdict_of_the_early_stop_is_text(verdict: Any) -> None:
    (stage,) = LSCModel(LSCOptions(lsc_features=2), (32, 32)).stages
    stage.load_state({"watch": {"verdict": "memorised", "seen": torch.zeros(3, 2)}})  # of an earlier version
    assert stage.ended_early() == "memorised"
    with pytest.raises(ValueError, match="'verdict'"):
        stage.load_state({"watch": {"verdict": verdict}})


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
