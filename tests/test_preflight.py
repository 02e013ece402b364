"""What a run will need is forecast before its first step: near what it then takes, refused where it is not there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import train_arguments

import train
from models import MODELS
from models.base_model import Stage, StepContext
from models.weights import weights_files
from options.train_options import for_device, parse
from training.data import open_data
from training.disk_need import DiskNeed, check_disk, epochs_to_write, in_words
from training.memory_need import middle
from training.position import start_of
from training.preflight import CPU, SHARED, Forecast, preflight
from util.checkpoint import read_checkpoint
from util.errors import UserError
from util.processes import Processes

PLENTY = 1 << 44
Free = Callable[..., None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Sets how many bytes memory, disk and shared memory have free; all plenty at first."""
    room = {"memory": PLENTY, "disk": PLENTY, "shared": PLENTY}
    monkeypatch.setattr("training.preflight.known_free_bytes", lambda device: room["memory"])
    usage = lambda path: SimpleNamespace(free=room["shared" if Path(path) == SHARED else "disk"])  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    return lambda **new: room.update(new)


def forecast_of(argv: list[str], *, amp: torch.dtype | None = None, processes: int = 1) -> tuple[Forecast, list[str]]:
    """The forecast of a fresh run by its command line, and warnings."""
    run = for_device(parse(argv), CPU)
    dataset, _, _ = open_data(run)
    model = MODELS[run.model](run.network, dataset.image_size())  # type: ignore[call-arg]
    return preflight(run, model, dataset, CPU, amp, None, Processes(0, processes, 0, local_size=processes))


def refusal(argv: list[str]) -> str:
    with pytest.raises(UserError) as refused:
        train.main(argv)
    assert len(str(refused.value)) < 1000
    return str(refused.value)


def near(count: int, share: float = 0.02) -> Any:
    return pytest.approx(count, rel=share)


# against what a run takes ---------------------------------------------------------------------------------------------


