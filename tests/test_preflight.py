"""Before the first step: what cannot work is refused, with what to lower; what was measured steers the micro-batch."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import train_arguments

import train
from models import MODELS
from models.update import StepContext
from models.weights import weights_files
from options.train_options import for_device, parse
from training.activations import Activations
from training.data import open_data
from training.disk import in_words, state_bytes
from training.kept_memory import kept_bytes
from training.memory import fitting_micro_batch
from training.preflight import Needs, middle, preflight
from util.checkpoint import read_checkpoint
from util.errors import UserError

PLENTY = 1 << 44
CPU = torch.device("cpu")
Free = Callable[..., None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Sets how many bytes memory and disk have free; plenty of both at first."""
    room = {"memory": PLENTY, "disk": PLENTY}
    monkeypatch.setattr("training.preflight.known_free_bytes", lambda device: room["memory"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=room["disk"]))
    return lambda **new: room.update(new)


def needs_of(argv: list[str], *, amp: torch.dtype | None = None) -> Needs:
    """The needs of a fresh run by its command line."""
    run = for_device(parse(argv), CPU)
    dataset, _, _ = open_data(run)
    model = MODELS[run.model](run.network, dataset.image_size())
    run.run_dir.mkdir(parents=True, exist_ok=True)
    return preflight(run, model, dataset, CPU, amp, None)


def refusal(argv: list[str]) -> str:
    with pytest.raises(UserError) as refused:
        train.main(argv)
    assert len(str(refused.value)) < 1000
    return str(refused.value)


def state_of(run_dir: Path) -> int:
    files = [run_dir / "latest.pt", *weights_files(run_dir)]
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("model", ["pta_hybrid", "sgp"])
def test_the_size_of_a_saved_state_is_known_and_told(phantom: Path, tmp_path: Path, model: str) -> None:
    """But for archives' headers, which are all that counts in networks as tiny as these."""
    argv = train_arguments(phantom, tmp_path, model, "--name=run", "--no_html", "--sgp_width=128")
    train.main(argv)
    run = for_device(parse(argv), CPU)
    expected = state_bytes(MODELS[model](run.network, (32, 32)))
    assert expected == pytest.approx(state_of(tmp_path / "run"), rel=0.25)
    assert f"disk: {in_words(expected)}" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_one_image_or_two_tell_of_many(phantom: Path, tmp_path: Path, amp: torch.dtype | None) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--n_epochs_refine=1", "--netG=hybrid")
    found = needs_of(argv, amp=amp).activations
    assert list(found) == ["gan", "refine"]
    dataset, _, _ = open_data(parse(argv))
    model = MODELS["cycle_gan"](parse(argv).network, (32, 32))
    for stage in model.stages:
        stage.begin(model)
        kept = kept_bytes(model, stage, middle(dataset, 4), StepContext(CPU, micro_batch=1, amp_dtype=amp))
        assert 0.9 * kept < found[stage.name].of(4) < 1.1 * kept


def test_steps_that_are_never_split_are_not_measured(phantom: Path, tmp_path: Path) -> None:
    assert needs_of(train_arguments(phantom, tmp_path, "cycle_gan", "--norm=batch")).activations == {}
    assert needs_of(train_arguments(phantom, tmp_path, "lsc")).activations == {}


def test_measuring_changes_nothing(phantom: Path, tmp_path: Path) -> None:
    """Neither running statistics nor any generator, though dropout is at work."""
    options = ("--netG=resnet_6blocks", "--dropout", "--gan_mode=wgangp", "--lf_noise=0.1")
    run = parse(train_arguments(phantom, tmp_path, "cycle_gan", *options))
    dataset, _, _ = open_data(run)
    model = MODELS[run.model](run.network, (32, 32))
    run.run_dir.mkdir(parents=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    preflight(run, model, dataset, CPU, None, None)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_step_too_large_for_one_image_is_refused_and_leaves_nothing(
    phantom: Path, tmp_path: Path, free: Free
) -> None:
    argv = train_arguments(phantom, tmp_path / "out/deep", "cycle_gan", "--netG=hybrid")
    one = needs_of(argv).activations["gan"].first
    shutil.rmtree(tmp_path / "out")
    free(memory=one - 1)
    said = refusal(argv)
    assert "stage gan" in said and in_words(one - 1) in said
    assert "--load_size" in said and "--hybrid_width" in said
    assert not (tmp_path / "out/deep/experiment").exists()
    free(memory=one)
    needs_of(argv)


@pytest.mark.parametrize(("room", "images"), [(0, 1), (3 * 40, 2), (4 * 40, 4), (10**9, 4)])
def test_a_batch_is_split_into_as_few_equal_parts_as_fit(
    monkeypatch: pytest.MonkeyPatch, room: int, images: int
) -> None:
    monkeypatch.setattr("training.memory.free_bytes", lambda device: 4 * room)  # of which a quarter may be taken
    assert fitting_micro_batch(Activations(40, 40), 4, CPU) == images
    assert fitting_micro_batch(None, 4, CPU) == 4


# disk -----------------------------------------------------------------------------------------------------------------


def test_two_states_and_a_save_must_fit(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path / "out", "cycle_gan", "--no_html")
    need = 3 * state_bytes(MODELS["cycle_gan"](parse(argv).network, (32, 32)))
    free(disk=need - 1)
    said = refusal(argv)
    assert str(tmp_path / "out/experiment") in said and in_words(need) in said
    assert not (tmp_path / "out/experiment").exists()
    free(disk=need)
    train.main(argv)


def test_a_refused_run_overwrites_nothing_and_what_goes_makes_room(phantom: Path, tmp_path: Path, free: Free) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--no_html", "--save_latest_freq=8")
    train.main(argv)
    run_dir = tmp_path / "experiment"
    assert (run_dir / "previous.pt").exists()
    before = {path: path.read_bytes() for path in run_dir.iterdir() if path.name != "run.lock"}
    need = 3 * state_bytes(MODELS["cycle_gan"](parse(argv).network, (32, 32)))
    theirs = state_of(run_dir) + (run_dir / "previous.pt").stat().st_size
    free(disk=max(0, need - theirs - 1))
    if need > theirs:
        refusal([*argv, "--overwrite", "--n_epochs=9"])
        assert {path: path.read_bytes() for path in before} == before
    free(disk=max(0, need - theirs))
    train.main([*argv, "--continue_train", "--n_epochs=2"])
    assert read_checkpoint(run_dir / "latest.pt")["position"]["epoch"] == 3


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (640_000, "640 kB"), (1_460_000_000, "1.46 GB"), (10**13, "10000 GB")],
)
def test_bytes_in_words(count: int, words: str) -> None:
    assert in_words(count) == words


def test_the_sentence_names_stages_and_bytes(phantom: Path, tmp_path: Path) -> None:
    found = needs_of(train_arguments(phantom, tmp_path, "cycle_gan"))
    assert re.search(
        r"[\d.]+ \wB for networks.*[\d.]+ \wB per image in a step of gan; disk: [\d.]+ \wB", found.sentence
    )
