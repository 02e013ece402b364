"""The training program as users run it: through its command line, on a phantom."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import train_arguments, write_phantom, write_truths
from running import run

import train
from data.registry import DATASETS, PAIRED
from models import MODELS
from models.gan_stage import GANStage
from models.lsc_model import LSCStage
from models.sgp_options import SGP_STEPS
from models.trained import load_trained
from options.train_options import for_device, parse
from training.activations import Activations
from training.announcement import first_lines
from training.memory import CPU_MOST, fitting_micro_batch
from util.checkpoint import read_checkpoint
from util.errors import UserError

PUBLISHED = [
    *(
        "--dataroot",
        "DATA",
        "--name",
        "test",
        "--model",
        "pta_hybrid",
        "--display_id",
        "-1",
        "--checkpoints_dir",
        "OUT",
    ),
    *("--load_size=224", "--n_epochs", "100", "--batch_size", "16", "--input_nc", "1", "--output_nc", "1"),
    *("--n_epochs_decay", "50", "--preprocess", "resize", "--save_epoch_freq=5", "--netG=hybrid"),
    *("--dataset_mode", "unaligned_mask", "--gpu_ids", "0"),
]


SHORT = ("--n_epochs_decay=0",)


def takes(model: str, mode: str) -> bool:
    """Whether a model learns from a dataset mode."""
    return MODELS[model].Options.paired == (mode in PAIRED)


def weights(run_dir: Path, epoch: str = "latest") -> dict[str, torch.Tensor]:
    return read_checkpoint(run_dir / f"{epoch}.pt")["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_published_command_parses() -> None:
    run = parse(PUBLISHED)
    assert (run.model, run.dataset_mode, run.train.batch_size, run.data.load_size) == (
        "pta_hybrid",
        "unaligned_mask",
        16,
        224,
    )
    assert run.network.netG == parse([*PUBLISHED[:-2], "--net_G", "hybrid"]).network.netG == "hybrid"


def test_pretext_stages_last_as_long_as_the_device_allows() -> None:
    run = parse([*PUBLISHED[:-2], "--lsc_steps=7"])
    assert for_device(run, torch.device("cpu")).network.sgp_steps == SGP_STEPS.cpu
    assert for_device(run, torch.device("cuda")).network.sgp_steps == SGP_STEPS.gpu > SGP_STEPS.cpu
    assert for_device(run, torch.device("cuda")).network.lsc_steps == 7


@pytest.mark.parametrize(("model", "mode"), [(name, mode) for name in MODELS for mode in DATASETS if takes(name, mode)])
def test_every_model_trains_and_loads(phantom: Path, tmp_path: Path, model: str, mode: str) -> None:
    out = tmp_path / "out"
    write_truths(phantom)
    train.main(train_arguments(phantom, out, model, *SHORT, "--html", "--name=run", f"--dataset_mode={mode}"))
    run_dir = out / "run"
    for name in ("options.json", "run.json", "loss_log.csv", "latest.pt", "web/index.html"):
        assert (run_dir / name).is_file(), name
    with (run_dir / "loss_log.csv").open() as file:
        rows = list(csv.DictReader(file))
    stages = [stage.name for stage in load_trained(run_dir).stages]
    assert [row["stage"] for row in rows if row["step"] == "1"] == stages
    loaded = load_trained(run_dir)
    for name, network in loaded.exported_networks().items():
        alone = torch.load(run_dir / f"latest_net_{name}.pth", weights_only=True)
        assert same(alone, network.state_dict())
    if loaded.can_synthesise:
        fake = loaded.synthesise(torch.zeros(2, 1, *loaded.image_size))
        assert fake.shape == (2, 1, *loaded.image_size)
        assert not fake.requires_grad


def last_steps(run_dir: Path) -> tuple[list[tuple[str, int, int]], list[tuple[str, int, int]]]:
    """(stage, epoch, step) of the rows with losses and of the sample images."""
    with (run_dir / "loss_log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["images_per_s"]]
    samples = json.loads((run_dir / "web" / "samples.json").read_text())
    return (
        [(row["stage"], int(row["epoch"]), int(row["step"])) for row in rows],
        [(sample["stage"], sample["epoch"], sample["step"]) for sample in samples],
    )


def test_the_last_step_of_every_stage_is_logged_once_and_sampled(phantom: Path, tmp_path: Path) -> None:
    """SGP and LSC end by their steps, the adversarial stage by its epochs: 14 images of B in batches of 4."""
    train.main(train_arguments(phantom, tmp_path, "pta_hybrid", "--html", "--name=run", "--lsc_steps=5"))
    wanted = [("sgp", 1, 1), ("sgp", 1, 3), ("lsc", 1, 1), ("lsc", 2, 5), ("gan", 1, 1), ("gan", 2, 8)]
    for found in last_steps(tmp_path / "run"):
        assert found == wanted
    with (tmp_path / "run" / "loss_log.csv").open() as file:
        columns = next(csv.reader(file))
    assert [name for name in columns if name.startswith("val_")] == ["val_p_error", "val_psnr", "val_train_psnr"]
    assert not any(name.startswith("val_val") for name in columns)


def test_a_stage_that_ends_early_is_logged_to_its_last_step(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LSCStage, "validate", lambda stage, *_: setattr(stage, "verdict", "memorised") or {})
    argv = train_arguments(phantom, tmp_path, "lsc", "--html", "--name=run", "--lsc_steps=99", "--val_epoch_freq=1")
    train.main([*argv, "--n_epochs=5"])
    for found in last_steps(tmp_path / "run"):
        assert found == [("lsc", 1, 1), ("lsc", 1, 4)]
    assert "lsc: stopped after epoch 1: memorised" in (tmp_path / "run" / "log.txt").read_text()


def test_a_training_says_what_runs_where_and_at_its_end_what_comes_next(phantom: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "out" / "run"
    done = run("train.py", *train_arguments(phantom, tmp_path / "out", "lsc", "--name=run", "--html"))
    lines = done.out.splitlines()
    assert re.fullmatch(r"device: cpu \(.*, 1 thread\), number format: float32", lines[0])
    assert lines[1] == f"images: 12 of A, 14 of B in {phantom}; validation: 12 of A, 14 of B"
    assert lines[2] == f"run folder: {run_dir}"
    assert lines[3] == f"watch it: {run_dir / 'web' / 'index.html'}"
    assert lines[4].startswith("memory: ")
    assert lines[-3:-1] == [f"report: {run_dir / 'web' / 'index.html'}", f"checkpoint: {run_dir / 'latest.pt'}"]
    program, *arguments = shlex.split(lines[-1].removeprefix("next: python "))
    log = (run_dir / "log.txt").read_text()
    assert all(line in log for line in (*lines[:5], *lines[-3:]))
    tested = run(program, *arguments, f"--results_dir={tmp_path / 'results'}")
    assert tested.status == 0, tested.err
    assert (tmp_path / "results" / "run" / "test_latest" / "index.html").is_file()


def test_where_to_watch_a_run_without_report_or_with_a_dashboard() -> None:
    def watch(*display: str) -> str:
        options = parse(["--dataroot=D", "--checkpoints_dir=OUT", "--model=lsc", *display])
        folders = SimpleNamespace(A=range(3), B=range(4))
        return first_lines(options, folders, None, torch.device("cpu"), torch.bfloat16, 2)[-1]  # type: ignore[arg-type]

    assert watch("--no_html") == "watch it: OUT/experiment/loss_log.csv (--no_html: no report)"
    both = "watch it: OUT/experiment/web/index.html and http://gpu:8097/env/experiment"
    assert watch("--display_id=1", "--display_server=http://gpu") == both
    assert watch("--no_html", "--tensorboard") == "watch it: tensorboard --logdir OUT/experiment/tensorboard"


def test_same_seed_same_weights_other_seed_others(phantom: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        train.main(train_arguments(phantom, tmp_path, "cycle_gan", *SHORT, f"--name={name}", f"--seed={seed}"))
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "three"))


def test_workers_change_nothing(phantom: Path, tmp_path: Path) -> None:
    for name, workers in (("none", 0), ("two", 2)):
        train.main(train_arguments(phantom, tmp_path, "lsc", f"--name={name}", f"--num_threads={workers}", "--flip"))
    assert same(weights(tmp_path / "none"), weights(tmp_path / "two"))


def test_a_finished_run_goes_on_with_more_epochs_and_then_refines(tmp_path: Path) -> None:
    """4 adversarial epochs at once, or 2 and then 2 more; refinement afterwards, numbered on from them."""
    dataroot = write_phantom(tmp_path / "data", subjects=1)
    arguments = train_arguments(dataroot, tmp_path, "cycle_gan", "--lr_policy=step", "--save_epoch_freq=1")
    train.main([*arguments, "--name=straight", "--n_epochs=4", "--n_epochs_decay=0"])
    train.main([*arguments, "--name=longer", "--n_epochs=2", "--n_epochs_decay=0"])
    longer = [*arguments, "--name=longer", "--n_epochs=4", "--n_epochs_decay=0", "--continue_train"]
    train.main(longer)
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "longer"))
    G_BA = load_trained(tmp_path / "longer").ema_G_BA.state_dict()
    train.main([*longer, "--n_epochs_refine=2"])
    assert sorted(path.stem for path in (tmp_path / "longer").glob("?.pt")) == ["1", "2", "3", "4", "5", "6"]
    assert same(G_BA, load_trained(tmp_path / "longer").ema_G_BA.state_dict())
    assert not same(weights(tmp_path / "straight"), weights(tmp_path / "longer"))
    with pytest.raises(UserError, match="can no longer change"):
        train.main([*longer, "--n_epochs_refine=2", "--n_epochs=5"])
    with pytest.raises(UserError, match="at least 1"):
        train.main(longer)


@pytest.mark.parametrize("policy", ["linear", "step", "cosine"])
def test_a_continued_run_has_the_learning_rates_of_an_unbroken_one(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """After its end, with more epochs: no epoch at rate 0, no cosine that climbs back."""
    rates: dict[int, float] = {}
    real = GANStage.set_learning_rate

    def noted(stage: GANStage, epoch: int, step: int) -> None:
        real(stage, epoch, step)
        rates[epoch] = stage.optimisers["G"].param_groups[0]["lr"]

    monkeypatch.setattr(GANStage, "set_learning_rate", noted)
    decay = ["--lr_decay_iters=2"] if policy == "step" else []
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--name=run", "--no_html", f"--lr_policy={policy}", *decay)
    train.main(argv)
    rates.clear()
    train.main([*argv, "--continue_train", "--n_epochs=3", "--n_epochs_decay=2"])
    continued = dict(rates)
    assert list(continued) == [2, 3, 4]
    train.main([*argv, "--overwrite", "--n_epochs=3", "--n_epochs_decay=2"])
    assert continued == {epoch: rate for epoch, rate in rates.items() if epoch in continued}
    assert min(continued.values()) > 0


def test_pretext_weights_are_taken_instead_of_trained(phantom: Path, tmp_path: Path) -> None:
    for model in ("sgp", "lsc"):
        train.main(train_arguments(phantom, tmp_path, model, f"--name={model}"))
    given = [f"--sgp_weights={tmp_path / 'sgp'}", f"--lsc_weights={tmp_path / 'lsc' / 'latest_net_LSC.pth'}"]
    train.main(train_arguments(phantom, tmp_path, "pta_hybrid", *SHORT, "--name=pta", *given))
    pta = load_trained(tmp_path / "pta")
    assert [stage.name for stage in pta.stages][-1] == "gan"
    assert same(pta.sgp.state_dict(), load_trained(tmp_path / "sgp").sgp.state_dict())
    assert same(pta.lsc.state_dict(), load_trained(tmp_path / "lsc").lsc.state_dict())
    with pytest.raises(
        UserError, match=r"not weights of this SGP network \(.* is .* there and .* here; give the options"
    ):
        small = ["--sgp_embedding=8", f"--sgp_weights={tmp_path / 'sgp'}", "--name=bad"]
        train.main(train_arguments(phantom, tmp_path, "pta_hybrid", *small))
    with pytest.raises(UserError, match="not weights of this LSC network"):
        wrong = [f"--lsc_weights={tmp_path / 'sgp' / 'latest_net_SGP.pth'}", "--name=bad"]
        train.main(train_arguments(phantom, tmp_path, "pta_hybrid", *wrong))


def test_a_run_goes_on_when_the_weights_that_it_was_given_are_gone(phantom: Path, tmp_path: Path) -> None:
    """They are in its checkpoint; but whether there were any decides on its stages, so it cannot change."""
    train.main(train_arguments(phantom, tmp_path, "lsc", "--name=lsc"))
    of_lsc = load_trained(tmp_path / "lsc").lsc.state_dict()

    def go(name: str, *more: str) -> None:
        options = (*SHORT, f"--name={name}", *more)
        train.main(train_arguments(phantom, tmp_path, "pta_hybrid", *options))

    given = f"--lsc_weights={tmp_path / 'lsc'}"
    go("given", given)
    go("own")
    with pytest.raises(UserError, match=r"was begun without --lsc_weights, .* leave it out"):
        go("own", given, "--continue_train", "--n_epochs_refine=1")
    with pytest.raises(UserError, match=r"was begun with --lsc_weights, .* give it again"):
        go("given", "--continue_train", "--n_epochs_refine=1")
    shutil.rmtree(tmp_path / "lsc")
    go("given", given, "--continue_train", "--n_epochs_refine=1")
    refined = load_trained(tmp_path / "given")
    assert refined.title == "pta_hybrid + refinement" and same(refined.lsc.state_dict(), of_lsc)


def test_an_earlier_run_is_not_lost_by_accident(phantom: Path, tmp_path: Path) -> None:
    arguments = train_arguments(phantom, tmp_path, "lsc", "--name=run")
    train.main(arguments)
    before = weights(tmp_path / "run")
    with pytest.raises(UserError, match="--continue_train to go on"):
        train.main(arguments)
    with pytest.raises(UserError, match=r"--mask_ratio: 0\.2 -> 0\.3\).* --overwrite"):
        train.main([*arguments, "--continue_train", "--mask_ratio=0.3"])
    assert same(before, weights(tmp_path / "run"))
    train.main([*arguments, "--overwrite", "--mask_ratio=0.3"])
    assert json.loads((tmp_path / "run" / "options.json").read_text())["mask_ratio"] == 0.3
    with pytest.raises(UserError, match="nothing to continue"):
        train.main(train_arguments(phantom, tmp_path, "lsc", "--name=never", "--continue_train"))
    with pytest.raises(UserError, match="no run of that name"):
        load_trained(tmp_path / "never")


def test_a_micro_batch_fits_in_memory() -> None:
    cpu = torch.device("cpu")
    assert fitting_micro_batch(None, 16, cpu) == 16  # a step that is never split
    assert fitting_micro_batch(Activations(0, 0), 16, cpu) == 16
    assert fitting_micro_batch(Activations(1, 1), 16, cpu) == 16
    half, third, fifth = (CPU_MOST // n for n in (2, 3, 5))
    assert fitting_micro_batch(Activations(half, half), 16, cpu) == 2
    assert fitting_micro_batch(Activations(half + 1, half + 1), 16, cpu) == 1
    assert fitting_micro_batch(Activations(half + 1, 1), 16, cpu) == 16  # all but one byte are there once
    assert fitting_micro_batch(Activations(10 * CPU_MOST, 1), 16, cpu) == 1
    assert fitting_micro_batch(Activations(third, third), 4, cpu) == 2  # two passes of two, not of three and one
    assert fitting_micro_batch(Activations(fifth, fifth), 8, cpu) == 4
    assert fitting_micro_batch(Activations(fifth, fifth), 5, cpu) == 5
