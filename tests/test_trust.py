"""`test.py --trust`: the signals, the weights, how well a map finds the true error, and what is written."""

from __future__ import annotations

import csv
import json
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from made_up_heads import N_SLICES, SHAPE, write_domain, write_heads
from PIL import Image
from test_testing import assert_explained, make_run, run_test
from torch import Tensor

from data.folder.manifest import Manifest, write_manifest
from data.folder.slices import write_image
from evaluation.folders import open_test_data
from evaluation.predict import Device, NetworkGrid
from evaluation.subjects import SubjectSlices, read_subject
from evaluation.trust.calibration import CONSTANT, FILE_NAME, SHIPPED, SQUARE, expected, fit_row, read_calibration
from evaluation.trust.patches import Patches, patch_means, patch_side, patches_of
from evaluation.trust.scores import auc, rank_correlation
from evaluation.trust.signals import NOISY_PASSES, PASSES, InputNoise, find_signals, signals_of, smooth
from scripts import calibrate_trust
from util.checkpoint import checkpoint_path, read_checkpoint, write_checkpoint
from util.errors import UserError

NOISE = InputNoise(0.1, 1.0)
HEADS = ("sub-1", "sub-2", "sub-3")


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up heads with truth, two validation subjects among them."""
    root = write_heads(tmp_path_factory.mktemp("data"))
    entries = write_domain(root, "test", "A", list(HEADS), truth=True)
    entries += write_domain(root, "val", "A", ["sub-5", "sub-6"], truth=True)
    write_manifest(root, Manifest("simulated", entries))
    return root


@pytest.fixture
def volume(dataroot: Path) -> SubjectSlices:
    data = open_test_data(dataroot, "test", table_in=dataroot)
    return read_subject(data.source, data.subjects["sub-2"], with_truth=True)


class Copying:
    """A stand-in for a model: fake_B is the input, G_BA darkens one half."""

    sgp = None

    def synthesise(self, x: Tensor) -> Tensor:
        return x.clone()


class CopyingBothWays(Copying):
    def synthesise_back(self, x: Tensor) -> Tensor:
        changed = x.clone()
        changed[..., 18:26, 16:24] = 1
        return changed


class Fixed(Copying):
    """Sees no change of its input but mirror and shift: the same picture whatever comes in."""

    def synthesise(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(-1, 1, x.shape[-1])
        return ramp.expand_as(x).clone()


def signals(model: object, volume: SubjectSlices, batch_size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    grid, on = NetworkGrid("none", 0), Device(torch.device("cpu"), batch_size)
    return find_signals(model, volume, volume.visible, grid, on, NOISE, seed)  # type: ignore[arg-type]


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    values, worst = rng.integers(0, 9, 80).astype(float), rng.random(80) < 0.2  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a, b in product(values[worst], values[~worst])]
    assert auc(values, worst) == pytest.approx(np.mean(pairs))
    assert auc(worst.astype(float), worst) == 1 and auc(-worst.astype(float), worst) == 0
    assert auc(np.ones(80), worst) == 0.5
    assert auc(values, np.zeros(80, bool)) is None and auc(values, np.ones(80, bool)) is None


def test_rank_correlation_forgets_the_scale() -> None:
    x = np.random.default_rng(0).random(50)
    assert rank_correlation(x, x**5 + 3) == pytest.approx(1) and rank_correlation(x, -x) == pytest.approx(-1)
    assert rank_correlation(x, np.ones(50)) is None and rank_correlation(x[:1], x[:1]) is None


def test_smoothing_stays_within_the_mask_and_keeps_a_constant() -> None:
    mask = np.zeros((1, 20, 20), bool)
    mask[:, 5:15, 5:15] = True
    found = smooth(np.where(mask, 0.7, 9.0).astype(np.float32), mask, 2.0)
    np.testing.assert_allclose(found[mask], 0.7, atol=1e-6)
    assert not found[~mask].any()


def test_patches_are_means_over_the_head() -> None:
    side = patch_side((1, 128, 128))
    assert side == 4 and patch_side((3, 20, 30)) == 2
    images = np.arange(128 * 128, dtype=np.float32).reshape(1, 128, 128)
    mask = np.zeros((1, 128, 128), bool)
    mask[0, 4:8, 8:14] = True  # a whole patch, and half of the next one
    expected_means = [images[0, 4:8, 8:12].mean(), images[0, 4:8, 12:14].mean()]
    np.testing.assert_allclose(patch_means(images, mask), expected_means)


def test_the_error_of_patches_forgives_brightness_and_contrast(volume: SubjectSlices) -> None:
    assert volume.truth is not None
    found = patches_of(volume, 0.5 * volume.truth + 0.1, {"brightness": volume.truth})
    assert found is not None and found.squared_error.max() < 1e-10
    assert len(found.features["brightness"]) == len(found.squared_error)
    blind = SubjectSlices(**{**vars(volume), "truth": None, "truth_mask": None})
    assert patches_of(blind, volume.truth, {}) is None


def test_disagreement_is_that_of_the_passes(volume: SubjectSlices) -> None:
    """A copy agrees under mirror and shift; of noise it keeps the standard deviation, halved by the range [0, 1]."""
    found = signals(Copying(), volume)
    assert set(found) == {"disagreement"}
    values = found["disagreement"][volume.mask & (volume.image > 0.2) & (volume.image < 0.8)]
    n = PASSES + 1
    assert np.sqrt(np.mean(values**2)) == pytest.approx(NOISE.deviation / 2 * np.sqrt(NOISY_PASSES / (n - 1)), rel=0.1)
    assert not found["disagreement"][~volume.mask].any()
    fixed = signals(Fixed(), volume)["disagreement"]
    assert fixed[volume.mask].std() > 0.01


def test_signals_follow_from_the_seed_alone(volume: SubjectSlices) -> None:
    first = signals(Copying(), volume)["disagreement"]
    np.testing.assert_array_equal(first, signals(Copying(), volume, batch_size=1)["disagreement"])
    assert np.abs(first - signals(Copying(), volume, seed=1)["disagreement"]).max() > 1e-3
    part = SubjectSlices(**{**vars(volume), **{name: getattr(volume, name)[2:] for name in
        ("stems", "index", "p", "level_mm", "image", "mask", "truth", "truth_mask")}})  # fmt: skip
    np.testing.assert_array_equal(first[2:], signals(Copying(), part)["disagreement"])


def test_the_cycle_residual_is_where_the_way_back_differs(volume: SubjectSlices) -> None:
    assert signals_of(CopyingBothWays()) == ("disagreement", "cycle")  # type: ignore[arg-type]
    cycle = signals(CopyingBothWays(), volume)["cycle"]
    inside = np.zeros_like(volume.mask)
    inside[:, 18:26, 16:24] = True
    far = volume.mask & ~np.pad(inside, ((0, 0), (4, 4), (4, 4)))[:, 4:-4, 4:-4]
    assert cycle[inside].mean() > 4 * cycle[far].mean()


def patches(seed: int, n: int = 4000) -> Patches:
    """Patches whose mean squared error is exactly of the fitted form, times a gamma-distributed factor."""
    rng = np.random.default_rng(seed)
    features = {name: rng.random(n) for name in ("disagreement", "cycle", "sgp", "brightness", "edges", "border")}
    logs = -4 + 1.5 * np.log(features["disagreement"] + 0.01) + 2 * features["brightness"] ** 2 - features["sgp"]
    return Patches(features, np.exp(logs) * rng.gamma(2, 0.5, n))


def test_a_fit_finds_the_weights_and_no_signal_lowers_the_error() -> None:
    fit = fit_row("trust", ("disagreement", "cycle", "sgp"), [patches(0), patches(1)])
    assert fit.weights["disagreement"] == pytest.approx(1.5, abs=0.1)
    assert fit.weights["brightness"] + fit.weights[SQUARE] == pytest.approx(2, abs=0.3)
    assert fit.weights["sgp"] == 0 and abs(fit.weights["cycle"]) < 0.1
    new = patches(2)
    assert expected(new.features, fit).mean() == pytest.approx(new.squared_error.mean(), rel=0.1)
    against = [Patches({**new.features, "disagreement": 1 / (new.features["disagreement"] + 0.1)}, new.squared_error)]
    constant = fit_row("signals", ("disagreement",), against)
    assert constant.weights["disagreement"] == 0
    assert expected(new.features, constant)[0] == pytest.approx(new.squared_error.mean(), rel=1e-3)
    for few in ([patches(0, 20)], []):
        with pytest.raises(UserError, match="patches"):
            fit_row("signals", ("disagreement",), few)


def test_the_shipped_weights_serve_every_model(tmp_path: Path) -> None:
    shipped = read_calibration(SHIPPED)
    for signals in (("disagreement",), ("disagreement", "cycle"), ("disagreement", "cycle", "sgp")):
        for row in ("trust", "signals", "appearance"):
            fit = shipped.fit_of(row, signals)
            assert fit is not None and CONSTANT in fit.weights
    content = json.loads(SHIPPED.read_text())
    del content["fits"][0]["weights"]["disagreement"]
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    with pytest.raises(UserError, match="do not fit its features"):
        read_calibration(tmp_path / FILE_NAME)


@pytest.mark.parametrize(
    ("model", "has"),
    [
        ("cut", ["disagreement"]),
        ("cycle_gan", ["disagreement", "cycle"]),
        ("pta_unet", ["disagreement", "cycle", "sgp"]),
    ],
)
def test_a_test_with_maps(dataroot: Path, tmp_path: Path, model: str, has: list[str]) -> None:
    make_run(tmp_path / "run", model, lsc_blocks=16)
    folder, metrics = run_test(dataroot, tmp_path, "run", "--no_baselines", "--trust")
    trust = metrics["trust"]
    assert trust["signals"] == has and not trust["calibration"]["of_this_checkpoint"]
    assert {"trust", "trust.auc", "slice_trust"} <= set(metrics["definitions"])
    scored = {row for row, value in trust["auc"].items() if value["mean"] is not None}
    assert scored == {"trust", "signals", "appearance", "brightness", "edges", "border", *has}
    assert set(trust["subjects"]) == set(HEADS) and set(trust["subjects"]["sub-1"]) == scored
    assert trust["auc"]["trust"]["mean"] == pytest.approx(np.mean([s["trust"] for s in trust["subjects"].values()]))
    reasons = dict(metrics["why_null"])
    assert ("cycle" in has) == (reasons.get("trust.auc.cycle", reasons.get("cycle")) is None)
    assert_explained(metrics)
    image = nibabel.load(folder / "volumes" / "sub-3_trust.nii.gz")
    assert image.shape == (SHAPE[1], SHAPE[0], N_SLICES + 4) and b"do not trust" in image.header["descrip"].item()
    values = image.get_fdata()
    assert 0 < values.max() <= 1 and not values[..., 0].any()
    assert "shipped weights" in json.loads((folder / "volumes" / "sub-3_trust.json").read_text())["weights"]
    with (folder / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * N_SLICES and all(0 < float(row["slice_trust"]) < 80 for row in rows)
    assert Image.open(folder / "images" / "sub-1_002_trust.png").mode == "RGB"
    assert "Least trusted slices" in (folder / "index.html").read_text()


def test_without_it_nothing_is_told_of_trust(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run", "cut")
    folder, metrics = run_test(dataroot, tmp_path, "run", "--no_baselines")
    assert "trust" not in json.dumps(metrics).replace(str(tmp_path), "")
    assert not list(folder.rglob("*trust*"))
    assert "slice_trust" not in (folder / "slices.csv").read_text()
    assert "Where not to trust it" not in (folder / "index.html").read_text()


def test_the_map_needs_no_truth_and_its_score_does(dataroot: Path, tmp_path: Path) -> None:
    root = tmp_path / "scans"
    (root / "testA").mkdir(parents=True)
    for path in (dataroot / "testA").glob("sub-1_*.png"):
        (root / "testA" / path.name).write_bytes(path.read_bytes())
    make_run(tmp_path / "run", "cut")
    folder, metrics = run_test(root, tmp_path, "run", "--trust")
    assert metrics["trust"]["auc"]["trust"] == {"mean": None, "ci95": None}
    assert "no truth" in (folder / "index.html").read_text()
    assert_explained(metrics)
    assert len(list((folder / "images").glob("*_trust.png"))) == N_SLICES


def test_slices_without_a_head_give_a_whole_result(dataroot: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for path in dataroot.glob("testA*/sub-1_*.png"):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        write_image(root / path.parent.name / path.name, np.zeros(SHAPE, np.float32), 8)
    make_run(tmp_path / "run", "cycle_gan")
    folder, metrics = run_test(root, tmp_path, "run", "--no_baselines", "--trust")
    assert metrics["trust"]["auc"]["trust"]["mean"] is None and metrics["trust"]["auc"]["edges"]["mean"] is None
    assert_explained(metrics)
    with (folder / "slices.csv").open() as file:
        assert {row["slice_trust"] for row in csv.DictReader(file)} == {""}


def test_weights_of_a_run_are_used_for_its_checkpoint_alone(
    dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", "cycle_gan")
    data = ["--dataroot", str(dataroot), "--name", "run", "--checkpoints_dir", str(tmp_path), "--gpu_ids", "-1"]
    calibrate_trust.main(data)
    fitted = read_calibration(run / FILE_NAME)
    assert fitted.people == ["sub-5", "sub-6"] and fitted.n_subjects == 2 and fitted.run == "run"
    folder, metrics = run_test(dataroot, tmp_path, "run", "--no_baselines", "--trust")
    assert metrics["trust"]["calibration"]["of_this_checkpoint"]
    assert "valA" in metrics["trust"]["calibration"]["source"]
    _, other = run_test(dataroot, tmp_path, "run", "--no_baselines", "--trust", "--average_mirrored", "--overwrite")
    assert not other["trust"]["calibration"]["of_this_checkpoint"]
    told = capsys.readouterr().err
    assert "not of syntheses with --average_mirrored, so the shipped weights are taken" in told
    assert "scripts.calibrate_trust --average_mirrored makes it anew" in told
    run_test(dataroot, tmp_path, "run", "--no_baselines", "--trust", "--phase", "val")
    same = json.loads((folder.parent / "val_latest" / "metrics.json").read_text())
    assert same["trust"]["auc"]["trust"]["mean"] is None and same["trust"]["auc"]["edges"]["mean"] is not None
    assert "people of this test: sub-5, sub-6" in str(same["why_null"])
    path = checkpoint_path(run, "latest")
    weights = read_checkpoint(path)["model"]
    write_checkpoint(path, {"model": {name: value * 1.01 for name, value in weights.items()}})
    _, metrics = run_test(dataroot, tmp_path, "run", "--no_baselines", "--trust")
    assert not metrics["trust"]["calibration"]["of_this_checkpoint"]
    assert "not of the checkpoint tested" in capsys.readouterr().err


def test_calibration_needs_a_truth(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run", "cut")
    (tmp_path / "data" / "valA").mkdir(parents=True)
    for path in (dataroot / "valA").iterdir():
        (tmp_path / "data" / "valA" / path.name).write_bytes(path.read_bytes())
    arguments = ["--dataroot", str(tmp_path / "data"), "--name", "run", "--checkpoints_dir", str(tmp_path)]
    with pytest.raises(UserError, match="valA_truth"):
        calibrate_trust.main([*arguments, "--gpu_ids", "-1"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--protocol", "pta"], "--protocol pta: scores of a test"),
        (["--phase", "test"], "--phase test: .* --phase val"),
        (["--trust"], "--trust does nothing here"),
    ],
)
def test_calibration_refuses_what_cannot_matter(dataroot: Path, tmp_path: Path, words: list[str], says: str) -> None:
    make_run(tmp_path / "run", "cut")
    with pytest.raises(UserError, match=says):
        calibrate_trust.main(["--dataroot", str(dataroot), "--name", "run", "--checkpoints_dir", str(tmp_path), *words])


def test_a_shipped_model_is_not_calibrated() -> None:
    with pytest.raises(UserError, match="--pretrained ulf_to_3t: weights are fitted to a run"):
        calibrate_trust.main(["--dataroot", "D", "--pretrained", "ulf_to_3t"])


def test_a_run_that_synthesises_nothing_has_no_map(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run", "sgp", load_size=32)
    with pytest.raises(UserError, match="--name run: a run of a pretext task"):
        calibrate_trust.main(["--dataroot", str(dataroot), "--name", "run", "--checkpoints_dir", str(tmp_path)])
    with pytest.raises(UserError, match="--trust does nothing"):
        run_test(dataroot, tmp_path, "run", "--trust")
