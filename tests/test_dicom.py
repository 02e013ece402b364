"""DICOM as input: voxels and places as they were measured, one kind of series, and nothing that names a person."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_up_dicom import BORN, NAME, SPACING, Made, head, oblique, write_enhanced, write_report, write_series
from running import ROOT, Finished, run
from test_privacy import contents
from test_testing import make_run
from test_volume_mode import KNOWN

import preprocessing.dicom as dicom
from preprocessing.dicom import Converter, converting
from preprocessing.nifti import read_nifti
from util.errors import UserError
from util.processes import ALONE

SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@pytest.fixture
def converter(tmp_path: Path) -> Iterator[Converter]:
    with converting(tmp_path / "OUT" / "data", ALONE) as made:
        yield made
    assert not (tmp_path / "OUT").exists(), "what was made for the conversion is removed with it"


def names(converter: Converter, location: Path, contrast: str | None = None) -> list[str]:
    return list(converter.convert(location, "--dataroot", contrast, "--contrast").volumes)


def check(path: Path, made: Made) -> None:
    """Voxels and affine of a converted volume are those that were written; only order and signs may differ."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    expected = made.in_ras()
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(expected.dataobj))
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-3)  # NIfTI stores float32
    read, affine, _ = read_nifti(path)  # as slicing sees it
    np.testing.assert_array_equal(read, np.asanyarray(expected.dataobj))
    np.testing.assert_allclose(affine, expected.affine, atol=1e-3)


# voxels and places ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", [np.eye(3), oblique(), SAGITTAL], ids=["axial", "oblique", "sagittal"])
def test_voxels_and_affine_are_those_that_were_measured(
    converter: Converter, tmp_path: Path, directions: np.ndarray
) -> None:
    shape, spacing = (20, 26, 7), (0.9, 1.4, 5.5)
    made = write_series(tmp_path / "S", voxels=head(1, shape), directions=directions, spacing=spacing)
    found = converter.convert(tmp_path / "S", "--dataroot", None, "--contrast")
    ((name, path),) = found.volumes.items()
    assert name == "sub-dcm001_ser-3_T2w" and path.name == f"{name}.nii" and not found.problems
    assert found.notes == [f"{name}: 7 slices, from {tmp_path / 'S'}"] and converter.place_of(path) == tmp_path / "S"
    check(path, made)


def test_a_rescaled_series_keeps_its_values(converter: Converter, tmp_path: Path) -> None:
    made = write_series(tmp_path / "S", RescaleSlope=0.5, RescaleIntercept=-100)
    (path,) = converter.convert(tmp_path / "S", "--dataroot", None, "--contrast").volumes.values()
    values = np.asanyarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    np.testing.assert_allclose(values, np.asanyarray(made.in_ras().dataobj) * 0.5 - 100)


def test_one_file_of_many_frames_is_a_volume_and_one_slice_is_not(converter: Converter, tmp_path: Path) -> None:
    made = write_enhanced(tmp_path / "S" / "scan.dcm", head(2), oblique(8))
    for location in (tmp_path / "S", tmp_path / "S" / "scan.dcm"):
        (path,) = converter.convert(location, "--dataroot", None, "--contrast").volumes.values()
        check(path, made)
    write_series(tmp_path / "T")
    with pytest.raises(UserError, match=r"no DICOM series that can be used; left out series 3 \(fewer than 5 slices\)"):
        names(converter, tmp_path / "T" / "IM0003.dcm")


