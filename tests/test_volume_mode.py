"""`test.py --dataset_mode volume`: scans in, synthesised volumes out, as slicing by hand and testing gives them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from running import start_together
from test_testing import make_run

import preprocessing_images
import test as test_program
from data.scale import SliceScale
from programs.volume import layout_of
from util.errors import UserError

SHAPE = (44, 48, 10)
SPACING = np.array([2.0, 2.0, 6.0])
KNOWN = {"slice_axis": 2, "fov_mm": 128.0, "apart_mm": 6.0, "pixel_mm": 2.0}


def scan(path: Path, *, seed: int = 0, flipped: bool = False) -> Path:
    """A head of some contrast, with two empty slices at either end; `flipped` is towards left, posterior, superior."""
    rng = np.random.default_rng(seed)
    x, y, z = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    head = (((x - 21) / 16) ** 2 + ((y - 23) / 19) ** 2 < 1) & (z > 1) & (z < 8)
    volume = np.where(head, 100 + 50 * np.sin(x / 4 + y / 5 + seed) + rng.normal(0, 5, SHAPE), rng.random(SHAPE))
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -40, -50, -30
    if flipped:
        affine[:2] *= -1
        affine[0, 2] = 0.4  # oblique
    image = nibabel.Nifti1Image(volume.astype(np.int16), affine)
    image.header.set_qform(affine, 1)
    image.header.set_sform(affine, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run folder `cyc`, trained on axial slices of 128 mm in pixels of 2 mm."""
    make_run(tmp_path / "runs" / "cyc", "cycle_gan")
    (tmp_path / "runs" / "cyc" / "run.json").write_text(json.dumps({"slices": {"A": KNOWN, "B": KNOWN}}))
    return tmp_path / "runs"


def synthesise(runs: Path, dataroot: Path, *more: str, name: str = "cyc", mode: str = "volume") -> int:
    places = ["--checkpoints_dir", str(runs), "--results_dir", str(runs / "results")]
    places += ["--gpu_ids", "-1", "--cpu_threads", "1"]  # no worker processes, whose start takes longer than slicing
    return test_program.main(["--dataset_mode", mode, "--dataroot", str(dataroot), "--name", name, *places, *more])


def volumes(runs: Path, name: str = "cyc") -> dict[str, nibabel.Nifti1Image]:
    folder = runs / "results" / name / "test_latest" / "volumes"
    return {path.name: nibabel.load(path) for path in sorted(folder.glob("*.nii.gz"))}


