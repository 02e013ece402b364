"""Names with `..`, slashes and roots, wherever a file may name something: nothing is written but where it belongs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import train_arguments, write_phantom
from made_up_heads import write_heads

import test as test_program
import train
from data.folder.manifest import MANIFEST_NAME, read_manifest
from data.folder.slices import clean_subject, slice_name
from evaluation.provenance import Provenance
from evaluation.subjects import SubjectSlices
from evaluation.volumes import write_volume
from util.errors import UserError

WICKED = ["../../x", "/tmp/x", "..", "...", "a/../../x", "..\\..\\x", "C:\\x", "x\x00y", "~/x", "-rf", ".hidden"]


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", WICKED)
def test_a_subject_becomes_a_plain_file_name(name: str) -> None:
    for cleaned in (clean_subject(name), slice_name(name, 3)):
        assert Path(cleaned).name == cleaned and cleaned not in ("", ".", "..") and not cleaned.startswith(".")


@pytest.mark.parametrize("name", WICKED)
def test_a_volume_of_results_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    manifest = read_manifest(write_heads(tmp_path / "data"))
    assert manifest is not None
    entry = next(volume for volume in manifest.volumes if (volume.split, volume.domain) == ("test", "A"))
    image = np.zeros((1, entry.shape[1], entry.shape[0]), np.float32)
    slices = SubjectSlices(name, ["s"], np.array([2]), np.array([0.5], np.float32), None, image, image > 0)
    folder = tmp_path / "deep" / "volumes"
    folder.mkdir(parents=True)
    before = everything(tmp_path)
    made = Provenance(True, "run", "latest", "latest.pt", "0", "data", "today", {}, "python test.py")
    written = write_volume(folder, entry, slices, image, made)
    beside = written.with_name(written.name.replace(".nii.gz", ".json"))
    assert everything(tmp_path) - before == {written, beside} and written.parent == folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run; its folder is the parent of nothing else."""
    place = tmp_path_factory.mktemp("run")
    train.main(train_arguments(write_phantom(place / "data"), place / "runs", "cycle_gan", "--name=run"))
    return place / "runs"


@pytest.mark.parametrize("fields", [("subject", "source"), ("file",)])
@pytest.mark.parametrize("name", WICKED)
def test_a_manifest_leads_the_test_nowhere_else(run: Path, tmp_path: Path, fields: tuple[str, ...], name: str) -> None:
    dataroot = write_heads(tmp_path / "deep" / "deeper" / "data")
    content = json.loads((dataroot / MANIFEST_NAME).read_text())
    for number, volume in enumerate(content["volumes"]):
        for row in volume["slices"] if "file" in fields else [volume]:
            row |= {field: name + (str(number) if field == "subject" else "") for field in fields}
    (dataroot / MANIFEST_NAME).write_text(json.dumps(content))
    before = everything(tmp_path)
    results = tmp_path / "deep" / "results"
    places = [f"--dataroot={dataroot}", f"--checkpoints_dir={run}", f"--results_dir={results}"]
    try:
        test_program.main([*places, "--name=run", "--gpu_ids=-1", "--no_baselines", "--num_test=2"])
    except UserError as error:
        assert str(error).isprintable() and MANIFEST_NAME in str(error)
    else:
        assert "file" not in fields
    assert all(path == results or path.is_relative_to(results) for path in everything(tmp_path) - before)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", "a/b", ""])
def test_the_name_of_a_run_is_a_plain_folder_name(name: str, tmp_path: Path) -> None:
    dataroot = write_phantom(tmp_path / "deep" / "data")
    before = everything(tmp_path)
    arguments = train_arguments(dataroot, tmp_path / "deep" / "runs", "lsc", f"--name={name}")
    with pytest.raises(UserError, match="plain folder name"):
        train.main(arguments)
    with pytest.raises(UserError, match="plain folder name"):
        test_program.main([f"--dataroot={dataroot}", f"--name={name}", f"--results_dir={tmp_path / 'results'}"])
    assert everything(tmp_path) == before
