"""`--model degrade`: the random low-field physics, its estimates from unpaired slices, and what a run keeps of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import train_arguments
from running import run
from scipy.ndimage import gaussian_filter
from tiny_models import SIDE, SMALL, batch, context
from torch import Tensor

from models.degradation import Physics, degraded, filtered, toned
from models.degrade_model import DegradeModel
from models.degrade_options import DegradeOptions
from models.low_field_options import NO_SCAN, Strengths
from models.physics_options import tone_curve
from models.shading import shading
from options.train_options import parse
from training.low_field.degradation import estimate_degradation
from util.errors import UserError

PLAIN = Physics(NO_SCAN, 1.0, 1.0, (0.0, 1.0))
CURVE = (0.0, 0.3, 0.7, 0.9, 1.0)


def heads(n: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ellipses with structures of all sizes, (n, 1, side, side) in [-1, 1], and their masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    mask = np.stack([(x / w) ** 2 + (y / 0.85) ** 2 < 1 for w in rng.uniform(0.65, 0.75, n)])
    levels = np.zeros((n, side, side))
    for sigma in (6, 3, 1.5, 0.8):
        white = gaussian_filter(rng.normal(size=levels.shape), (0, sigma, sigma))
        levels += np.sqrt(sigma) * white / white.std()
    grey = (0.5 + 0.12 * levels).clip(0.05, 0.95) * mask
    return torch.from_numpy(2 * grey - 1).float()[:, None], torch.from_numpy(mask).float()[:, None]


def test_without_physics_nothing_changes_inside_the_head() -> None:
    b, mask = heads(3, 48, 0)
    assert torch.allclose(degraded(b, mask, torch.arange(3), PLAIN), b, atol=1e-6)


def test_a_tone_curve_is_linear_between_its_knots() -> None:
    x = torch.rand(2, 1, 9, 9)
    expected = np.interp(x.numpy(), np.linspace(0, 1, 5), CURVE)
    assert np.allclose(toned(x, CURVE).numpy(), expected, atol=1e-6)
    assert toned(torch.tensor([0.0, 1.0]), CURVE).tolist() == [0.0, 1.0]


def test_only_the_central_part_of_k_space_is_left() -> None:
    x = torch.rand(1, 1, 64, 64)
    power = torch.fft.fft2(filtered(x, torch.ones_like(x), 0.5, 1.0)).abs()[0, 0]
    frequency = torch.fft.fftfreq(64).abs() * 2
    beyond = (frequency[:, None] > 0.5) | (frequency[None, :] > 0.5)
    assert power[beyond].max() < 1e-3 * power[~beyond].max()
    assert torch.allclose(power[:12, :12], torch.fft.fft2(x).abs()[0, 0][:12, :12], rtol=1e-4)


def test_less_local_contrast_leaves_broad_structure_and_what_is_even() -> None:
    mask = heads(1, 64, 0)[1]
    even = 0.6 * mask
    assert torch.allclose(filtered(even, mask, 1.0, 0.5), even, atol=1e-4)
    fine = (0.6 + 0.1 * (torch.arange(64) % 4 < 2).float().expand(1, 1, 64, 64)) * mask
    inside = mask > 0
    weaker = filtered(fine, mask, 1.0, 0.5)[inside]
    assert weaker.std() / fine[inside].std() == pytest.approx(0.5, abs=0.05)
    assert weaker.mean() == pytest.approx(fine[inside].mean().item(), rel=0.02)


def test_the_partners_shading_takes_the_place_of_a_random_field() -> None:
    (b, mask), (a, mask_a) = heads(3, 48, 0), heads(3, 48, 1)
    physics = replace(PLAIN, strengths=Strengths(0.0, 1.0, 0.3))
    made = degraded(b, mask, torch.arange(3), physics, (a, mask_a))
    expected = ((b + 1) * shading(b, mask, a, mask_a) - 1).clamp(-1, 1).where(mask > 0, -torch.ones_like(b))
    assert torch.allclose(made, expected, atol=1e-5)
    assert not torch.allclose(made, degraded(b, mask, torch.arange(3), physics), atol=0.05)


@pytest.mark.parametrize("kind", ["random", "partner"])
def test_slices_of_A_count_for_their_shading_only_if_asked(kind: str) -> None:
    """As does what shares crop and flip."""
    (stage,) = small_model(lf_shading=kind).stages
    data, other = batch(), batch()
    other.A.mul_(0.5)
    low = [stage.low_field(each)[0] for each in (data, other)]
    assert torch.equal(*low) == (kind == "random")
    assert stage.places == ("own" if kind == "random" else "pair")


def test_noise_has_its_level_and_every_image_one_of_its_range() -> None:
    b, mask = torch.zeros(40, 1, 48, 48), torch.ones(40, 1, 48, 48)
    physics = replace(PLAIN, strengths=Strengths(0.1, 0.6, 0.0))
    assert degraded(b, mask, torch.arange(40), physics).std() == pytest.approx(0.1, rel=0.03)
    levels = degraded(b, mask, torch.arange(40), replace(physics, spread=0.3)).std((1, 2, 3)) / 0.1
    assert 0.65 < levels.min() < 0.8 and 1.2 < levels.max() < 1.35


def test_an_image_is_degraded_alike_in_any_batch() -> None:
    b, mask = heads(4, 48, 0)
    physics, keys = Physics(Strengths(0.1, 0.6, 0.1), 0.6, 0.8, CURVE, 0.3), torch.arange(4)
    whole = degraded(b, mask, keys, physics)
    assert torch.equal(whole[1:3], degraded(b[1:3], mask[1:3], keys[1:3], physics))
    assert not torch.equal(whole, degraded(b, mask, keys + 4, physics))
    assert (whole[mask == 0] == -1).all() and whole.min() >= -1 and whole.max() <= 1
    assert degraded(b[:0], mask[:0], keys[:0], physics).shape == (0, 1, 48, 48)


@pytest.mark.parametrize(("resolution", "contrast"), [(0.5, 1.0), (0.74, 0.7)])
def test_known_physics_is_found_in_other_heads(resolution: float, contrast: float) -> None:
    strengths = Strengths(0.04, resolution, 0.0)
    (a, in_a), (b, in_b) = heads(24, 96, 1), heads(24, 96, 2)
    a = degraded(a, in_a, torch.arange(24), Physics(strengths, resolution, contrast, CURVE))
    low, high = (((x[:, 0].numpy() + 1) / 2, m[:, 0].numpy() > 0) for x, m in ((a, in_a), (b, in_b)))
    found = estimate_degradation(low, high, strengths, preprocess="resize", load_size=96)
    assert found is not None and found.contrast is not None
    assert found.resolution == pytest.approx(resolution, abs=0.06)
    assert (
        contrast - 0.05 <= found.contrast <= contrast + 0.2
    )  # the tone curve has some of it, for it narrows quantiles
    middle = np.linspace(0.25, 0.75, 9)
    curve = np.interp(middle, np.linspace(0, 1, len(found.tone)), found.tone)
    assert np.abs(curve - np.interp(middle, np.linspace(0, 1, 5), CURVE)).mean() < (0.06 if contrast == 1 else 0.12)


def test_heads_that_are_too_small_tell_the_tone_alone() -> None:
    (a, in_a), (b, in_b) = heads(2, 32, 1), heads(2, 32, 2)
    low, high = (((x[:, 0].numpy() + 1) / 2, m[:, 0].numpy() > 0) for x, m in ((a, in_a), (b, in_b)))
    found = estimate_degradation(low, high, NO_SCAN, preprocess="resize", load_size=32)
    assert found is not None and (found.contrast, found.resolution) == (None, None)
    nothing = (low[0], np.zeros_like(low[1]))
    assert estimate_degradation(nothing, high, NO_SCAN, preprocess="resize", load_size=32) is None


@pytest.mark.parametrize("text", ["", "0.5", "0,0.6,0.5,1", "0,1.2", "0,nan,1", "a,b"])
def test_a_tone_that_is_no_growing_curve_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--lf_tone is"):
        parse(["--dataroot=D", "--model=degrade", f"--lf_tone={text}"])


def test_the_words_for_a_tone() -> None:
    assert tone_curve("none") == (0.0, 1.0) and tone_curve("0,.5,1") == (0.0, 0.5, 1.0)
    for reads in (lambda o: o.tone, lambda o: o.sharpness, lambda o: o.strengths):
        with pytest.raises(ValueError, match="auto"):
            reads(DegradeOptions())


def numbers() -> dict[str, object]:
    return {
        "lf_noise": 0.05,
        "lf_band": 0.6,
        "lf_bias": 0.1,
        "lf_resolution": 0.6,
        "lf_contrast": 0.8,
        "lf_tone": "none",
    }


def small_model(**options: object) -> DegradeModel:
    torch.manual_seed(0)
    sizes = {name: value for name, value in SMALL.items() if name.startswith("hybrid")}
    return DegradeModel(DegradeOptions(**sizes, **numbers(), **options), (SIDE, SIDE))


def test_a_step_restores_b_and_looks_at_no_slice_of_A() -> None:
    found = []
    for of_A in (batch().A, torch.rand(4, 1, SIDE, SIDE)):
        model = small_model()
        (stage,) = model.stages
        stage.begin(model)
        found.append(stage.step(replace(batch(), A=of_A), context()))
    assert found[0].keys() == {"l1", "1-ssim", "seg"}
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert stage.visuals(batch())["degraded_B"].shape == (4, 1, SIDE, SIDE)


def test_estimates_are_told_kept_and_taken_up_again(phantom: Path, tmp_path: Path) -> None:
    argv = train_arguments(phantom, tmp_path, "degrade", "--name=run", "--n_epochs_decay=0")
    done = run("train.py", *argv)
    assert done.status == 0, done.err
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["low_field"]
    assert set(kept) == set(numbers())
    tone = [float(level) for level in kept["lf_tone"].split(",")]
    assert len(tone) == 17 and tone == sorted(tone)
    assert f"--lf_tone auto is {kept['lf_tone']}" in done.out
    assert "--lf_resolution auto is 0.6" in done.out and "too small or too few" in done.out  # heads of 32 px
    assert json.loads((tmp_path / "run" / "options.json").read_text())["lf_tone"] == "auto"
    again = run("train.py", *argv, "--continue_train", "--n_epochs=2")
    assert again.status == 0, again.err
    assert f"--lf_tone auto is {kept['lf_tone']}, as the run began" in again.out