def bytes_of(tensors: Iterator[torch.Tensor | None]) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@pytest.mark.parametrize("model", MODELS)
def test_the_forecast_comes_true(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Every stage trained: static memory to the byte, files within 2 %, all of them together as many as said."""
    made: list[Forecast] = []

    def noted(*arguments: Any) -> tuple[Forecast, list[str]]:
        found = preflight(*arguments)
        made.append(found[0])
        return found

    monkeypatch.setattr(train, "preflight", noted)
    more = ["--pool_size=3"] if model in ("cycle_gan", "pta_hybrid") else []
    more += {"cycle_gan": ["--netG=resnet_6blocks"], "pta_hybrid": ["--n_epochs_refine=1"]}.get(model, [])
    argv = train_arguments(phantom, tmp_path, model, "--name=run", "--save_epoch_freq=1", "--no_html", *more)
    with ExitStack() as held:
        trainer = train.make_trainer(parse(argv), argv, held)
        (forecast,) = made
        trainer.fit()
    static, networks, optimisers = forecast.static, trainer.model, trainer.model.optimisers.values()
    assert static.weights == bytes_of(iter([*networks.parameters(), *networks.buffers()]))
    gradients = bytes_of(p.grad for p in networks.parameters())
    moments = bytes_of(t for o in optimisers for s in o.state.values() for t in s.values())
    if model == "pta_hybrid":  # the refinement shows the hybrid no mask: what is for masks alone gets no gradient then
        assert gradients < static.gradients == near(gradients, 0.002)
        assert moments < static.moments == near(moments, 0.002)
    else:
        assert (static.gradients, static.moments) == (gradients, moments)
    assert static.pools == bytes_of(image for pool in getattr(networks, "pools", {}).values() for image in pool.images)

    run_dir, disk = tmp_path / "run", forecast.disk
    assert disk.checkpoint == near((run_dir / "latest.pt").stat().st_size)
    assert disk.weights == near(sum(path.stat().st_size for path in run_dir.glob("latest_net_*")))
    assert {f"{number}.pt" for number in disk.epochs} == {path.name for path in run_dir.glob("[0-9]*.pt")}
    files = [*run_dir.glob("*.pt"), *weights_files(run_dir)]
    assert disk.most == near(sum(path.stat().st_size for path in files) + disk.save, 0.03)  # and a save in progress

    (line,) = [line for line in (run_dir / "log.txt").read_text().splitlines() if "this run needs at least" in line]
    assert in_words(disk.checkpoint) in line and in_words(disk.most) in line
    assert all(f"{step.stage.name} {in_words(step.bytes)}" in line for step in forecast.steps)


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_one_image_tells_of_many(phantom: Path, tmp_path: Path, free: Free, amp: torch.dtype | None) -> None:
    """Never more than so many images keep, and not much less."""
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--micro_batch=4")
    (of_one,) = forecast_of(argv, amp=amp)[0].steps
    (of_two,) = forecast_of([*argv, "--norm=batch"], amp=amp)[0].steps
    assert (of_one.at_once, of_one.splits) == (4, True)
    assert (of_two.at_once, of_two.splits) == (4, False)
    run = parse(argv)
    dataset, _, _ = open_data(run)
    for step, norm in ((of_one, "instance"), (of_two, "batch")):
        model = MODELS["cycle_gan"](parse([*argv, f"--norm={norm}"]).network, (32, 32))  # type: ignore[call-arg]
        context = StepContext(CPU, micro_batch=1, amp_dtype=amp)
        kept = model.activation_bytes(middle(dataset, 4), model.stages[0], context)
        assert 0.7 * kept < step.bytes < 1.01 * kept  # scalars and the blur's matrices count for every image
        assert step.activations.images_in(step.bytes) == 4
        assert step.activations.images_in(step.bytes - 1) == 3
        assert step.activations.images_in(step.activations.first - 1) == 0
        if amp and step.splits:  # short copies of the weights are there once
            assert step.activations.further < 0.9 * step.activations.first
            assert step.bytes == near(kept)


def test_measuring_changes_nothing(phantom: Path, tmp_path: Path, free: Free) -> None:
    """Neither running statistics nor any generator, though dropout and batch statistics are at work."""
    options = ("--norm=batch", "--netG=resnet_6blocks", "--dropout", "--gan_mode=wgangp", "--low_noise=0.1")
    run = parse(train_arguments(phantom, tmp_path, "cycle_gan", *options))
    dataset, _, _ = open_data(run)
    model = MODELS[run.model](run.network, (32, 32))  # type: ignore[call-arg]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    preflight(run, model, dataset, CPU, None, None)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


# memory ---------------------------------------------------------------------------------------------------------------


SLACK = 20_000  # two measurements differ by the few tensors that die on the way and whose place is used again


def needed(forecast: Forecast) -> int:
    return forecast.static.to_come + forecast.loading + max(forecast.peak, forecast.saving)


def test_a_run_that_just_fits_is_let_through(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path / "out", "cycle_gan", "--name=run", "--no_html")
    assert forecast_of(argv)[1] == []
    free(memory=needed(forecast_of(argv)[0]) + SLACK)
    (warning,) = forecast_of(argv)[1]
    assert re.search(
        r"likely [\d.]+ MB, and the machine has [\d.]+ MB free: it may run out; lower --load_size", warning
    )
    train.main(argv)
    assert f"warning: {warning}" in (tmp_path / "out/run/log.txt").read_text()


def test_less_than_one_image_needs_is_refused_and_leaves_nothing(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path / "out/deep", "cycle_gan")
    free(memory=needed(forecast_of(argv)[0]) - SLACK)
    said = refusal(argv)
    assert re.search(
        r"needs at least [\d.]+ \wB more memory, [\d.]+ \wB of it for a step of stage gan with 1 image", said
    )
    assert said.endswith("lower --load_size, --hybrid_width, --hybrid_features")
    assert not (tmp_path / "out/experiment").exists()
    free(memory=10_000)  # so little that measuring stops in the middle
    said = refusal(argv)
    assert (
        "needs more memory than the 10 kB that are free for the least that can be computed at once, 1 of its 4" in said
    )
    (tmp_path / "out/deep/experiment").mkdir(parents=True)
    (tmp_path / "out/deep/experiment/notes.txt").touch()
    refusal(argv)
    assert [path.name for path in (tmp_path / "out/deep/experiment").iterdir()] == ["notes.txt"]


def test_a_micro_batch_that_cannot_fit(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--no_html")
    free(memory=needed(forecast_of([*argv, "--micro_batch=3"])[0]) + SLACK)
    forecast_of(argv)
    said = refusal([*argv, "--micro_batch=4"])
    number = re.search(
        r"stage gan with 4 images at once; .*; lower --micro_batch 4 to (\d) or less; lower --load", said
    )
    assert number is not None and number[1] == "3"
    train.main([*argv, "--micro_batch=3"])


def test_batch_statistics_forbid_parts(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--no_html", "--netG=resnet_6blocks")
    need = needed(forecast_of([*argv, "--norm=batch"])[0])
    assert need > needed(forecast_of(argv)[0])
    free(memory=need - SLACK)
    forecast_of(argv)
    said = refusal([*argv, "--norm=batch"])
    assert (
        "lower --batch_size 4 to 3 or less, or leave --norm batch, which forbids --micro_batch; lower --load_size"
        in said
    )
    forecast_of([*argv, "--norm=batch", "--batch_size=3"])


@pytest.mark.parametrize(("model", "flag"), [("sgp", "--sgp_batch_size"), ("lsc", "--lsc_batch_size")])
def test_pretext_batches_are_never_split(phantom: Path, tmp_path: Path, free: Free, model: str, flag: str) -> None:
    small, large = (train_arguments(phantom, tmp_path, model, f"{flag}={n}") for n in (4, 64))
    free(memory=needed(forecast_of(large)[0]) - SLACK)
    forecast_of(small)
    assert f"stage {model} with 64 images" in (said := refusal(large)) and flag in said


def test_loading_processes_take_memory(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--num_threads=3")
    with_them, without = forecast_of(argv)[0], forecast_of(argv[:-1])[0]
    assert with_them.shared == 3 * 2 * 4 * 4 * 32 * 32 * 4 and without.loading == 0
    free(memory=needed(with_them) - SLACK)
    forecast_of(argv[:-1])
    assert refusal(argv).endswith(", --num_threads")
    free(memory=PLENTY, shared=with_them.shared)
    forecast_of(argv)
    free(shared=with_them.shared - 1)
    assert "--num_threads 3: batches that wait need 393 kB of shared memory and /dev/shm has 393 kB free" in refusal(
        argv
    )


def test_processes_share_a_machine(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan")
    need = needed(forecast_of(argv)[0])
    free(memory=3 * (need + SLACK))
    forecast_of(argv, processes=3)
    with pytest.raises(UserError, match="more memory, 4 processes together"):
        forecast_of(argv, processes=4)


def test_the_partners_of_a_million_slices_take_no_more_than_their_embeddings() -> None:
    argv = ["--dataroot=-", "--model=pta_hybrid", "--sgp_embedding=128", "--load_size=32", "--hybrid_patch=8"]
    model = MODELS["pta_hybrid"](for_device(parse(argv), CPU).network, (32, 32))  # type: ignore[call-arg]
    million = 10**6
    assert 2 * million * 128 * 4 < model.partner_bytes(million, million) < 2 * million * 128 * 4 + 5 * 10**8
    assert MODELS["cycle_gan"](parse([*argv[:1], "--model=cycle_gan"]).network, (224, 224)).partner_bytes(9, 9) == 0  # type: ignore[call-arg]


# disk -----------------------------------------------------------------------------------------------------------------


def test_two_states_and_a_save_must_fit(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path / "out", "cycle_gan", "--no_html")
    disk = forecast_of(argv)[0].disk
    assert disk.epochs == () and disk.at_once == 3 * disk.checkpoint + 2 * disk.weights == disk.most
    free(disk=disk.at_once - 1)
    said = refusal(argv)
    assert str(tmp_path / "out/experiment") in said and f"need {in_words(disk.at_once)} at once" in said
    assert not (tmp_path / "out/experiment").exists()
    free(disk=disk.at_once)
    train.main(argv)


def test_a_refused_run_overwrites_nothing(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--no_html")
    train.main(argv)
    before = {path: path.read_bytes() for path in (tmp_path / "experiment").iterdir() if path.name != "run.lock"}
    free(disk=0)
    refusal([*argv, "--overwrite", "--n_epochs=9"])
    assert {path: path.read_bytes() for path in before} == before
    free(disk=PLENTY)
    disk = forecast_of(argv)[0].disk
    theirs = [*(tmp_path / "experiment").glob("*.pt"), *weights_files(tmp_path / "experiment")]
    free(disk=disk.at_once - sum(path.stat().st_size for path in theirs))  # as they make room
    train.main([*argv, "--overwrite"])


def test_a_resumed_run_counts_what_is_there(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--no_html", "--save_latest_freq=8")
    train.main(argv)
    run_dir = tmp_path / "experiment"
    assert (run_dir / "previous.pt").exists()
    own = [run_dir / "latest.pt", run_dir / "previous.pt", *weights_files(run_dir)]
    need = forecast_of(argv)[0].disk.at_once - sum(path.stat().st_size for path in own)
    longer = [*argv, "--continue_train", "--n_epochs=2"]
    free(disk=need - 1)
    assert "of it are there" in refusal(longer)
    free(disk=need)
    train.main(longer)
    assert read_checkpoint(run_dir / "latest.pt")["position"]["epoch"] == 3


def ways(warning: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"--(\w+) (\d+)", warning.partition("give")[2])}


@pytest.mark.parametrize("fit", [1, 2, 7, 29])
def test_where_epochs_fill_the_disk_a_warning_says_when_and_what_helps(tmp_path: Path, free: Free, fit: int) -> None:
    epochs = tuple(range(5, 151, 5))
    need = DiskNeed(1000, 100, epochs, keep_last=0)
    free(disk=need.at_once + (fit - 1) * need.save + 50)
    warning = check_disk(need, tmp_path, [], 5)
    assert f"{tmp_path}: its disk has" in warning and f"it will be full at epoch {epochs[fit]}" in warning
    found = ways(warning)
    every = found["save_epoch_freq"]
    assert check_disk(DiskNeed(1000, 100, tuple(e for e in epochs if e % every == 0), 0), tmp_path, [], every) == ""
    if fit > 1:
        assert found["keep_last"] == fit - 1
        assert check_disk(DiskNeed(1000, 100, epochs, found["keep_last"]), tmp_path, [], 5) == ""
        assert check_disk(DiskNeed(1000, 100, epochs, found["keep_last"] + 1), tmp_path, [], 5) != ""
    free(disk=need.most)
    assert check_disk(need, tmp_path, [], 5) == ""


def test_old_epochs_are_replaced_by_new_ones() -> None:
    assert DiskNeed(1000, 100, (5, 10, 15), keep_last=2).more_epochs == 3
    assert DiskNeed(1000, 100, (15, 20, 25), keep_last=2, kept=2).more_epochs == 1
    assert DiskNeed(1000, 100, (), keep_last=2, kept=2).more_epochs == 0
    assert DiskNeed(1000, 100, (5,), keep_last=2).more_epochs == 1


def test_which_epochs_will_be_kept() -> None:
    stages = (
        Stage("sgp", 10**6, steps=40, epochs_before=None),
        Stage("gan", 12),
        Stage("refine", 3, epochs_before=12),
    )
    assert epochs_to_write(stages, start_of(0), 5, 10) == [5, 10, 15]
    assert epochs_to_write(stages, start_of(1) | {"epoch": 5}, 5, 10) == [10, 15]
    assert epochs_to_write(stages, start_of(2) | {"epoch": 3}, 1, 10) == []
    assert epochs_to_write((Stage("lsc", 150, steps=41),), start_of(0), 2, 10) == [2, 4]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (640_000, "640 kB"), (1_460_000_000, "1.46 GB"), (10**13, "10000 GB")],
)
def test_bytes_in_words(count: int, words: str) -> None:
    assert in_words(count) == words