def test_a_scan_comes_back_exactly_where_it_lay(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = nibabel.load(scan(tmp_path / "p7.nii.gz", flipped=True))
    assert synthesise(runs, tmp_path / "p7.nii.gz") == 0
    ((name, made),) = volumes(runs).items()
    assert name == "p7_synth.nii.gz" and made.shape == source.shape and made.get_data_dtype() == np.float32
    for read in (lambda image: image.affine, lambda image: image.get_qform(), lambda image: image.get_sform()):
        np.testing.assert_allclose(read(made), read(source), atol=1e-5)
    assert int(made.header["qform_code"]) == 1 and int(made.header["sform_code"]) == 2
    values = np.asanyarray(made.dataobj)
    assert values.min() >= 0 and 0.1 < values[..., 5].max() <= 1
    assert not values[..., :2].any() and not values[..., 8:].any()  # slices without a head, dropped in slicing
    told = capsys.readouterr()
    assert "(as in" in told.out and f"synthesis: {runs}" in told.out and "p7_synth.nii.gz" in told.out
    assert "warning" not in told.err  # no difference to the training that would have to be told
    about = json.loads((runs / "results/cyc/test_latest/volumes/p7_synth.json").read_text())
    assert about["data"] == str((tmp_path / "p7.nii.gz").resolve())  # the scan, not its slices


def test_a_folder_gives_what_slicing_by_hand_and_testing_give(runs: Path, tmp_path: Path) -> None:
    for number in range(2):
        scan(tmp_path / "low" / f"p{number}.nii.gz", seed=number)
        scan(tmp_path / "high" / f"q{number}.nii.gz", seed=9 + number)
    folders = ["--input_A", str(tmp_path / "low"), "--input_B", str(tmp_path / "high"), "--out", str(tmp_path / "data")]
    grid = ["--pixel_mm", "2", "--fov_mm", "128", "--workers", "1"]
    preprocessing_images.main([*folders, *grid, "--val_fraction", "0", "--test_fraction", "0"])
    again = ["--input_A", str(tmp_path / "low"), "--out", str(tmp_path / "data2"), "--like", str(tmp_path / "data")]
    preprocessing_images.main([*again, "--all_test", "--workers", "1"])
    synthesise(runs, tmp_path / "data2", mode="slices")
    by_hand = {name: np.asanyarray(image.dataobj) for name, image in volumes(runs).items()}
    (tmp_path / "low" / "notes.txt").touch()
    synthesise(runs, tmp_path / "low", "--overwrite")
    at_once = {name: np.asanyarray(image.dataobj) for name, image in volumes(runs).items()}
    assert list(at_once) == list(by_hand) == ["p0_synth.nii.gz", "p1_synth.nii.gz"]
    for name, values in by_hand.items():
        np.testing.assert_array_equal(at_once[name], values)


def test_two_processes_give_what_one_gives(runs: Path, tmp_path: Path) -> None:
    for number in range(2):
        scan(tmp_path / "low" / f"p{number}.nii.gz", seed=number)
    synthesise(runs, tmp_path / "low")
    alone = {name: np.asanyarray(image.dataobj) for name, image in volumes(runs).items()}
    scans = ["--dataset_mode", "volume", "--dataroot", str(tmp_path / "low"), "--name", "cyc", "--gpu_ids", "-1"]
    places = ["--checkpoints_dir", str(runs), "--results_dir", str(tmp_path / "both")]
    done = [process.finished() for process in start_together("test.py", *scans, *places, count=2)]
    assert [one.status for one in done] == [0, 0], done
    for name, values in alone.items():
        made = nibabel.load(tmp_path / "both" / "cyc" / "test_latest" / "volumes" / name)
        np.testing.assert_allclose(np.asanyarray(made.dataobj), values, atol=1e-5)
    assert sum(one.out.count("synthesis: ") for one in done) == 2  # the first process tells


def test_a_bids_folder_is_read_at_any_level_and_one_contrast_taken(runs: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    for number, session in ((1, ""), (2, "_ses-2")):
        folder = study / f"sub-{number:02}" / session.strip("_") / "anat"
        scan(folder / f"sub-{number:02}{session}_T2w.nii.gz", seed=number)
    scan(study / "derivatives" / "sub-01" / "anat" / "sub-01_desc-brain_T2w.nii.gz")
    scan(study / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz")
    synthesise(runs, study)
    assert list(volumes(runs)) == ["sub-01_T2w_synth.nii.gz", "sub-02_ses-2_T2w_synth.nii.gz"]
    scan(study / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    with pytest.raises(UserError, match=r"--dataroot .*several contrasts \(2 T2w, 1 T1w\), --contrast takes one"):
        synthesise(runs, study, "--overwrite")
    with pytest.raises(UserError, match=r"--contrast FLAIR: no name in .* ends in _FLAIR \(found: 2 T2w, 1 T1w\)"):
        synthesise(runs, study, "--overwrite", "--contrast", "FLAIR")
    synthesise(runs, study, "--overwrite", "--contrast", "T1w")
    assert list(volumes(runs)) == ["sub-01_T1w_synth.nii.gz"]
    synthesise(runs, study / "sub-01" / "anat", "--overwrite", "--contrast", "T2w")
    assert list(volumes(runs)) == ["sub-01_T2w_synth.nii.gz"]
    synthesise(runs, study / "sub-02", "--overwrite")
    assert list(volumes(runs)) == ["sub-02_ses-2_T2w_synth.nii.gz"]


def _dicom(folder: Path) -> Path:
    folder.mkdir()
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(100))
    return folder


def _pictures(folder: Path) -> Path:
    (folder / "testA").mkdir(parents=True)
    (folder / "testA" / "p_000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def _bad(path: Path) -> Path:
    path.write_bytes(b"no volume")
    return path


def _same_twice(folder: Path) -> Path:
    scan(folder / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    scan(folder / "sub-01" / "ses-1" / "anat" / "sub-01_T2w.nii.gz")
    return folder


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_dicom, r"x.nii.gz: dcm2niix finds no image in its DICOM files"),
        (_pictures, r"--dataroot .*but 1 picture file; slices that are made already need no preprocessing"),
        (lambda path: path, r"--dataroot .*x.nii.gz: does not exist, need a folder of .nii or .nii.gz files"),
        (_bad, r"x.nii.gz: "),
        (_same_twice, r"--dataroot .*are the same subject, keep one"),
    ],
)
def test_what_is_no_scan_is_refused_in_one_sentence(runs: Path, tmp_path: Path, make: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        synthesise(runs, make(tmp_path / "x.nii.gz"))  # type: ignore[operator]
    assert "\n" not in str(error.value) and "--input" not in str(error.value)
    assert not (runs / "results" / "cyc" / "test_latest" / "volumes").exists()


def test_bad_scans_are_left_out_if_asked_for_and_listed_by_check_data(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(tmp_path / "low" / "good.nii.gz")
    _bad(tmp_path / "low" / "bad.nii.gz")
    with pytest.raises(UserError, match=r"bad.nii.gz: "):
        synthesise(runs, tmp_path / "low")
    assert synthesise(runs, tmp_path / "low", "--check_data") == 2
    assert "1 of 2 files cannot be used" in capsys.readouterr().out
    synthesise(runs, tmp_path / "low", "--skip_bad")
    assert list(volumes(runs)) == ["good_synth.nii.gz"] and "--skip_bad left out" in capsys.readouterr().err
    (tmp_path / "low" / "good.nii.gz").unlink()
    with pytest.raises(UserError, match=r"--dataroot: no usable volumes"):
        synthesise(runs, tmp_path / "low", "--skip_bad", "--overwrite")
    scan(tmp_path / "low" / "good.nii.gz")
    (tmp_path / "low" / "bad.nii.gz").unlink()
    assert synthesise(runs, tmp_path / "low", "--check_data") == 0


def test_another_scan_into_the_same_results_is_refused_before_anything_is_sliced(runs: Path, tmp_path: Path) -> None:
    scan(tmp_path / "one.nii.gz")
    scan(tmp_path / "two.nii.gz", seed=5)
    synthesise(runs, tmp_path / "one.nii.gz")
    with pytest.raises(UserError, match=r"holds the results of .*one.nii.gz.*--overwrite"):
        synthesise(runs, tmp_path / "two.nii.gz")
    slices = runs / "results" / "cyc" / "slices" / "testA"
    assert {path.name[:3] for path in slices.iterdir()} == {"one"}
    synthesise(runs, tmp_path / "one.nii.gz")  # the same again
    synthesise(runs, tmp_path / "two.nii.gz", "--overwrite")
    assert list(volumes(runs)) == ["two_synth.nii.gz"]
    (runs / "results" / "cyc" / "slices" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"--results_dir .*holds slices without a manifest.json"):
        synthesise(runs, tmp_path / "two.nii.gz")


def test_other_slices_than_the_trainings_are_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(tmp_path / "p.nii.gz")
    run = runs / "cyc" / "run.json"
    run.write_text(json.dumps({"slices": {"A": KNOWN | {"apart_mm": 2.0}}}))
    synthesise(runs, tmp_path / "p.nii.gz")
    told = capsys.readouterr().err
    assert "2 mm apart in the training of cyc and 6 mm in testA; the model has learned from no such slices" in told
    run.unlink()  # PNG made by hand
    synthesise(runs, tmp_path / "p.nii.gz", "--overwrite")
    assert "slices of no known size in mm, so the scans' own field of view is taken" in capsys.readouterr().err
    assert list(volumes(runs)) == ["p_synth.nii.gz"]


def test_a_run_of_the_other_direction_takes_high_field_scans(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "back", "cycle_gan", direction="BtoA")
    scan(tmp_path / "p.nii.gz")
    synthesise(runs, tmp_path / "p.nii.gz", name="back")
    assert list(volumes(runs, "back")) == ["p_synth.nii.gz"]
    assert (runs / "results" / "back" / "slices" / "testB").is_dir()


def test_options_that_do_nothing_with_scans_are_refused(runs: Path, tmp_path: Path) -> None:
    path = scan(tmp_path / "p.nii.gz")
    for more in (["--phase", "val"], ["--num_test", "3"], ["--no_baselines"], ["--revalidate"]):
        with pytest.raises(UserError, match=r"does nothing beside --dataset_mode volume"):
            synthesise(runs, path, *more)
    with pytest.raises(UserError, match=r"--contrast T2w does nothing without --dataset_mode volume"):
        synthesise(runs, path, "--contrast", "T2w", mode="slices")
    make_run(runs / "sgp", "sgp")
    with pytest.raises(UserError, match=r"--dataset_mode volume: .*sgp is a run of a pretext task"):
        synthesise(runs, path, name="sgp")


def test_scans_in_the_place_of_slices_are_told_apart(runs: Path, tmp_path: Path) -> None:
    path = scan(tmp_path / "low" / "p.nii.gz")
    for place in (path, path.parent):
        with pytest.raises(UserError, match=r"--dataroot .*: scans, not slices; --dataset_mode volume reads them"):
            synthesise(runs, place, mode="slices")


def test_the_layout_is_the_trainings() -> None:
    told = layout_of(SliceScale(1, 200.0, 5.0, 1.25, 5.0), {"image_size": [128, 128]})
    assert (told.slice_axis, told.grid.side, told.grid.pixel_mm, told.thickness_mm) == (1, 160, 1.25, 5.0)
    earlier = layout_of(SliceScale(2, 240.0, 5.0), {"image_size": [128, 128]})
    assert (earlier.grid.side, earlier.grid.pixel_mm, earlier.thickness_mm) == (128, 1.875, None)
