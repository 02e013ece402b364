"""Noise and receive field that `auto` stands for: estimated right, told, and kept by a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import train_arguments, write_phantom
from running import run
from scipy import ndimage

from data.folder.slices import write_image
from models.low_field import noise, receive_field
from models.low_field_options import LowFieldOptions
from options.train_options import parse
from scripts import low_field_accuracy as accuracy
from training.low_field.field import STRONGEST, estimate_field
from training.low_field.noise import NoiseEstimate, estimate_noise
from util.checkpoint import checkpoint_path, read_checkpoint
from util.errors import UserError

SIDE = 128
COUNT = 24
ALL_AUTO = ("--lf_noise=auto", "--lf_band=auto", "--lf_bias=auto")


def heads(side: int = SIDE, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric heads (N, H, W) in [0, 1] of three tissues with folded borders, and their masks."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    images = []
    for i in range(count):
        radius = np.hypot(x / 0.7, y / 0.85)
        angle = np.arctan2(y, np.abs(x))
        fold = 0.72 + 0.06 * np.sin((9 + i % 4) * angle + i)
        tissue = np.where(radius < fold, 0.45, 0.6)
        tissue = np.where(np.hypot(np.abs(x) - 0.15, y / (1 + 0.05 * i)) < 0.12, 0.75, tissue)
        images.append(ndimage.gaussian_filter(np.where(radius < 1, tissue, 0), 0.7))
    mask = np.broadcast_to(np.hypot(x / 0.7, y / 0.85) < 0.97, (count, side, side))
    return np.stack(images), np.array(mask)


def scanned(deviation: float, band: float = 1.0, bits: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """The heads with noise of that deviation in the network's range of -1 to 1, rounded to so many bits."""
    images, masks = heads()
    mask = torch.ones(COUNT, 1, SIDE, SIDE)
    drawn = noise(mask, deviation, band, torch.arange(COUNT), "test")[:, 0].numpy() / 2
    top = 2**bits - 1
    return np.round(np.clip(images + drawn, 0, 1) * top) / top, masks


def estimated(images: np.ndarray, masks: np.ndarray, **changed: Any) -> NoiseEstimate:
    found = estimate_noise(images, masks, **{"preprocess": "resize", "load_size": SIDE, **changed})
    assert found is not None
    return found


# the estimates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deviation", "band", "bits"), [(0.05, 1, 16), (0.1, 1, 8), (0.2, 1, 16), (0.1, 0.6, 16)])
def test_noise_is_found_with_its_band(deviation: float, band: float, bits: int) -> None:
    found = estimated(*scanned(deviation, band, bits))
    assert found.deviation == pytest.approx(deviation, rel=0.12)
    assert found.band == pytest.approx(band, abs=0.08)


@pytest.mark.parametrize("load_size", [64, 192])
def test_noise_is_that_of_the_network_s_input(load_size: int) -> None:
    images, masks = scanned(0.1)
    mask = torch.ones(COUNT, 1, SIDE, SIDE)
    drawn = noise(mask, 0.1, 1.0, torch.arange(COUNT), "test")
    resized = torch.nn.functional.interpolate(
        drawn, (load_size, load_size), mode="bilinear", antialias=True, align_corners=False
    )
    assert estimated(images, masks, load_size=load_size).deviation == pytest.approx(float(resized.std()), rel=0.12)
    assert estimated(images, masks, load_size=load_size, preprocess="none").deviation == pytest.approx(0.1, rel=0.12)


def test_air_that_is_no_noise_does_not_matter() -> None:
    images, masks = scanned(0.1)
    blank = estimated(np.where(masks, images, 0), masks)
    assert blank == estimated(np.where(masks, images, 0.3), masks)
    ramp = np.broadcast_to(np.linspace(0, 1, SIDE) ** 8, images.shape)
    assert blank == estimated(np.where(masks, images, ramp), masks)


@pytest.mark.parametrize("channels", [2, 8])
def test_real_air_corrects_what_texture_adds(channels: int) -> None:
    images, masks = scanned(0.2)  # of which the air knows a half
    drawn = 0.05 * np.sqrt((np.random.default_rng(0).standard_normal((channels, *images.shape)) ** 2).sum(0))
    cut = np.clip(drawn - 0.05, 0, 1)  # as a window does
    assert estimated(np.where(masks, images, cut), masks).deviation == pytest.approx(0.1, rel=0.12)
    assert estimated(np.where(masks, images, 4 * cut), masks).deviation == pytest.approx(0.2, rel=0.12)


def test_too_little_to_measure_is_no_number() -> None:
    images, masks = scanned(0.1)
    assert estimate_noise(images[:, :12, :12], masks[:, :12, :12], preprocess="resize", load_size=16) is None
    assert estimate_noise(images, np.zeros_like(masks), preprocess="resize", load_size=SIDE) is None
    assert estimate_noise(masks * 0.5, masks, preprocess="resize", load_size=SIDE) is None
    assert estimate_field(images, np.zeros_like(masks), np.arange(COUNT)) is None


def with_field(strength: float) -> float:
    images, masks = scanned(0.05)
    volumes = np.arange(COUNT) // 4
    if strength:
        field = receive_field(torch.zeros(COUNT, 1, SIDE, SIDE), strength, torch.arange(COUNT), "test")[:, 0].numpy()
        images = np.clip(images * field, 0, 1)
    found = estimate_field(images, masks, volumes)
    assert found is not None
    return found


def test_a_receive_field_is_found_in_symmetric_heads() -> None:
    assert with_field(0) < 0.02
    assert 0.05 < with_field(0.1) <= STRONGEST  # within a factor of two, as docs/low_field.md says


