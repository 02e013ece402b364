"""Models that come with the repository: `test.py --pretrained NAME`, and how a run becomes one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch
from made_up_heads import N_SLICES, write_heads
from running import run
from test_testing import make_run
from test_volume_mode import KNOWN, scan

import util.runs
from data.folder.slices import read_image
from models.pretrained import MOST_BYTES, SHA256, load_pretrained
from models.trained import load_trained
from scripts import export_pretrained
from scripts.export_pretrained import CARD_NAME
from util.errors import UserError
from util.runs import OPTIONS_NAME, PRETRAINED, RUN_INFO_NAME, WEIGHTS_NAME

SHIPPED = sorted(place.parent.name for place in PRETRAINED.glob(f"*/{WEIGHTS_NAME}"))


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("data"))


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models with `small`, exported from an untrained run that lies beside it."""
    run_dir = make_run(tmp_path / "runs" / "mine", "supervised", netG="unet_residual", load_size=64)
    (run_dir / RUN_INFO_NAME).write_text(json.dumps({"slices": {"A": KNOWN}, "command": "secret"}))
    folder = tmp_path / "pretrained"
    assert export_pretrained.main(["--run", str(run_dir), "--name", "small", "--out", str(folder)]) == 0
    monkeypatch.setattr("options.test_options.PRETRAINED", folder)
    return folder


def test_there_is_a_model() -> None:
    assert SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_belong_together_and_are_small(name: str) -> None:
    folder = PRETRAINED / name
    content = (folder / WEIGHTS_NAME).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert len(content) <= MOST_BYTES
    assert {tensor.dtype for tensor in safetensors.torch.load(content).values()} == {torch.float16}
    assert json.loads((folder / RUN_INFO_NAME).read_text())[SHA256] == sha256
    card = (folder / CARD_NAME).read_text()
    assert re.findall("SHA-256 `([0-9a-f]+)`", card) == [sha256]
    assert "ot for diagnosis" in card
    assert json.loads((folder / OPTIONS_NAME).read_text())["load_size"] >= 192


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_synthesises(name: str, dataroot: Path, tmp_path: Path) -> None:
    done = run("test.py", "--dataroot", dataroot, "--pretrained", name, "--results_dir", tmp_path, "--num_test", 2,
               "--gpu_ids", -1, "--no_baselines", "--checkpoints_dir", tmp_path)  # fmt: skip
    assert done.status == 0, done.err
    for path in sorted((tmp_path / name / "test_latest" / "images").glob("*_fake_B.png")):
        image = read_image(path)
        assert np.isfinite(image).all() and np.ptp(image) > 0.1


def test_exported_model_makes_what_the_run_makes(shipped: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 1, 64, 64) * 2 - 1
    made = load_pretrained(shipped / "small").synthesise(images)
    torch.testing.assert_close(made, load_trained(tmp_path / "runs" / "mine").synthesise(images), atol=5e-3, rtol=0)
    kept = "".join(path.read_text() for path in shipped.glob("small/*.json"))
    assert "secret" not in kept and str(tmp_path) not in kept


def test_it_takes_the_place_of_a_run(shipped: Path, dataroot: Path, tmp_path: Path) -> None:
    done = run("test.py", "--dataroot", dataroot, "--pretrained", "small", "--results_dir", tmp_path / "results",
               "--gpu_ids", -1, "--checkpoints_dir", tmp_path / "runs", "--trust")  # fmt: skip
    assert done.status == 0, done.err
    results = tmp_path / "results" / "small" / "test_latest"
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["n_slices"] == 3 * N_SLICES and metrics["sgp"] is None and metrics["lsc"] is None
    content = (shipped / "small" / WEIGHTS_NAME).read_bytes()
    assert metrics["provenance"]["checkpoint_sha256"] == hashlib.sha256(content).hexdigest()
    assert "pretrained small" in (results / "index.html").read_text()


