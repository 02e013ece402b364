"""A run that was stopped and resumed ends where one that never stopped does: same bits, wherever it was stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from conftest import train_arguments, write_phantom, write_truths

from models import MODELS
from options.train_options import parse
from programs.training import make_trainer
from training.loop import Trainer
from training.signals import Stopped, StopRequest
from util.checkpoint import checkpoint_path, read_checkpoint, unseal, write_checkpoint

POINTS = {
    "in sgp": ("sgp", 2),
    "in lsc": ("lsc", 2),
    "first batch of an epoch": ("gan", 1),
    "in the middle of an epoch": ("gan", 6),
    "last batch of an epoch": ("gan", 4),
    "in refine": ("refine", 2),
}
Place = tuple[str, int]


class StopAt(StopRequest):
    """Asks for a stop after a given step of a given stage."""

    def __init__(self, trainer: Trainer, place: Place) -> None:
        self.trainer, self.place = trainer, place

    @property
    def signal(self) -> signal.Signals | None:  # type: ignore[override]
        at = self.trainer.position
        here = self.trainer.model.stages[at["stage"]].name, at["step"]
        return signal.SIGTERM if here == self.place else None


class Late(StopRequest):
    """A signal that comes just after the trainer has looked for one, three times."""

    looks = 0

    @property
    def signal(self) -> signal.Signals | None:  # type: ignore[override]
        self.looks += 1
        return signal.SIGTERM if self.looks > 3 else None


Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train pta_hybrid (3 SGP, 3 LSC, 8 adversarial and 4 refining steps) or another; gives the last checkpoint."""
    root = tmp_path_factory.mktemp("resume")
    phantom = write_truths(write_phantom(root / "phantom"))

    def go(
        name: str, *extra: str, stop: Place | StopRequest | None = None, model: str = "pta_hybrid"
    ) -> dict[str, Any]:
        argv = [f"--name={name}", "--save_epoch_freq=100", *extra]
        options = {field.name for field in fields(MODELS[model].Options)}
        more = {"n_epochs_refine": 1, "pool_size": 3}
        argv += [f"--{name}={value}" for name, value in more.items() if name in options]
        argv = train_arguments(phantom, root / "runs", model, *argv)
        with ExitStack() as held:
            trainer = make_trainer(parse(argv), argv, held)
            if stop is None:
                trainer.fit()
            else:
                trainer.stop = stop if isinstance(stop, StopRequest) else StopAt(trainer, stop)
                with pytest.raises(Stopped):
                    trainer.fit()
                saved = read_checkpoint(checkpoint_path(root / "runs" / name, "latest"))
                assert saved["position"] == trainer.position
        return read_checkpoint(checkpoint_path(root / "runs" / name, "latest"))

    go.root = root / "runs"  # type: ignore[attr-defined]
    return go


@pytest.fixture(scope="module")
def straight(run: Run) -> Callable[[str], dict[str, Any]]:
    """The last checkpoint of the run that is never stopped, for each --amp."""
    done: dict[str, dict[str, Any]] = {}
    return lambda amp: done.setdefault(amp, {}) or done[amp].update(run(f"straight-{amp}", f"--amp={amp}")) or done[amp]


CASES = [
    pytest.param(place, threads, amp, id=f"{name}, {threads} workers, amp {amp}")
    for name, place in POINTS.items() for threads in (0, 2) for amp in ("off", "bf16")
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("place", "threads", "amp"), CASES)
def test_bit_identical(run: Run, straight: Callable, place: Place, threads: int, amp: str) -> None:
    """One checksum covers every tensor and value: networks, averages, optimisers, pools, generators, position."""
    name, options = f"{place[0]}{place[1]}-{threads}-{amp}", (f"--num_threads={threads}", f"--amp={amp}")
    stopped = run(name, *options, stop=place)
    assert stopped["sha256"] != straight(amp)["sha256"]
    assert stopped["position"]["step"] == place[1]
    assert run(name, *options, "--continue_train")["sha256"] == straight(amp)["sha256"]


def test_resumes_in_a_row(run: Run, straight: Callable) -> None:
    """One run, stopped in every stage, with and without workers; the slow tests stop one run at each place."""
    run("chain", stop=("sgp", 3))  # the stage's last step, before the stage is left
    places = [(("lsc", 1), 0), (("gan", 4), 2), (("gan", 6), 2), (("refine", 2), 0)]
    for place, threads in places:
        run("chain", "--continue_train", f"--num_threads={threads}", stop=place)
    assert run("chain", "--continue_train")["sha256"] == straight("off")["sha256"]


