"""The results folder: results say what they were made from, and those of two tests never mix or replace each other."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from made_up_heads import N_SLICES, SHAPE, write_heads
from running import Finished, run
from test_testing import make_run

import evaluation.evaluate
from data.folder.slices import write_image
from evaluation.provenance import NOTICE


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with data of three subjects and a run."""
    write_heads(tmp_path / "data")
    make_run(tmp_path / "runs" / "cyc", "cycle_gan")
    return tmp_path


def do_test(place: Path, *more: str, data: str = "data", results: str = "results") -> Finished:
    """The run tested on a data folder."""
    given = [f"--dataroot={place / data}", f"--checkpoints_dir={place / 'runs'}", f"--results_dir={place / results}"]
    return run("test.py", *given, "--name=cyc", "--gpu_ids=-1", "--no_baselines", *more)


class Killed(BaseException):
    """Ends a program where it is, as a signal does; nothing handles it."""


def folder_of(place: Path) -> Path:
    return place / "results" / "cyc" / "test_latest"


def metrics_of(place: Path) -> dict:
    return json.loads((folder_of(place) / "metrics.json").read_text())


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trained_on(place: Path) -> None:
    """The same run with other weights."""
    shutil.rmtree(place / "runs" / "cyc")
    make_run(place / "runs" / "cyc", "cycle_gan", seed=1)


def another_folder(place: Path) -> str:
    shutil.copytree(place / "data", place / "other")
    return "other"


def a_slice_rewritten(place: Path) -> str:
    write_image(place / "data/testA/sub-1_003.png", np.full(SHAPE, 0.5, dtype=np.float32), 16)
    return "data"


def a_truth_rewritten(place: Path) -> str:
    write_image(place / "data/testA_truth/sub-1_003.png", np.full(SHAPE, 0.5, dtype=np.float32), 16)
    return "data"


def results_of_an_earlier_version(place: Path) -> str:
    content = metrics_of(place)
    del content["provenance"]
    (folder_of(place) / "metrics.json").write_text(json.dumps(content))
    return "data"


CHANGES = (another_folder, a_slice_rewritten, a_truth_rewritten, results_of_an_earlier_version)


@pytest.mark.parametrize("change", CHANGES)
def test_results_of_another_test_are_kept(place: Path, change: Callable[[Path], str]) -> None:
    assert do_test(place).status == 0
    first = metrics_of(place)["provenance"]
    data = change(place)
    before = everything(folder_of(place))
    refused = do_test(place, data=data)
    assert refused.status == 2 and everything(folder_of(place)) == before
    (sentence,) = refused.err.splitlines()
    assert "--overwrite" in sentence and "another --results_dir" in sentence and str(folder_of(place)) in sentence
    assert str(place / data) in sentence
    if change is not results_of_an_earlier_version:
        assert str(place / "data") in sentence and first["checkpoint_sha256"][:12] in sentence
    assert do_test(place, data=data, results="elsewhere").status == 0
    assert do_test(place, "--overwrite", data=data).status == 0
    assert metrics_of(place)["provenance"]["data"] == str(place / data)
    assert do_test(place, data=data).status == 0, "the same test may be repeated"


def test_a_newer_checkpoint_of_the_run_replaces_its_results_and_another_run_does_not(place: Path) -> None:
    assert do_test(place).status == 0
    first = metrics_of(place)["provenance"]["checkpoint_sha256"]
    trained_on(place)
    assert do_test(place).status == 0
    assert metrics_of(place)["provenance"]["checkpoint_sha256"] != first
    make_run(place / "others" / "cyc", "cycle_gan", seed=2)
    refused = do_test(place, f"--checkpoints_dir={place / 'others'}")
    assert refused.status == 2 and "--overwrite" in refused.err and str(place / "others") in refused.err


def test_a_mistyped_dataroot_is_not_told_to_replace_results(place: Path) -> None:
    assert do_test(place).status == 0
    assert do_test(place, data="date").err == f"test.py: error: --dataroot {place / 'date'}: no such folder\n"


def test_a_part_of_the_slices_replaces_no_whole_test(place: Path) -> None:
    assert do_test(place).status == 0
    assert "--overwrite" in do_test(place, "--num_test=2").err
    assert metrics_of(place)["n_slices"] == 3 * N_SLICES


def test_an_interrupted_test_leaves_nothing_of_an_earlier_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert do_test(place).status == 0
    write, begun = evaluation.evaluate.write_pictures, []

    def interrupted(folder: Path, volume, *more) -> None:
        begun.append(sorted(path.name for path in folder_of(place).rglob("*")))
        if len(begun) == 2:
            raise Killed
        write(folder, volume, *more)

    monkeypatch.setattr(evaluation.evaluate, "write_pictures", interrupted)
    trained_on(place)
    with pytest.raises(Killed):
        do_test(place, "--overwrite")
    assert begun[0] == ["images", "volumes"], "all of the earlier test was removed before the first image"
    left = [path.name for path in folder_of(place).rglob("*") if path.is_file()]
    assert left and all(name.startswith("sub-1_") or name == "0001.js" for name in left)

    monkeypatch.setattr(evaluation.evaluate, "write_pictures", write)
    another_folder(place)
    assert do_test(place, data="other").status == 0, "what an interrupted test left is no result"
    assert metrics_of(place)["provenance"]["data"] == str(place / "other")


