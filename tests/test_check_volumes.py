"""Volumes of any name, and bad ones among good ones: told all at once, or left out when asked."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from nifti_bytes import encoded, with_nan

import preprocessing_images
from preprocessing.nifti import read_nifti
from util.errors import UserError


def run(*arguments: object) -> int:
    return preprocessing_images.main([str(argument) for argument in (*arguments, "--workers", 1)])


NAMES = [
    "with space",
    "quo'te\"s",
    "ünïcödé",
    "-leading-dash",
    "line\nbreak",
    "\x1b[31mred",
    "<script>alert(1)</script>",
]


def test_any_name_is_sliced_or_refused_in_one_line(tmp_path: Path) -> None:
    names = [name.replace("/", "_") for name in NAMES]
    for name in names:
        path = tmp_path / "A" / f"{name}.nii"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded())
    (tmp_path / "A" / os.fsdecode(b"latin-\xe9.nii")).write_bytes(encoded())
    assert run("--input_A", tmp_path / "A", "--out", tmp_path / "D") == 0
    written = [path.name for path in (tmp_path / "D").rglob("*.png")]
    assert len({name.rsplit("_", 1)[0] for name in written}) == len(names) + 1
    assert all(name.isascii() and name.isprintable() and not set(name) & set(" <>\"'/\\") for name in written)
    sources = {volume["source"] for volume in json.loads((tmp_path / "D/manifest.json").read_text())["volumes"]}
    assert "line\\nbreak.nii" in sources and "latin-\\udce9.nii" in sources


def test_a_bad_file_with_a_line_break_in_its_name_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "two\nlines\x1b[2J.nii"
    bad.write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        run("--input_A", bad, "--out", tmp_path / "D")
    assert str(caught.value).isprintable() and "two\\nlines\\x1b" in str(caught.value)


@pytest.mark.parametrize(("one", "other"), [("Sub_1", "sub_1"), ("a b", "a-b")])
def test_names_that_become_one_are_refused_within_a_domain_and_across(tmp_path: Path, one: str, other: str) -> None:
    for folder, name in (("A", one), ("B", other), ("both", one), ("both", other)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.nii").write_bytes(encoded())
    with pytest.raises(UserError, match="same subject name"):
        run("--input_A", tmp_path / "both", "--out", tmp_path / "D")
    with pytest.raises(UserError, match="same subject name"):
        run("--input_A", tmp_path / "A", "--input_B", tmp_path / "B", "--out", tmp_path / "D")


def test_a_name_too_long_for_its_slices_is_refused_before(tmp_path: Path) -> None:
    (tmp_path / f"{'x' * 240}.nii").write_bytes(encoded())
    with pytest.raises(UserError, match="240 characters, at most 200"):
        run("--input_A", tmp_path, "--out", tmp_path / "D")


def test_links_in_circles_pipes_and_folders_are_told_and_do_not_hang(tmp_path: Path) -> None:
    folder = tmp_path / "A"
    (folder / "folder.nii").mkdir(parents=True)
    (folder / "circle.nii").symlink_to(folder / "circle.nii")
    (folder / "nowhere.nii.gz").symlink_to(folder / "absent")
    (folder / "good.nii").write_bytes(encoded())
    os.mkfifo(folder / "pipe.nii")
    with pytest.raises(UserError, match="4 of 5 files cannot be used") as caught:
        run("--input_A", folder, "--out", tmp_path / "D")
    assert "circle.nii: is not a regular file" in str(caught.value)
    with pytest.raises(UserError, match=r"pipe\.nii: is not a regular file"):
        run("--input_A", folder / "pipe.nii", "--out", tmp_path / "D")
    with pytest.raises(UserError, match=r"circle\.nii"):
        run("--input_A", folder / "circle.nii", "--out", tmp_path / "D")
    with pytest.raises(UserError, match="regular file"):
        read_nifti(folder / "pipe.nii")


def test_nothing_is_written_outside_the_data_folder(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "A"
    place.mkdir(parents=True)
    for name in ("..-..-x", "...", "..x"):
        (place / f"a{name}.nii").write_bytes(encoded())
    (place / "..\\..\\x.nii").write_bytes(encoded())
    before = set(tmp_path.rglob("*"))
    assert run("--input_A", place, "--out", tmp_path / "deep" / "D") == 0
    new = set(tmp_path.rglob("*")) - before
    assert new and all(path.is_relative_to(tmp_path / "deep" / "D") for path in new)


# --check_data and --skip_bad ------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A: two good, one bad header, one bad in its voxels; B: one good."""
    for name, content in {
        "A/a1": encoded(),
        "A/a2": encoded(),
        "A/header": encoded(vox_offset=3),
        "A/voxels": encoded(with_nan()),
        "B/b1": encoded(),
    }.items():
        path = tmp_path / f"{name}.nii"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def table(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def arguments(folder: Path, *more: object) -> list[object]:
    return ["--input_A", folder / "A", "--input_B", folder / "B", "--out", folder / "D", *more]


def test_check_data_lists_everything_and_writes_nothing_else(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments(mixed, "--check_data")) == 2
    out = capsys.readouterr().out
    assert "header.nii: vox_offset 3" in out and "voxels.nii: holds NaN" in out and "2 of 5 files" in out
    assert [path.name for path in (mixed / "D").iterdir()] == ["bad_files.csv"]
    found = table(mixed / "D" / "bad_files.csv")
    assert found.keys() == {"header.nii", "voxels.nii"} and found["voxels.nii"].startswith("holds NaN")
    for name in found:
        (mixed / "A" / name).unlink()
    assert run(*arguments(mixed, "--check_data")) == 0
    assert table(mixed / "D" / "bad_files.csv") == {}
    assert run(*arguments(mixed)) == 0  # the list does not stand in the way of the data
    assert not (mixed / "D" / "bad_files.csv").exists()


def test_skip_bad_goes_on_and_says_so(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments(mixed, "--skip_bad")) == 0
    assert "left out" in capsys.readouterr().err
    content = json.loads((mixed / "D/manifest.json").read_text())
    assert {volume["subject"] for volume in content["volumes"]} == {"a1", "a2", "b1"}
    skipped = {row["source"]: row["reason"] for row in content["settings"]["skipped"]}
    assert skipped == table(mixed / "D/bad_files.csv") and skipped.keys() == {"header.nii", "voxels.nii"}
    assert str(mixed) not in json.dumps(content)


def test_without_skip_bad_it_is_refused_and_nothing_is_left(mixed: Path) -> None:
    with pytest.raises(UserError, match=r"header\.nii: vox_offset 3"):
        run(*arguments(mixed))
    assert not (mixed / "D").exists()
    (mixed / "A/header.nii").unlink()
    with pytest.raises(UserError, match=r"voxels\.nii: holds NaN"):
        run(*arguments(mixed))
    assert not list((mixed / "D").iterdir())


def test_skip_bad_with_nothing_left_is_refused(mixed: Path) -> None:
    (mixed / "B/b1.nii").write_bytes(b"x")
    with pytest.raises(UserError, match=r"--input_B: no usable volumes.*b1\.nii"):
        run(*arguments(mixed, "--skip_bad"))
    (mixed / "B/b1.nii").write_bytes(encoded(with_nan()))
    with pytest.raises(UserError, match=r"--input_B: no usable volumes"):
        run(*arguments(mixed, "--skip_bad"))
    assert not list((mixed / "D").iterdir())


def test_a_bad_truth_takes_its_volume_with_it(mixed: Path) -> None:
    (mixed / "A/header.nii").unlink()
    (mixed / "A/voxels.nii").unlink()
    (mixed / "T").mkdir()
    (mixed / "T/a1.nii").write_bytes(encoded())
    (mixed / "T/a2.nii").write_bytes(encoded(with_nan()))
    assert run(*arguments(mixed, "--truth_A", mixed / "T", "--skip_bad")) == 0
    content = json.loads((mixed / "D/manifest.json").read_text())
    assert {volume["subject"] for volume in content["volumes"]} == {"a1", "b1"}
    assert len(content["settings"]["skipped"]) == 1
