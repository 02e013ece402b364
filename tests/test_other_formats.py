"""What people have instead of a folder of NIfTI files: recognised, with the tool that helps; nothing is written."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_bytes import AFFINE, encoded, head

import preprocessing_images
from preprocessing.other_formats import format_of_content, format_of_name, holds_dicom
from util.errors import UserError

DICOM = b"\0" * 128 + b"DICM" + b"\2\0\0\0"
HDF5 = b"\x89HDF\r\n\x1a\n" + b"\0" * 100
CONTENT = {
    "DICOM": DICOM,
    "HDF5": HDF5,
    "NRRD": b"NRRD0004\ntype: short\n",
    "MetaImage": b"ObjectType = Image\nNDims = 3\n",
    "NIfTI pair": encoded(magic=b"ni1")[:348],
    "Analyze": encoded(magic=b"")[:348],
    "picture": b"\xff\xd8\xff\xe0",
    "archive": b"PK\x03\x04",
}


def run(*arguments: object) -> int:
    return preprocessing_images.main([str(argument) for argument in (*arguments, "--workers", 1)])


def put(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def refused(tmp_path: Path, given: Path) -> str:
    """The sentence with which `given` is refused as --input_A, --input_B and --truth_A; nothing is written."""
    good = put(tmp_path / "good" / "g.nii", encoded()).parent
    said = set()
    for arguments in (
        ("--input_A", given),
        ("--input_B", given, "--check_data"),
        ("--input_A", good, "--truth_A", given),
    ):
        with pytest.raises(UserError) as caught:
            run(*arguments, "--out", tmp_path / "D")
        flag = "--truth_A" if "--truth_A" in arguments else arguments[0]
        said.add(str(caught.value).removeprefix(f"{flag} "))
    assert not (tmp_path / "D").exists() and len(said) == 1
    (sentence,) = said
    assert sentence.startswith(f"{given}: ") and "\n" not in sentence
    return sentence.removeprefix(f"{given}: ")


@pytest.mark.parametrize(
    ("names", "content", "words"),
    [
        (("x.mgz", "y.mgh"), b"", ("2 MGH/MGZ files", "mri_convert x.mgz NAME.nii.gz")),
        (("x.h5",), HDF5, ("1 HDF5 file;", "dataset/README.md")),
        (("x",), HDF5, ("1 HDF5 file;", "dataset/README.md")),
        (("x.nrrd", "y.nhdr", "y.raw"), b"", ("2 NRRD files", "ReadImage('x.nrrd')")),
        (("x.mha",), b"", ("1 MetaImage file;", "SimpleITK")),
        (("x.mhd", "x.raw"), CONTENT["MetaImage"], ("MetaImage", "SimpleITK")),
        (("x.hdr", "x.img"), CONTENT["Analyze"], ("2 Analyze files", "mri_convert x.hdr", "left and right")),
        (("x.hdr", "x.img"), CONTENT["NIfTI pair"], ("2 NIfTI pair files", "fslchfiletype NIFTI_GZ x.hdr")),
        (("x.png", "y.png", "z.jpg"), b"", ("3 picture files", "Slices made by hand")),
        (("x.zip",), b"", ("1 archive file;", "unpack")),
        (("a.mgz", "b.mgz", "c.nrrd"), b"", ("2 MGH/MGZ files, 1 NRRD file;", "mri_convert a.mgz")),
        (("notes.txt",), b"", ("no .nii or .nii.gz file found",)),
        (("deep/x.nii", "deeper/y/z.nii.gz"), b"", ("2 in subfolders such as deep;", "single folder")),
    ],
)
def test_a_folder_of_another_format(
    tmp_path: Path, names: tuple[str, ...], content: bytes, words: tuple[str, ...]
) -> None:
    for name in names:
        put(tmp_path / "IN" / name, content)
    said = refused(tmp_path, tmp_path / "IN")
    for word in words:
        assert word.format(folder=tmp_path / "IN") in said, said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.mgz", "is an MGH/MGZ file, not NIfTI; convert each with FreeSurfer: mri_convert x.mgz"),
        ("x.h5", "is an HDF5 file, not NIfTI"),
        ("x.nrrd", "is an NRRD file, not NIfTI"),
        ("x.txt", "no .nii or .nii.gz file"),
    ],
)
def test_a_file_of_another_format(tmp_path: Path, name: str, words: str) -> None:
    assert refused(tmp_path, put(tmp_path / name)).startswith(words)


@pytest.mark.parametrize("kind", CONTENT)
def test_content_tells_the_format(tmp_path: Path, kind: str) -> None:
    found = format_of_content(put(tmp_path / "x", CONTENT[kind]))
    assert found is not None and found.name == kind


@pytest.mark.parametrize(
    ("names", "content", "words"),
    [
        (("IM1.dcm", "IM2.DCM"), b"", "2 DICOM files; convert them: dcm2niix -z y -o NIFTI {folder}"),
        (("IM_0001", "IM_0002"), DICOM, "2 DICOM files; convert them: dcm2niix"),
        (("DICOMDIR", "a/b/c/IM_1"), DICOM, "2 DICOM files; convert them: dcm2niix"),
        (("x.IMA", "y.mgz"), b"", "1 DICOM file, 1 MGH/MGZ file; convert them: dcm2niix"),
    ],
)
def test_dicom_is_told_where_it_cannot_be_read(
    tmp_path: Path, names: tuple[str, ...], content: bytes, words: str
) -> None:
    for name in names:
        put(tmp_path / "IN" / name, content)
    good = put(tmp_path / "good" / "g.nii", encoded()).parent
    with pytest.raises(UserError) as refused:
        run("--input_A", good, "--truth_A", tmp_path / "IN", "--out", tmp_path / "D")
    assert words.format(folder=tmp_path / "IN") in str(refused.value)
    assert not (tmp_path / "D").exists() and holds_dicom(tmp_path / "IN")


def test_nifti_is_no_other_format(tmp_path: Path) -> None:
    for name, content in {"x.nii": encoded(), "empty": b"", "text": b"hello"}.items():
        assert format_of_content(put(tmp_path / name, content)) is None
    assert format_of_name(tmp_path / "x.nii.gz") is None
    nibabel.save(nibabel.Nifti1Pair(head(), AFFINE), tmp_path / "p.hdr")
    nibabel.save(nibabel.AnalyzeImage(head().astype(np.int16), AFFINE), tmp_path / "a.hdr")
    for name, kind in {"p.hdr": "NIfTI pair", "p.img": "NIfTI pair", "a.hdr": "Analyze", "a.img": "Analyze"}.items():
        found = format_of_name(tmp_path / name)
        assert found is not None and found.name == kind, name


def test_another_format_under_a_nifti_name_is_told(tmp_path: Path) -> None:
    put(tmp_path / "IN/x.nii", DICOM)
    with pytest.raises(UserError, match=r"x\.nii: is a DICOM file under a NIfTI name; convert them: dcm2niix"):
        run("--input_A", tmp_path / "IN", "--out", tmp_path / "D")
    assert not (tmp_path / "D").exists()


def bids(root: Path) -> Path:
    put(root / "dataset_description.json", b"{}")
    for subject in ("sub-01", "sub-02"):
        for session in ("ses-1", "ses-2"):
            for name in ("anat/{}_T1w.nii.gz", "anat/{}_T2w.nii.gz", "anat/{}_T2w.json", "func/{}_bold.nii.gz"):
                put(root / subject / session / name.format(f"{subject}_{session}"), encoded())
        put(root / subject / "ses-2/anat" / f"{subject}_ses-2_run-2_T2w.nii.gz", encoded())
    return root


@pytest.mark.parametrize(
    ("level", "pattern"),
    [("", "sub-*/ses-*/anat"), ("sub-01", "ses-*/anat"), ("sub-01/ses-1", "anat")],
)
def test_a_bids_tree_is_told_which_level_to_give(tmp_path: Path, level: str, pattern: str) -> None:
    place = bids(tmp_path / "study") / level
    said = refused(tmp_path, place)
    contrast = "T1w" if level == "sub-01/ses-1" else "T2w"
    assert "is a level of a BIDS folder" in said
    assert f"cp {place}/{pattern}/*_{contrast}.nii* FLAT" in said
    assert list(place.glob(f"{pattern}/*_{contrast}.nii*")), "the command finds files"


def test_the_anatomical_folder_of_a_bids_tree_can_be_sliced(tmp_path: Path) -> None:
    assert run("--input_A", bids(tmp_path / "study") / "sub-01/ses-1/anat", "--out", tmp_path / "D") == 0


def test_a_bids_tree_without_images(tmp_path: Path) -> None:
    put(tmp_path / "study/dataset_description.json", b"{}")
    assert "without .nii or .nii.gz files" in refused(tmp_path, tmp_path / "study")


@pytest.mark.parametrize("check", [(), ("--check_data",)])
def test_what_is_ignored_beside_volumes_is_counted_by_kind(
    tmp_path: Path, check: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "IN"
    for name in ("a.mgz", "b.nrrd", "c.mgz", "d.json", "e.JSON", "f.json", ".hidden", "README", "sub/x.nii"):
        put(folder / name)
    put(folder / "good.nii", encoded())
    assert run("--input_A", folder, "--out", tmp_path / "D", *check) == 0
    counted = "2 MGH/MGZ files, 3 .json files, 1 NRRD file, 1 file without suffix, 1 folder"
    (said,) = [line for line in capsys.readouterr().out.splitlines() if ": ignored " in line]
    words = said.removeprefix(f"note: --input_A {folder}: ignored ").removesuffix("; only .nii and .nii.gz are read")
    assert sorted(words.split(", ")) == sorted(counted.split(", "))


def test_nothing_is_said_of_a_folder_of_volumes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "IN/a.nii", encoded())
    put(tmp_path / "IN/b.nii", encoded())
    put(tmp_path / "IN/c.nii", encoded())
    assert run("--input_A", tmp_path / "IN", "--out", tmp_path / "D") == 0
    assert capsys.readouterr().out.count("note") == 1  # of the grid