def test_files_without_suffix_in_nested_folders_beside_a_dicomdir(converter: Converter, tmp_path: Path) -> None:
    study = tmp_path / "CD"
    made = write_series(study / "DICOM" / "PA1" / "SE1", names="I{:03}")
    (study / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (study / "README.txt").write_text("read me")
    (study / "viewer.exe").write_bytes(b"MZ")
    for location in (study, study / "DICOMDIR"):
        found = converter.convert(location, "--dataroot", None, "--contrast")
        (path,) = found.volumes.values()
        check(path, made)
        assert found.notes[1:] == [f"--dataroot {study}: ignored 1 .txt file, 1 .exe file beside DICOM"]
    (only,) = {path.suffix for path in (study / "DICOM" / "PA1" / "SE1").iterdir()}
    assert only == ""


def test_a_series_that_is_spread_over_folders_is_one_volume(converter: Converter, tmp_path: Path) -> None:
    made = write_series(tmp_path / "S" / "0")
    (tmp_path / "S" / "1").mkdir()
    for path in sorted((tmp_path / "S" / "0").iterdir())[4:]:
        path.rename(tmp_path / "S" / "1" / path.name)
    (path,) = converter.convert(tmp_path / "S", "--dataroot", None, "--contrast").volumes.values()
    check(path, made)


@pytest.mark.parametrize("folder", ["a", "b"])
def test_a_copy_of_a_series_is_left_out_and_told(converter: Converter, tmp_path: Path, folder: str) -> None:
    made = write_series(tmp_path / "S" / "a")
    (tmp_path / "S" / "b").mkdir()
    for path in sorted((tmp_path / "S" / "a").iterdir()):
        (tmp_path / "S" / folder / f"copy of {path.name}").write_bytes(path.read_bytes())
    found = converter.convert(tmp_path / "S", "--dataroot", None, "--contrast")
    assert not found.problems
    check(*found.volumes.values(), made)
    told = "10 images of a: there twice" if folder == "a" else "series 3 of b: a copy of another series"
    assert found.notes[1:] == [f"--dataroot {tmp_path / 'S'}: left out {told}"]


def test_series_that_share_their_dummy_uids_are_not_taken_for_copies(converter: Converter, tmp_path: Path) -> None:
    made = {place: write_series(tmp_path / "S" / place, voxels=head(seed)) for seed, place in enumerate("ab")}
    found = converter.convert(tmp_path / "S", "--dataroot", None, "--contrast")
    assert list(found.volumes) == ["sub-dcm001_ser-3_T2w", "sub-dcm001_ser-3_run-2_T2w"]
    for path, one in zip(found.volumes.values(), made.values(), strict=True):
        check(path, one)


# which series, and their names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("t2_tse_tra_5mm", "T2w"),
        ("Ax T2 FLAIR", "FLAIR"),
        ("Ax T1 FLAIR", "T1w"),
        ("tirm dark-fluid", "FLAIR"),
        ("MPRAGE 1mm", "T1w"),
        ("PD_fs", "PDw"),
        ("T2* GRE", "T2starw"),
        ("STIR cor", "STIR"),
        ("ep2d_diff_b1000", "dwi"),
        ("quick look", "MR"),
        (f"{NAME} head", "MR"),
    ],
)
def test_contrast_by_words_of_the_field_alone(
    converter: Converter, tmp_path: Path, description: str, kind: str
) -> None:
    write_series(tmp_path / "S", description=description, number=12, voxels=head(shape=(8, 8, 6)))
    assert names(converter, tmp_path / "S") == [f"sub-dcm001_ser-12_{kind}"]


def test_several_kinds_are_refused_by_name_and_one_can_be_taken(converter: Converter, tmp_path: Path) -> None:
    small = {"voxels": head(shape=(8, 8, 6))}
    write_series(tmp_path / "S", number=3, **small)
    write_series(tmp_path / "S", number=4, description="t1_se", names="K{}", **small)
    write_series(tmp_path / "S", number=5, description="mystery", names="L{}", **small)
    with pytest.raises(UserError) as refused:
        names(converter, tmp_path / "S")
    kinds = "(1 T2w, 1 T1w, 1 ser-5_MR), --contrast takes those whose names end in one"
    assert str(refused.value) == f"--dataroot {tmp_path / 'S'}: DICOM series of several kinds {kinds}"
    for contrast, name in {"T1w": "ser-4_T1w", "T2w": "ser-3_T2w", "ser-5_MR": "ser-5_MR", "MR": "ser-5_MR"}.items():
        assert names(converter, tmp_path / "S", contrast) == [f"sub-dcm001_{name}"]
    with pytest.raises(UserError, match=r"--contrast FLAIR: no DICOM series of .* \(found: 1 T2w, 1 T1w, 1 ser-5_MR\)"):
        names(converter, tmp_path / "S", "FLAIR")


def test_series_of_one_kind_are_all_taken(converter: Converter, tmp_path: Path) -> None:
    for number in (10, 9):
        write_series(tmp_path / "S" / f"{number}", number=number, voxels=head(shape=(8, 8, 6)))
    assert sorted(names(converter, tmp_path / "S")) == ["sub-dcm001_ser-10_T2w", "sub-dcm001_ser-9_T2w"]
    assert names(converter, tmp_path / "S", "ser-9_T2w") == ["sub-dcm001_ser-9_T2w"]


