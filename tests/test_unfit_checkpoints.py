"""Checkpoints with a right checksum over a wrong state: one sentence that names the file, whatever is wrong with it."""

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
from models.lsc_model import MemoryWatch
from options.train_options import parse
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


def setting(name: str, value: Any) -> Callable[[Content], None]:
    return with_value(value, "training", "optimisers", "G", "param_groups", 0, name)


def schedule(name: str, value: Any) -> Callable[[Content], None]:
    return with_value(value, "training", "schedulers", "G", name)


def pooled(image: Any) -> Callable[[Content], None]:
    return with_value(image, "processes", 0, "pools", "B", "images", 0)


def another_kind(content: Content) -> None:
    """A schedule by steps, as --lr_policy step has it."""
    parameter = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    state = torch.optim.lr_scheduler.StepLR(parameter, 5).state_dict()
    content["training"]["schedulers"]["G"] = state


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
    "moments of another shape": (moments("exp_avg", torch.zeros(2)), "D, parameter 1, exp_avg is .*2,.* need"),
    "squares of another shape": (moments("exp_avg_sq", torch.zeros(4, 1)), "exp_avg_sq is"),
    "moments of another type": (moments("exp_avg", torch.zeros(4).double()), "torch.float64, need .* torch.float32"),
    "whole numbers for moments": (moments("exp_avg_sq", torch.zeros(4).long()), "torch.int64, need"),
    "a list for moments": (moments("exp_avg", [0.0] * 4), "exp_avg is no tensor"),
    "moments that are not numbers": (moments("exp_avg", torch.full((4,), torch.nan)), "exp_avg is not finite"),
    "squares below zero": (moments("exp_avg_sq", torch.full((4,), -1.0)), "a value that is no square"),
    "no squares": (without("training", "optimisers", "D", "state", 1, "exp_avg_sq"), "other moments than Adam's"),
    "moments of a third order": (moments("max_exp_avg_sq", torch.zeros(4)), "other moments than Adam's"),
    "updated NaN times": (moments("step", torch.tensor(torch.nan)), "updated nan times"),
    "updated half a time": (moments("step", torch.tensor(0.5)), "updated 0.5 times"),
    "updated minus one time": (moments("step", torch.tensor(-1.0)), "updated -1.0 times"),
    "several counts of updates": (moments("step", torch.ones(4)), "does not say how often"),
    "a plain count of updates": (moments("step", 3), "does not say how often"),
    "moments of one parameter too many": (
        with_value({}, "training", "optimisers", "D", "state", 1000),
        "moments of parameter 1000",
    ),
    "moments by name": (
        with_value({}, "training", "optimisers", "D", "state", "weight"),
        "moments of parameter 'weight'",
    ),
    "a list of moments": (with_value([], "training", "optimisers", "D", "state"), "no moments by parameter"),
    "text for a group": (with_value(["lr"], "training", "optimisers", "G", "param_groups"), "no learning rate"),
    "text for the learning rate": (setting("lr", "fast"), "no learning rate"),
    "an infinite learning rate": (setting("lr", float("inf")), "no learning rate"),
    "a learning rate below zero": (setting("lr", -1e-4), "no learning rate"),
    "a tensor for the learning rate": (setting("lr", torch.ones(3)), "no learning rate"),
    "other betas": (setting("betas", (0.9, 2.0)), "another betas"),
    "one beta": (setting("betas", 0.5), "another betas"),
    "ascent": (setting("maximize", True), "another maximize"),
    "third moments wanted": (setting("amsgrad", True), "another amsgrad"),
    "another first learning rate": (setting("initial_lr", 1.0), "another initial_lr"),
    "other parameters": (setting("params", [0]), "another params"),
    "no parameters": (without("training", "optimisers", "G", "param_groups", 0, "params"), "another params"),
    "a schedule of another kind": (another_kind, "scheduler G is of another kind"),
    "text for a schedule": (with_value("linear", "training", "schedulers", "G"), "scheduler G is of another kind"),
    "a method in a schedule": (schedule("step", 3), "scheduler G is of another kind"),
    "an epoch that is text": (schedule("last_epoch", "2"), "last_epoch is no count"),
    "an epoch before the first": (schedule("last_epoch", -3), "last_epoch is no count"),
    "an epoch beyond all": (schedule("last_epoch", 10**400), "last_epoch is no count"),
    "no last learning rate": (without("training", "schedulers", "G", "_last_lr"), "last learning rate"),
    "other first learning rates": (schedule("base_lrs", [1.0]), "another base_lrs"),
    "more first learning rates": (schedule("base_lrs", [2e-4, 2e-4]), "another base_lrs"),
    "a function in a schedule": (schedule("lr_lambdas", ["eval"]), "another lr_lambdas"),
    "pooled images of another size": (pooled(torch.zeros(1, 16, 16)), "pool B, image 0 is .*16, 16"),
    "pooled images of two channels": (pooled(torch.zeros(2, 32, 32)), "pool B, image 0 is"),
    "pooled images of bytes": (pooled(torch.zeros(1, 32, 32).byte()), "pool B, image 0 is .*uint8"),
    "pooled images that are not numbers": (pooled(torch.full((1, 32, 32), torch.nan)), "image 0 is not finite"),
    "a number for a pooled image": (pooled(3), "pool B, image 0 is no tensor"),
    "more pooled images than a pool takes": (
        with_value([torch.zeros(1, 32, 32)] * 3, "processes", 0, "pools", "A", "images"),
        "at most 2 images",
    ),
    "text for pooled images": (with_value("none", "processes", 0, "pools", "A", "images"), "at most 2 images"),
    "half an update": (with_value(0.5, "training", "updates"), "updates is no count"),
    "minus ten updates": (with_value(-10, "training", "updates"), "updates is no count"),
    "no pool": (without("processes", 0, "pools", "A"), ANOTHER),
    "no generators": (without("processes", 0, "generators"), ANOTHER),
    "a short state of torch's generator": (
        with_value(torch.zeros(3).byte(), "processes", 0, "generators", "torch"),
        ANOTHER,
    ),
    "numbers for a generator's bytes": (with_value(torch.zeros(3), "processes", 0, "generators", "torch"), ANOTHER),
    "no processes": (with_value([], "processes"), ANOTHER),
    "text for a process": (with_value(["first"], "processes"), ANOTHER),
    "a short state of Python's generator": (
        with_value((3, (1,), None), "processes", 0, "generators", "python"),
        ANOTHER,
    ),
    "a huge number in it": (with_value((3, (2**80,) * 625, None), "processes", 0, "generators", "python"), ANOTHER),
    "another kind of NumPy generator": (
        with_value("eval", "processes", 0, "generators", "numpy", "bit_generator"),
        ANOTHER,
    ),
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
    del group["amsgrad"], content["training"]["schedulers"]["G"]["_is_initial"]
    write_checkpoint(path, content)
    argv = train_arguments(trained / "phantom", runs, "cycle_gan", *OPTIONS, "--continue_train", "--n_epochs=2")
    with ExitStack() as held:
        trainer = train.make_trainer(parse(argv), argv, held)
        trainer.fit()
    found = trainer.model.optimisers["G"].param_groups[0]
    assert (found["fused"], found["foreach"], found["amsgrad"]) == (True, None, False)
    assert "not known here" not in found


@pytest.mark.parametrize("policy", ["step", "cosine"])
def test_every_schedule_is_taken_up_again(trained: Path, tmp_path: Path, policy: str) -> None:
    argv = train_arguments(trained / "phantom", tmp_path, "cycle_gan", *OPTIONS, f"--lr_policy={policy}")
    train.main(argv)
    before = read_checkpoint(checkpoint_path(tmp_path / "run", "latest"))["training"]
    with ExitStack() as held:
        more = [*argv, "--continue_train"]
        state = train.make_trainer(parse(more), more, held).model.training_state()
    assert state["schedulers"] == before["schedulers"]
    rates = [[group["lr"] for group in part["optimisers"]["G"]["param_groups"]] for part in (before, state)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("seen", [3, "none", torch.zeros(2), torch.zeros(2, 2).long()])
def test_what_the_early_stop_has_seen(seen: Any) -> None:
    with pytest.raises(ValueError, match="no list of pairs"):
        MemoryWatch().load_state_dict({"seen": seen, "verdict": ""})
    with pytest.raises(ValueError, match="verdict is no text"):
        MemoryWatch().load_state_dict({"seen": torch.zeros(3, 2), "verdict": 1})


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