def test_a_scan_comes_back_where_it_lay(shipped: Path, tmp_path: Path) -> None:
    source = nibabel.load(scan(tmp_path / "p7.nii.gz", flipped=True))
    done = run("test.py", "--dataset_mode", "volume", "--dataroot", tmp_path / "p7.nii.gz", "--pretrained", "small",
               "--results_dir", tmp_path / "results", "--gpu_ids", -1, "--cpu_threads", 1)  # fmt: skip
    assert done.status == 0, done.err
    made = nibabel.load(tmp_path / "results/small/test_latest/volumes/p7_synth.nii.gz")
    assert made.shape == source.shape
    np.testing.assert_allclose(made.affine, source.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--pretrained", "smal"), "--pretrained smal: no model of that name is shipped; there is small"),
        (("--pretrained", "../small"), "--pretrained is '../small', it must be a plain folder name"),
        (("--pretrained", "small", "--name", "mine"), "--name mine does nothing beside --pretrained"),
        (("--pretrained", "small", "--epoch", "5"), "--epoch 5 does nothing beside --pretrained"),
    ],
)
def test_mistakes_are_told(shipped: Path, dataroot: Path, tmp_path: Path, more: tuple[str, ...], told: str) -> None:
    done = run("test.py", "--dataroot", dataroot, "--results_dir", tmp_path / "results", "--gpu_ids", -1, *more)
    assert done.status == 2 and told in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _exchanged(path: Path) -> None:
    path.write_bytes(safetensors.torch.save({"layer.weight": torch.zeros(3)}))
    about = path.with_name(RUN_INFO_NAME)
    found = {**json.loads(about.read_text()), SHA256: hashlib.sha256(path.read_bytes()).hexdigest()}
    about.write_text(json.dumps(found))


def _no_weights(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)
    about = path.with_name(RUN_INFO_NAME)
    about.write_text(json.dumps({SHA256: hashlib.sha256(path.read_bytes()).hexdigest()}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_cut, "damaged or exchanged"),
        (_exchanged, "not weights of the generator"),
        (_no_weights, "cannot be read as weights"),
        (lambda path: path.with_name(OPTIONS_NAME).write_text("{}"), "not the options of a run"),
        (lambda path: path.with_name(RUN_INFO_NAME).unlink(), "run.json: cannot be read"),
        (lambda path: path.write_bytes(bytes(MOST_BYTES + 1)), "at most 8000000 are allowed"),
    ],
)
def test_damaged_folders_are_refused(shipped: Path, damage: object, told: str) -> None:
    damage(shipped / "small" / WEIGHTS_NAME)  # type: ignore[operator]
    with pytest.raises(UserError, match=told):
        load_pretrained(shipped / "small")


def test_exporting_again_keeps_the_card(shipped: Path, tmp_path: Path) -> None:
    card = shipped / "small" / CARD_NAME
    card.write_text(f"Mine. Weights: SHA-256 `{'0' * 64}`.\n")
    arguments = ["--run", str(tmp_path / "runs" / "mine"), "--name", "small", "--out", str(shipped)]
    assert export_pretrained.main(arguments) == 0
    sha256 = hashlib.sha256((shipped / "small" / WEIGHTS_NAME).read_bytes()).hexdigest()
    assert card.read_text() == f"Mine. Weights: SHA-256 `{sha256}`.\n"


def test_what_cannot_be_shipped_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "sgp", "sgp")
    with pytest.raises(UserError, match="synthesises nothing"):
        export_pretrained.main(["--run", str(tmp_path / "sgp"), "--name", "x", "--out", str(tmp_path / "out")])
    make_run(tmp_path / "large", "supervised", netG="resnet_9blocks", ngf=64)
    with pytest.raises(UserError, match="at most 8000000 are shipped"):
        export_pretrained.main(["--run", str(tmp_path / "large"), "--name", "x", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_no_model_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is none"):
        util.runs.require_pretrained(tmp_path / "x")
    shutil.rmtree(tmp_path)