def test_echoes_are_kinds_of_their_own(converter: Converter, tmp_path: Path) -> None:
    small = {"voxels": head(shape=(8, 8, 6)), "description": "pd+t2_tse"}
    write_series(tmp_path / "S", EchoTime=12, EchoNumbers=1, **small)
    write_series(tmp_path / "S", EchoTime=96, EchoNumbers=2, names="K{}", **small)
    with pytest.raises(UserError, match=r"of several kinds \(1 echo-1_PDw, 1 echo-2_T2w\)"):
        names(converter, tmp_path / "S")
    assert names(converter, tmp_path / "S", "T2w") == ["sub-dcm001_ser-3_echo-2_T2w"]


def test_what_is_no_volume_of_a_head_is_left_out_and_told(converter: Converter, tmp_path: Path) -> None:
    study = tmp_path / "S"
    small = head(shape=(8, 8, 6))
    write_series(study / "head", voxels=small)
    write_series(study / "one", number=1, description="AAHead_Scout", voxels=small)
    write_series(study / "few", number=2, voxels=small[..., :3])
    planes = {"number": 4, "voxels": small, "series": "planes"}
    write_series(study / "planes", **planes)
    write_series(study / "planes", directions=SAGITTAL, names="K{}", **planes)
    write_series(study / "derived", number=5, voxels=small, ImageType=["DERIVED", "SECONDARY", "MPR"])
    write_series(study / "phase", number=6, voxels=small, ImageType=["ORIGINAL", "PRIMARY", "P"])
    write_series(study / "ct", number=7, voxels=small, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    times = {"number": 8, "voxels": small, "series": "times"}
    write_series(study / "times", **times)
    write_series(study / "times", names="K{}", AcquisitionNumber=2, AcquisitionTime="101020", **times)
    write_report(study / "report" / "R1")
    found = converter.convert(study, "--dataroot", None, "--contrast")
    assert list(found.volumes) == ["sub-dcm001_ser-3_T2w"] and not found.problems
    told = [note.removeprefix(f"--dataroot {study}: left out ") for note in found.notes[1:]]
    assert sorted(told) == [
        "files of report: no images, but reports and the like",
        "series 1 of one: a localiser",
        "series 2 of few: fewer than 5 slices",
        "series 4 of planes: slices of several orientations, as of a localiser",
        "series 5 of derived: derived from other images (secondary)",
        "series 6 of phase: phase, real or imaginary part",
        "series 7 of ct: modality CT, not MR",
        "series 8 of times: several volumes in one series, as of diffusion or function",
    ]
    with pytest.raises(UserError, match=r"no DICOM series that can be used; left out series 1 \(a localiser\)"):
        converter.convert(study / "one", "--dataroot", None, "--contrast")


def test_people_are_numbered_and_keep_their_number_in_both_inputs(converter: Converter, tmp_path: Path) -> None:
    small = {"voxels": head(shape=(8, 8, 6))}
    for place, who in (("low/a", "P2"), ("low/b", "P1"), ("high/x", "P1"), ("high/y", "P3")):
        write_series(tmp_path / place, PatientID=who, **small)
    write_series(tmp_path / "low" / "c", PatientID="P1", study="later", **small)
    assert names(converter, tmp_path / "low") == [
        "sub-dcm001_ser-3_T2w",
        "sub-dcm002_ses-1_ser-3_T2w",
        "sub-dcm002_ses-2_ser-3_T2w",
    ]
    assert names(converter, tmp_path / "high") == ["sub-dcm002_ser-3_T2w", "sub-dcm003_ser-3_T2w"]


def test_folders_that_are_named_as_in_bids_name_people(converter: Converter, tmp_path: Path) -> None:
    small = {"voxels": head(shape=(8, 8, 6)), "PatientID": "removed"}
    for place in ("sub-07/ses-b/T2", "sub-08/T2", "sub-08/again"):
        write_series(tmp_path / "S" / place, study=place, **small)
    expected = ["sub-07_ses-b_ser-3_T2w", "sub-08_ses-1_ser-3_T2w", "sub-08_ses-2_ser-3_T2w"]
    assert sorted(names(converter, tmp_path / "S")) == expected
    assert names(converter, tmp_path / "S" / "sub-07" / "ses-b" / "T2") == expected[:1]


def test_without_an_id_name_and_birth_or_the_study_tell_people_apart(converter: Converter, tmp_path: Path) -> None:
    small = {"voxels": head(shape=(8, 8, 6)), "PatientID": ""}
    write_series(tmp_path / "S" / "a", PatientName="X^Y", study="a", **small)
    write_series(tmp_path / "S" / "b", PatientName="X^Y", PatientBirthDate="19990101", study="b", **small)
    gone = small | {"PatientName": "", "PatientBirthDate": ""}
    write_series(tmp_path / "S" / "c", study="c", **gone)
    write_series(tmp_path / "S" / "d", study="d", **gone)
    assert names(converter, tmp_path / "S") == [f"sub-dcm{number:03}_ser-3_T2w" for number in (1, 2, 3, 4)]


# what cannot be used --------------------------------------------------------------------------------------------------


def _cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def _truncated(folder: Path, names: str = "IM{:04}.dcm") -> None:
    write_series(folder, names=names)
    _cut(folder / names.format(3), -300)


def _beheaded(folder: Path) -> None:
    write_series(folder)
    _cut(folder / "IM0009.dcm", 600)  # the last slice: no gap tells that it is missing


def _with_a_gap(folder: Path) -> None:
    write_series(folder)
    (folder / "IM0004.dcm").unlink()


def _nowhere(folder: Path) -> None:
    write_series(folder, ImagePositionPatient=None)


def _junk(folder: Path) -> None:
    folder.mkdir()
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(100))
    (folder / "IM0002.dcm").touch()