def test_a_signal_never_leaves_a_step_unsaved(run: Run) -> None:
    assert run("late", "--save_latest_freq=100000", stop=Late())["position"]["step"] == 1  # of lsc, after three of sgp


@pytest.mark.parametrize("norm", ["instance", pytest.param("batch", marks=pytest.mark.slow)])
def test_dropout_goes_on_where_it_was(run: Run, norm: str) -> None:
    """Dropout takes torch's own random numbers, which neither loading nor logging may disturb."""
    options = ("--netG=resnet_6blocks", "--dropout", f"--norm={norm}", "--gan_mode=wgangp", "--lr_policy=step")
    whole = run(f"dropout-{norm}", *options, model="cycle_gan")
    run(f"dropout-{norm}-stopped", *options, model="cycle_gan", stop=("gan", 2))
    resumed = run(f"dropout-{norm}-stopped", *options, "--continue_train", "--num_threads=1", model="cycle_gan")
    assert resumed["sha256"] == whole["sha256"]


@pytest.mark.parametrize("model", ["supervised", "pix2pix", "degrade", "cut", "unsb"])
def test_models_with_one_generator_resume(run: Run, model: str) -> None:
    whole = run(model, model=model)
    run(f"{model}-stopped", model=model, stop=(model, 4))
    assert run(f"{model}-stopped", "--continue_train", "--num_threads=1", model=model)["sha256"] == whole["sha256"]


def test_a_batch_is_split_as_before(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--micro_batch auto` follows the free memory, which is another one after a restart."""
    monkeypatch.setattr("training.loop.fitting_micro_batch", lambda *memory: 3)
    whole = run("micro", model="cycle_gan")
    run("micro-stopped", model="cycle_gan", stop=("refine", 2))
    monkeypatch.setattr("training.loop.fitting_micro_batch", lambda *memory: pytest.fail("measured again"))
    assert run("micro-stopped", "--continue_train", model="cycle_gan")["sha256"] == whole["sha256"]


def test_a_verdict_of_memorising_survives_a_restart(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """LSC ends early when it restores training slices too well: also a run that was stopped."""
    monkeypatch.setattr("models.lsc_model.MEMORISED_DB", -100.0)  # every comparison finds it too good
    options = ("--lsc_steps=100", "--val_epoch_freq=1", "--n_epochs=3")
    whole = run("watch", *options, model="lsc")
    assert whole["training"]["watch"]["verdict"]
    assert whole["position"]["epoch"] == 1
    stopped = run("watch-stopped", *options, model="lsc", stop=("lsc", 2))
    assert stopped["training"]["watch"] == {"verdict": ""}
    assert run("watch-stopped", *options, "--continue_train", model="lsc")["sha256"] == whole["sha256"]
    assert run("watch", *options, "--continue_train", model="lsc")["sha256"] == whole["sha256"]


def empty_pool(content: dict[str, Any]) -> None:
    content["processes"][0]["pools"]["B"]["images"] = []


def fresh_optimiser(content: dict[str, Any]) -> None:
    content["training"]["optimisers"]["G"]["state"] = {}


def next_batch(content: dict[str, Any]) -> None:
    content["position"]["batch"] += 1


@pytest.fixture(scope="module")
def stopped(run: Run) -> Path:
    """The folder of a run stopped in the middle of an adversarial epoch; tests copy it."""
    run("control", stop=("gan", 6))
    return run.root / "control"  # type: ignore[attr-defined]


@pytest.mark.parametrize("forget", [empty_pool, fresh_optimiser, next_batch])
def test_what_a_checkpoint_forgets_shows(run: Run, straight: Callable, stopped: Path, forget: Callable) -> None:
    """The control: a resume that loses one part of the state does not end where it should."""
    latest = checkpoint_path(copytree(stopped, stopped.with_name(forget.__name__)), "latest")
    content = read_checkpoint(latest)
    forget(content)
    write_checkpoint(latest, unseal(content))
    assert run(forget.__name__, "--continue_train")["sha256"] != straight("off")["sha256"]