# the options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lf_noise", "lf_band", "lf_bias"])
def test_auto_is_a_word_beside_numbers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = () if name == "lf_noise" else ("--lf_noise=auto",)
    assert getattr(parse(["--dataroot=D", *noisy, f"--{name}=auto"]).network, name) == "auto"
    assert getattr(parse(["--dataroot=D", *noisy, f"--{name}=0.5"]).network, name) == 0.5
    with pytest.raises(SystemExit):
        parse(["--dataroot=D", f"--{name}=much"])
    assert f"--low_{name[3:]}: 'much' is neither a number nor auto" in capsys.readouterr().err
    with pytest.raises(UserError, match=rf"^--{name} is 7\.0, it must be between"):
        parse(["--dataroot=D", f"--{name}=7"])


def test_auto_has_no_number_by_itself() -> None:
    with pytest.raises(ValueError, match="auto has not been replaced by a number"):
        _ = LowFieldOptions(lf_noise="auto").strengths
    assert LowFieldOptions(lf_noise=0.2).strengths.noise == 0.2


# a run ----------------------------------------------------------------------------------------------------------------


def by_hand(root: Path) -> Path:
    """A folder of PNG files without manifest and without masks of A, whose heads are large enough to measure."""
    write_phantom(root, splits=("train",))
    for place in (root / "trainA", root / "trainA_mask"):
        for file in place.iterdir():
            file.unlink()
    (root / "trainA_mask").rmdir()
    images, masks = scanned(0.1)
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        write_image(root / "trainA" / f"case{i // 8}_{i % 8:02d}.png", np.where(mask, image, image * 0.1), 8)
    return root


def trained(data: Path, out: Path, *more: str, options: Sequence[str] = ALL_AUTO) -> str:
    ended = run("train.py", *train_arguments(data, out, "cycle_gan", "--max_dataset_size=4", *options, *more))
    assert ended.status == 0, ended.err
    return ended.out + ended.err


def numbers(out: Path) -> dict[str, float]:
    return json.loads((out / "experiment" / "run.json").read_text())["low_field"]


def test_numbers_are_told_and_recorded_beside_the_word(tmp_path: Path) -> None:
    data, out = by_hand(tmp_path / "data"), tmp_path / "out"
    told = trained(data, out, "--max_dataset_size=24")
    found = numbers(out)
    assert found["lf_noise"] == pytest.approx(estimated(*scanned(0.1), load_size=32).deviation, rel=0.15)
    assert f"low field: --lf_noise auto is {found['lf_noise']:g}, --lf_band auto is {found['lf_band']:g}, " in told
    assert f"estimated from 24 slices of {data / 'trainA'}" in told
    saved = json.loads((out / "experiment" / "options.json").read_text())
    assert (saved["lf_noise"], saved["lf_band"], saved["lf_bias"]) == ("auto", "auto", "auto")
    given = tuple(f"--{name}={number}" for name, number in found.items())
    trained(data, tmp_path / "given", "--max_dataset_size=24", options=given)
    states = [read_checkpoint(checkpoint_path(place / "experiment", "latest")) for place in (out, tmp_path / "given")]
    for name, weights in states[0]["model"].items():
        assert torch.equal(weights, states[1]["model"][name]), name


def test_a_run_that_goes_on_keeps_its_numbers(tmp_path: Path) -> None:
    data, out = write_phantom(tmp_path / "data", splits=("train",)), tmp_path / "out"
    told = trained(data, out)
    assert "a usual value: the heads in 4 slices of" in told
    record = out / "experiment" / "run.json"
    content = json.loads(record.read_text())
    kept = {"lf_noise": 0.05, "lf_band": 0.7, "lf_bias": 0.02}
    record.write_text(json.dumps(content | {"low_field": kept}))
    (data / "trainA" / "trainA0_000.png").write_bytes((data / "trainA" / "trainA0_001.png").read_bytes())
    told = trained(data, out, "--continue_train", "--n_epochs_decay=2")
    assert "--lf_noise auto is 0.05, --lf_band auto is 0.7, --lf_bias auto is 0.02, as the run began" in told
    assert "other slices than those" in told
    assert numbers(out) == kept
    refined = ("--n_epochs_decay=2", "--refine_physics=0.4")  # a stage that needs three numbers more
    told = trained(data, out, "--continue_train", *refined, "--n_epochs_refine=1")
    assert "--lf_noise auto is 0.05, --lf_band auto is 0.7, --lf_bias auto is 0.02, as the run began" in told
    assert "low field: --lf_resolution auto is" in told and "estimated anew" not in told
    assert numbers(out).keys() == {*kept, "lf_resolution", "lf_contrast", "lf_tone"}
    assert numbers(out).items() >= kept.items()
    record.write_text("{}")
    told = trained(data, out, "--continue_train", *refined, "--n_epochs_refine=2")
    assert "run.json does not say which numbers the run began with: estimated anew" in told


def test_what_the_presets_have_beyond_a_run_is_named(tmp_path: Path) -> None:
    data = write_phantom(tmp_path / "data", splits=("train",))
    tip = "tip: this run goes without --flip, --lf_noise auto, --lf_bias auto, --n_epochs_refine 4"
    assert tip in trained(data, tmp_path / "plain", options=())
    assert "tip:" not in trained(data, tmp_path / "all", "--flip", "--n_epochs_refine=1")


# the table in docs/low_field.md --------------------------------------------------------------------------------------


def test_the_table_compares_estimates_with_what_was_simulated() -> None:
    case = accuracy.Case("same-contrast", 96, snr=8.0, subjects=1)
    row = accuracy.measured(case, load_size=96)
    assert row.noise == pytest.approx(row.true_noise, rel=0.2)
    assert row.true_noise > 0.02 and 0.1 <= row.band <= 1 and 0 < row.bias <= STRONGEST
    assert accuracy.line(case, 96, row).count("|") == 10