def _only_a_directory(folder: Path) -> None:
    folder.mkdir()
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(100))


def _mixed(folder: Path) -> None:
    write_series(folder)
    nibabel.save(nibabel.Nifti1Image(head(), np.eye(4)), folder / "a.nii.gz")


def _mixed_deep(folder: Path) -> None:
    write_series(folder / "dicom")
    (folder / "nifti").mkdir()
    nibabel.save(nibabel.Nifti1Image(head(), np.eye(4)), folder / "nifti" / "a.nii.gz")


BAD = [
    (_truncated, "could not convert its DICOM files: File not large enough to store image data: IM0003.dcm"),
    (_beheaded, "could not read 1 of 10 DICOM images"),
    (_with_a_gap, "series 3: the distance between its slices varies, so some may be missing"),
    (_nowhere, "series 3: its header does not tell where the slices lie"),
    (_junk, "dcm2niix finds no image in its DICOM files"),
    (_only_a_directory, "a DICOMDIR, and none of the images that it lists"),
    (_mixed, "DICOM files, and NIfTI volumes such as a.nii.gz, which may show the same scans; give a folder of the"),
    (_mixed_deep, "DICOM files, and NIfTI volumes such as nifti/a.nii.gz, which may show the same scans"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder `cyc`, trained on axial slices of 128 mm in pixels of 2 mm."""
    place = tmp_path_factory.mktemp("runs")
    make_run(place / "cyc", "cycle_gan")
    (place / "cyc" / "run.json").write_text(json.dumps({"slices": {"A": KNOWN, "B": KNOWN}}))
    return place


def synthesise(runs: Path, dataroot: Path, out: Path, *more: str) -> Finished:
    places = ["--checkpoints_dir", runs, "--results_dir", out, "--gpu_ids", -1, "--cpu_threads", 1]
    return run("test.py", "--dataset_mode", "volume", "--dataroot", dataroot, "--name", "cyc", *places, *more)


def prepare(dataroot: Path, out: Path, *more: str) -> Finished:
    return run("preprocessing_images.py", "--input_A", dataroot, "--out", out, "--all_test", "--workers", 1, *more)


def test_the_manifest_names_no_folder_and_no_file_that_was_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "S" / "CANARY_1970", PatientID="P1")
    _truncated(tmp_path / "S" / "CANARY_1971", names="CANARY{:04}.dcm")
    _with_a_gap(tmp_path / "S" / "CANARY_1972")
    assert prepare(tmp_path / "S", tmp_path / "D", "--skip_bad").status == 0
    text = (tmp_path / "D" / "manifest.json").read_text()
    assert "CANARY" not in text
    gap = "series 3: the distance between its slices varies, so some may be missing"
    skipped = [{"source": "DICOM", "reason": reason} for reason in ("a folder that was not converted whole", gap)]
    assert json.loads(text)["settings"]["skipped"] == skipped
    assert "CANARY0003.dcm" in (tmp_path / "D" / "bad_files.csv").read_text()


@pytest.mark.parametrize(("make", "sentence"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_be_used_is_one_sentence_in_both_programs(
    runs: Path, tmp_path: Path, make: object, sentence: str
) -> None:
    make(tmp_path / "S")  # type: ignore[operator]
    for done in (synthesise(runs, tmp_path / "S", tmp_path / "R"), prepare(tmp_path / "S", tmp_path / "D")):
        assert done.status == 2 and done.err.count("error: ") == 1, done
        (said,) = [line for line in done.err.splitlines() if "error: " in line]
        assert str(tmp_path / "S") in said and sentence in said and "Traceback" not in done.err
        assert "Convert" not in done.out + done.err and "dcm2niiX" not in done.out + done.err
    assert not (tmp_path / "D").exists() and not list((tmp_path / "R").rglob(".dicom"))


def test_bad_series_are_listed_by_check_data_and_left_out_if_asked_for(runs: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "S" / "good", PatientID="P1")
    _truncated(tmp_path / "S" / "bad")
    for done in (
        synthesise(runs, tmp_path / "S", tmp_path / "R", "--check_data"),
        prepare(tmp_path / "S", tmp_path / "D", "--check_data"),
    ):
        assert done.status == 2 and "1 of 2 files cannot be used" in done.out, done
    assert {path.name for path in (tmp_path / "D").iterdir()} == {"bad_files.csv"}
    with (tmp_path / "D" / "bad_files.csv").open() as table:
        (row,) = csv.DictReader(table)
    assert row["path"] == str(tmp_path / "S" / "bad") and "IM0003.dcm" in row["reason"]
    done = synthesise(runs, tmp_path / "S", tmp_path / "R", "--skip_bad")
    assert done.status == 0 and f"--skip_bad left out {tmp_path / 'S' / 'bad'}: dcm2niix could not" in done.err
    assert prepare(tmp_path / "S", tmp_path / "D", "--skip_bad").status == 0
    assert {path.name for path in (tmp_path / "D" / "testA").iterdir()} >= {"sub-dcm001_ser-3_T2w_004.png"}


def test_a_volume_that_cannot_be_sliced_is_told_by_its_dicom_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "S", voxels=np.full((30, 30, 8), 7, np.uint16))
    for more in ([], ["--check_data"]):
        done = prepare(tmp_path / "S", tmp_path / "D", *more)
        assert done.status == 2, done
        assert f"{tmp_path / 'S'}: sub-dcm001_ser-3_T2w: every voxel is 7, need a volume with contrast" in (
            done.err + done.out
        )
        assert ".dicom" not in done.err + done.out


def test_a_truth_cannot_be_dicom_and_slices_are_no_scans(runs: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "S")
    done = prepare(tmp_path / "S", tmp_path / "D", "--truth_A", str(tmp_path / "S"))
    assert done.status == 2 and "--truth_A" in done.err and "dcm2niix -z y -o NIFTI" in done.err
    places = ["--checkpoints_dir", runs, "--results_dir", tmp_path / "R", "--gpu_ids", -1]
    done = run("test.py", "--dataroot", tmp_path / "S", "--name", "cyc", *places)
    assert done.status == 2 and "scans, not slices; --dataset_mode volume reads them" in done.err


def test_without_the_converter_one_sentence_says_what_to_install(
    converter: Converter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "S", voxels=head(shape=(8, 8, 6)))
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    with pytest.raises(UserError, match=r"DICOM needs dcm2niix, which is not installed: pip install"):
        names(converter, tmp_path / "S")


# the programs ---------------------------------------------------------------------------------------------------------


def test_a_dicom_folder_comes_back_as_a_volume_that_names_nobody(runs: Path, tmp_path: Path) -> None:
    made = write_series(tmp_path / "S" / "SE3", directions=oblique(8), description=f"T2 {NAME} {BORN}")
    write_series(tmp_path / "S" / "SE1", number=1, description="localizer", voxels=head(shape=(8, 8, 6)))
    write_report(tmp_path / "S" / "SE9" / "IM1")
    done = synthesise(runs, tmp_path / "S", tmp_path / "R")
    assert done.status == 0, done
    assert "note: sub-dcm001_ser-3_T2w: 10 slices, from SE3" in done.out
    assert "left out series 1 of SE1: a localiser" in done.out
    ((name, image),) = _volumes(tmp_path / "R").items()
    assert name == "sub-dcm001_ser-3_T2w_synth.nii.gz"
    canonical, expected = nibabel.as_closest_canonical(image), made.in_ras()
    assert canonical.shape == expected.shape
    np.testing.assert_allclose(canonical.affine, expected.affine, atol=1e-3)
    assert np.asanyarray(image.dataobj).max() > 0.1
    _nobody(tmp_path / "R", done)
    again = synthesise(runs, tmp_path / "S", tmp_path / "R2")
    assert again.status == 0
    np.testing.assert_array_equal(np.asanyarray(_volumes(tmp_path / "R2")[name].dataobj), np.asanyarray(image.dataobj))


def test_a_dicom_folder_becomes_slices_as_its_nifti_file_does(tmp_path: Path) -> None:
    made = write_series(tmp_path / "S", description="t2")
    write_series(tmp_path / "S", number=4, description="t1", names="K{}")
    done = prepare(tmp_path / "S", tmp_path / "D", "--contrast_A", "T2w")
    assert done.status == 0, done
    _nobody(tmp_path / "D", done)
    (tmp_path / "N").mkdir()
    nibabel.save(nibabel.Nifti1Image(made.voxels, made.affine), tmp_path / "N" / "x_T2w.nii.gz")
    nibabel.save(nibabel.Nifti1Image(made.voxels, made.affine), tmp_path / "N" / "x_T1w.nii.gz")
    assert prepare(tmp_path / "N", tmp_path / "D2", "--contrast_A", "T2w").status == 0
    slices, expected = (sorted((tmp_path / data / "testA").iterdir()) for data in ("D", "D2"))
    assert len(slices) == len(expected) > 5
    assert [path.read_bytes() for path in slices] == [path.read_bytes() for path in expected]
    manifest = json.loads((tmp_path / "D" / "manifest.json").read_text())
    (volume,) = manifest["volumes"]
    assert (volume["source"], volume["person"]) == ("sub-dcm001_ser-3_T2w.nii", "sub-dcm001")
    np.testing.assert_allclose(volume["spacing_mm"], SPACING, atol=1e-4)


def test_sigterm_removes_what_was_converted(tmp_path: Path) -> None:
    write_series(tmp_path / "S", voxels=head(shape=(8, 8, 6)))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), converting(tmp_path / "D", ALONE) as converter:
        (path,) = converter.convert(tmp_path / "S", "--dataroot", None, "--contrast").volumes.values()
        assert path.exists() and path.parents[1].stat().st_mode & 0o777 == 0o700
        assert not list((tmp_path / "D").rglob("*.json")), "nothing that names patients outlives the conversion"
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert not (tmp_path / "D").exists() and signal.getsignal(signal.SIGTERM) is before


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    write_series(tmp_path / "S")
    left = tmp_path / "D" / dicom.FOLDER / "1" / "raw0"
    left.mkdir(parents=True)
    (left / "s3.json").write_text(NAME)
    assert prepare(tmp_path / "S", tmp_path / "D").status == 2  # not empty
    assert prepare(tmp_path / "S", tmp_path / "D", "--overwrite").status == 0
    assert not (tmp_path / "D" / dicom.FOLDER).exists()


def test_nothing_is_run_without_dicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    monkeypatch.setattr(Converter, "_begin", None)
    (tmp_path / "N").mkdir()
    nibabel.save(nibabel.Nifti1Image(head(), np.diag([*SPACING, 1.0])), tmp_path / "N" / "x.nii.gz")
    assert prepare(tmp_path / "N", tmp_path / "D").status == 0
    requirements = (ROOT / "requirements.txt").read_text()
    assert "dcm2niix" in requirements and "pydicom" not in requirements


def _volumes(results: Path) -> dict[str, nibabel.Nifti1Image]:
    folder = results / "cyc" / "test_latest" / "volumes"
    return {path.name: nibabel.load(path) for path in sorted(folder.glob("*.nii.gz"))}


def _nobody(output: Path, done: Finished) -> None:
    """Nothing that names the patient is in what a program wrote or said."""
    files = [path for path in output.rglob("*") if path.is_file()]
    assert len(files) > 5 and not list(output.rglob(".dicom"))
    for path in files:
        content = contents(path)
        for word in (b"CANARY", b"JANE", BORN.encode(), b"1970-01-31", b"20200102"):
            assert word not in content and word.decode() not in str(path.relative_to(output)), (path, word)
    assert "CANARY" not in done.out + done.err and BORN not in done.out + done.err