def test_leftovers_of_a_killed_process_and_links(place: Path) -> None:
    folder = folder_of(place)
    folder.mkdir(parents=True)
    (folder / "metrics.json.part").write_text("{")
    (folder / "metrics.json").write_text('{"n_sli')
    assert do_test(place).status == 0 and not list(folder.glob("*.part"))
    shutil.rmtree(folder / "images")
    (place / "mine").mkdir()
    (place / "mine" / "thesis.png").write_text("")
    (folder / "images").symlink_to(place / "mine")
    assert "contains other files (images)" in do_test(place).err
    assert (place / "mine" / "thesis.png").exists() and (folder / "metrics.json").exists()


@pytest.mark.parametrize("bad", [False, True], ids=["--num_test", "--skip_bad"])
def test_volumes_with_missing_slices_are_not_written(place: Path, bad: bool) -> None:
    more = [f"--num_test={N_SLICES + 2}"]
    if bad:
        (place / "data/testA/sub-2_004.png").write_bytes(b"")
        more = ["--skip_bad"]
    done = do_test(place, *more)
    assert done.status == 0 and "volumes not written, as slices of theirs are missing: 1;" in done.err
    whole = {"sub-1", "sub-3"} if bad else {"sub-1"}
    names = {path.name for path in (folder_of(place) / "volumes").iterdir()}
    assert names == {f"{subject}_synth.{suffix}" for subject in whole for suffix in ("nii.gz", "json")}
    metrics = metrics_of(place)
    assert metrics["n_volumes"] == len(whole)
    reason = f"{1 if bad else 3} of {N_SLICES} slices are missing, left out by --num_test or --skip_bad"
    assert metrics["volumes_left_out"] == [{"subject": "sub-2", "reason": reason}]


def test_everything_says_what_it_was_made_from(place: Path) -> None:
    assert do_test(place).status == 0
    said = metrics_of(place)["provenance"]
    checkpoint = place / "runs" / "cyc" / "latest.pt"
    assert said["checkpoint"] == str(checkpoint)
    assert said["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert said["synthetic"] is True and said["notice"] == NOTICE and said["epoch"] == "latest"
    assert said["run"] == str(place / "runs" / "cyc") and said["data"] == str(place / "data")
    assert said["versions"].keys() == {"pta-mri", "python", "torch"} and said["versions"]["torch"] == torch.__version__
    assert said["command"].startswith("python test.py --dataroot=") and len(said["data_fingerprint"]) == 64
    volume = folder_of(place) / "volumes" / "sub-2_synth.nii.gz"
    descrip = bytes(nibabel.load(volume).header["descrip"]).rstrip(b"\0")
    assert descrip == b"SYNTHETIC research only" and len(descrip) <= 79
    beside = json.loads(volume.with_name("sub-2_synth.json").read_text())
    assert beside == {**said, "subject": "sub-2", "file": volume.name}
    page = (folder_of(place) / "index.html").read_text()
    for text in (said["checkpoint_sha256"], said["data_fingerprint"], said["date"], f"SYNTHETIC images, {NOTICE}"):
        assert text in page


def test_the_fingerprint_follows_the_content_that_is_read(place: Path) -> None:
    def fingerprint(data: str) -> str:
        assert do_test(place, "--overwrite", data=data).status == 0
        return metrics_of(place)["provenance"]["data_fingerprint"]

    first = fingerprint("data")
    assert fingerprint(another_folder(place)) == first, "a copy is the same data"
    write_image(place / "other/trainB/sub-8_003.png", np.full(SHAPE, 0.5, dtype=np.float32), 16)
    assert fingerprint("other") == first, "not tested"
    write_image(place / "other/testB_mask/sub-3_003.png", np.ones(SHAPE, dtype=np.float32), 8)
    assert fingerprint("other") != first


def test_a_run_without_generator_makes_nothing_synthetic(place: Path) -> None:
    shutil.rmtree(place / "runs" / "cyc")
    make_run(place / "runs" / "cyc", "lsc", load_size=32)
    given = [f"--dataroot={place / 'data'}", f"--checkpoints_dir={place / 'runs'}"]
    assert run("test.py", *given, f"--results_dir={place / 'results'}", "--name=cyc", "--gpu_ids=-1").status == 0
    assert metrics_of(place)["provenance"]["synthetic"] is False and "volumes_left_out" not in metrics_of(place)
