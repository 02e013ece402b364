"""`test.py` as a whole on small made-up heads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from made_up_heads import N_SLICES, SHAPE, write_heads
from test_evaluation import TwoFeatures

import test as test_program
from data.folder.slices import read_image, read_pixels, write_image
from evaluation.paired import MEASURES
from evaluation.record import null_paths
from models import MODELS
from util.checkpoint import checkpoint_path, read_checkpoint, write_checkpoint
from util.errors import UserError
from util.runs import OPTIONS_NAME
from util.schema import build

TINY = {
    "netG": "unet_128", "ngf": 2, "ndf": 2, "netD": "pixel", "load_size": 128, "sgp_width": 16, "sgp_depth": 1,
    "sgp_heads": 1, "sgp_embedding": 8, "sgp_input": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("data"))


def make_run(folder: Path, model: str, *, seed: int = 0, load_size: int = 128, **changes: object) -> Path:
    """A run folder as `train.py` leaves it, with untrained weights; `changes` are other saved options."""
    torch.manual_seed(seed)
    cls = MODELS[model]
    options = {
        **TINY,
        "model": model,
        "seed": seed,
        "preprocess": "resize",
        "direction": "AtoB",
        "load_size": load_size,
        "image_size": [load_size, load_size],
        **changes,
    }
    folder.mkdir(parents=True)
    chosen = build(cls.Options, options)
    (folder / OPTIONS_NAME).write_text(json.dumps({**asdict(chosen), **options}))
    network = cls(chosen, tuple(options["image_size"]))
    write_checkpoint(checkpoint_path(folder, "latest"), {"model": network.state_dict()})
    return folder


def run_test(dataroot: Path, runs: Path, name: str, *more: str) -> tuple[Path, dict]:
    results = runs / "results"
    arguments = ["--dataroot", str(dataroot), "--name", name, "--checkpoints_dir", str(runs), "--gpu_ids", "-1"]
    test_program.main([*arguments, "--results_dir", str(results), *more])
    folder = results / name / "test_latest"
    return folder, json.loads((folder / "metrics.json").read_text())


def assert_explained(metrics: dict) -> None:
    """Every null is covered by a reason: its name, its path, or a branch above it."""
    reasons = metrics.pop("why_null")
    metrics.pop("definitions")
    for path in null_paths(metrics):
        branches = {".".join(path[:n]) for n in range(1, len(path) + 1)} | set(path)
        assert branches & set(reasons), path


def test_whole_test_of_a_generator(dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    make_run(tmp_path / "enc", "sgp", seed=7)
    folder, metrics = run_test(dataroot, tmp_path, "cyc", "--eval_encoder", str(tmp_path / "enc"))
    assert metrics["n_slices"] == 3 * N_SLICES and metrics["n_subjects"] == 3
    assert set(metrics["paired"]) == {"fake_B", "identity", "histogram", "classical"}
    assert set(metrics["paired"]["fake_B"]) == set(MEASURES) <= set(metrics["definitions"])
    assert set(metrics["unpaired"]) == {"fake_B", "real_B", "identity"}
    assert metrics["unpaired"]["fake_B"]["fd_slice"] is None
    assert metrics["sgp"] is None and metrics["lsc"] is None
    assert metrics["verdict"].startswith("fake_B does not beat every baseline in psnr_fit, psnr and ssim: it loses to ")
    assert {"verdict", "by_person", "ci95"} <= set(metrics["definitions"])
    assert set(metrics["unpaired"]["real_B"]) <= set(metrics["definitions"])
    apart = metrics["by_person"]
    assert apart["n_people"] == 3 and set(apart["people"]) == {"sub-1", "sub-2", "sub-3"}
    assert set(apart["people"]["sub-1"]["psnr_fit"]) == {*metrics["paired"], "fake_B - classical"}
    assert_explained(metrics)

    names = sorted(path.name for path in (folder / "images").iterdir())
    assert len(names) == 3 * N_SLICES * 4 and "sub-1_002_error.png" in names
    image = nibabel.load(folder / "volumes" / "sub-3_synth.nii.gz")
    assert image.shape == (SHAPE[1], SHAPE[0], N_SLICES + 4) and image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, np.diag([-1.0, 1.0, 5.0, 1.0]))
    stored = read_image(folder / "images" / "sub-3_004_fake_B.png")
    np.testing.assert_allclose(np.flipud(image.get_fdata()[::-1, :, 4].T), stored, atol=1e-4)
    assert read_pixels(folder / "images" / "sub-3_004_real_A.png").dtype == np.uint16
    with (folder / "metrics.csv").open() as file:
        assert len(file.readlines()) == 1 + 3 * 4
    printed = capsys.readouterr().out
    assert str(folder / "index.html") in printed.replace("\n", "") and "psnr" in printed
    page = (folder / "index.html").read_text()
    assert "sub-1_002_error.png" in page
    assert metrics["verdict"] in printed.splitlines()
    assert page.index(metrics["verdict"]) < page.index("metrics.json")


def test_same_numbers_again_with_another_batch_size(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    _, first = run_test(dataroot, tmp_path, "cyc", "--batch_size", "1", "--no_baselines")
    _, again = run_test(dataroot, tmp_path, "cyc", "--batch_size", "1", "--no_baselines")
    _, other = run_test(dataroot, tmp_path, "cyc", "--batch_size", "7", "--no_baselines")
    assert {**first, "provenance": 0} == {**again, "provenance": 0}
    for measure in ("psnr", "ssim", "mae"):
        expected = first["paired"]["fake_B"][measure]["mean"]
        assert other["paired"]["fake_B"][measure]["mean"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("model", "has", "lacks"), [("sgp", "sgp", "lsc"), ("lsc", "lsc", "sgp")])
def test_models_without_generator(dataroot: Path, tmp_path: Path, model: str, has: str, lacks: str) -> None:
    make_run(tmp_path / model, model, load_size=32)
    folder, metrics = run_test(dataroot, tmp_path, model)
    definitions = metrics["definitions"]
    assert metrics["paired"] is None and metrics["unpaired"] is None and metrics[lacks] is None
    assert metrics[has] is not None
    assert_explained(metrics)
    assert not (folder / "images").exists() and (folder / "index.html").is_file()
    if model == "lsc":
        scores = metrics["lsc"]["psnr"]
        assert set(scores) - {"restored_train"} <= set(definitions)
        assert scores["solver"] > scores["corrupted"]
    if model == "sgp":
        rows = metrics["sgp"]["level_error_mm"]
        assert set(rows) == {"sgp", "same_p", "same_index", "random", "thumbnail", "aligned"}
        assert rows["same_p"]["median"] == 0  # these heads are all covered alike


def test_real_scans_without_truth_manifest_or_b(dataroot: Path, tmp_path: Path) -> None:
    root = tmp_path / "scans"
    (root / "testA").mkdir(parents=True)
    for path in (dataroot / "testA").glob("sub-1_*.png"):
        (root / "testA" / path.name).write_bytes(path.read_bytes())
    make_run(tmp_path / "cyc", "cycle_gan")
    folder, metrics = run_test(root, tmp_path, "cyc", "--num_test", "2")
    assert metrics["n_slices"] == 2
    assert metrics["paired"] is None and metrics["unpaired"] is None and metrics["n_volumes"] is None
    assert_explained(metrics)
    names = {path.name for path in (folder / "images").iterdir()}
    assert names == {f"sub-1_00{i}_{kind}.png" for i in (2, 3) for kind in ("real_A", "fake_B")}


def only(dataroot: Path, root: Path, keep: str) -> Path:
    """A copy of a data folder without manifest that has only the slices that match `keep`, of every kind and split."""
    for folder in (path for path in dataroot.iterdir() if path.is_dir()):
        (root / folder.name).mkdir(parents=True)
        first = min(path.name[:5] for path in folder.iterdir())
        for path in folder.glob(f"{first}{keep}"):
            (root / folder.name / path.name).write_bytes(path.read_bytes())
    return root


@pytest.mark.parametrize("model", ["cycle_gan", "sgp", "lsc"])
@pytest.mark.parametrize("keep", ["_002.png", "_*.png"], ids=["one slice", "one subject"])
def test_the_smallest_data_give_a_whole_result(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, keep: str
) -> None:
    monkeypatch.setattr("programs.testing.open_inception", lambda given, device: TwoFeatures())
    root = only(dataroot, tmp_path / "data", keep)
    make_run(tmp_path / "run", model)
    make_run(tmp_path / "enc", "sgp", seed=7)
    more = ["--eval_encoder", str(tmp_path / "enc")] if model == "cycle_gan" else []
    folder, metrics = run_test(root, tmp_path, "run", *more)
    assert metrics["n_subjects"] == 1 and (folder / "index.html").is_file()
    assert_explained(metrics)


@pytest.mark.parametrize("model", ["cycle_gan", "degrade", "supervised", "unsb", "lsc"])
def test_slices_without_a_head_give_a_whole_result(dataroot: Path, tmp_path: Path, model: str) -> None:
    root = only(dataroot, tmp_path / "data", "_*.png")
    for path in root.rglob("*.png"):
        write_image(path, np.zeros(SHAPE, dtype=np.float32), 8)
    make_run(tmp_path / "run", model)
    _, metrics = run_test(root, tmp_path, "run")
    assert metrics["lsc"] is None
    assert_explained(metrics)


def test_an_empty_domain_is_one_sentence_before_any_work(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    for name in ("testA", "testB", "trainB"):
        root = only(dataroot, tmp_path / name, "_*.png")
        for path in (root / name).iterdir():
            path.unlink()
        with pytest.raises(UserError, match=f"{name}: no slices, need"):
            run_test(root, tmp_path, "cyc")
    assert not (tmp_path / "results").exists()


def test_baselines_can_be_left_out(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    _, metrics = run_test(dataroot, tmp_path, "cyc", "--no_baselines")
    assert metrics["paired"]["classical"]["psnr"] is None
    assert metrics["verdict"] is None
    assert metrics["why_null"]["verdict"] == "no baseline to compare with: --no_baselines was given"
    assert metrics["why_null"]["classical"] == "--no_baselines was given"
    assert_explained(metrics)


def test_mistakes_are_one_sentence_and_leave_no_results(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    make_run(tmp_path / "same_seed", "sgp")
    guided = checkpoint_path(make_run(tmp_path / "guided", "pta_hybrid", seed=1), "latest")
    encoder = read_checkpoint(checkpoint_path(tmp_path / "same_seed", "latest"))["model"]  # as if by --sgp_weights
    write_checkpoint(guided, {"model": read_checkpoint(guided)["model"] | encoder})
    cases = [
        (dataroot, "never", [], "never"),
        (tmp_path / "absent", "cyc", [], "no such folder"),
        (dataroot, "cyc", ["--epoch", "5"], "no such checkpoint"),
        (dataroot, "cyc", ["--phase", "val"], "valA"),
        (dataroot, "cyc", ["--eval_encoder", str(tmp_path / "same_seed")], "need another"),
        (dataroot, "cyc", ["--eval_encoder", str(tmp_path / "cyc")], "need --model sgp"),
        (dataroot, "guided", ["--eval_encoder", str(tmp_path / "same_seed")], "the same encoder"),
        (dataroot, "cyc", ["--inception_weights", "absent.pth"], "--inception_weights absent.pth: no such file"),
        (dataroot, "../cyc", [], "plain folder name"),
        (dataroot, "cyc", ["--epoch", "../x"], "--epoch"),
        (dataroot, "cyc", ["--batch_size", "0"], "--batch_size"),
    ]
    for root, name, more, sentence in cases:
        with pytest.raises(UserError, match=sentence.replace(".", r"\.")):
            run_test(root, tmp_path, name, *more)
    assert not (tmp_path / "results").exists()
    for unknown in (["--netG", "hybrid"], ["--batch", "3"]):
        with pytest.raises(SystemExit) as stop:
            run_test(dataroot, tmp_path, "cyc", *unknown)
        assert stop.value.code == 2


def test_foreign_files_are_never_removed(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    folder = tmp_path / "results" / "cyc" / "test_latest"
    (folder / "images").mkdir(parents=True)
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        run_test(dataroot, tmp_path, "cyc")
    assert (folder / "images").is_dir()
