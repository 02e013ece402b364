"""`--check_data` lists all bad files at once, a start refuses them, `--skip_bad` goes on without them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import train_arguments, write_phantom
from hostile_slices import saved
from made_up_heads import N_SLICES, write_heads
from test_testing import make_run, run_test

import test as test_program
import train
from data.cache.packed_slices import PackedSlices
from data.folder.check import check_data, find_problems, refuse_or_exclude, subjects_in_two_splits
from data.folder.manifest import MANIFEST_NAME, read_manifest
from data.folder.slice_folder import SliceFolder
from data.folder.slices import write_image, write_mask
from options.train_options import parse
from training.data import open_data
from util.errors import UserError
from util.problems import BAD_FILES_NAME

GREY = np.full((32, 32), 0.5, dtype=np.float32)


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """Test subjects with truth, training subjects of B, and a manifest."""
    return write_heads(tmp_path / "heads")


def spoil_everything(root: Path) -> dict[str, str]:
    """Damage a phantom in many places; path and the beginning of the reason of every problem to be found."""
    (root / "trainA/trainA0_001.png").write_bytes(b"")
    (root / "trainA_mask/trainA0_002.png").unlink()
    (root / "trainA/trainA0_003.png").unlink()
    write_mask(root / "trainB_mask/trainB1_004.png", np.ones((8, 9), bool))
    (root / "trainB_mask/trainB1_005.png").write_bytes(b"text")
    np.save(root / "valA/valA0_000.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    (root / "valA/VALA1_000.PNG").write_bytes((root / "valA/valA1_000.png").read_bytes())
    (root / "valA/folder.png").mkdir()
    os.mkfifo(root / "valB/pipe_1.png")
    (root / "testA/out_1.png").symlink_to(Path("/etc/hostname"))
    (root / "testA/circle_1.png").symlink_to("circle_1.png")
    write_image(root / "testA/two\nlines_1.png", GREY, 8)
    write_image(root / f"testA/{'ü' * 120}.png", GREY, 8)
    (root / "testA_truth").mkdir()
    for path in (root / "testA").glob("testA?_*.png"):
        shutil.copy(path, root / "testA_truth" / path.name)
    (root / "testA_truth/testA0_000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shutil.copy(root / "testA/testA1_000.png", root / "testA_truth/nobody_000.png")
    write_image(root / "testB/trainA0_009.png", GREY, 8)
    write_mask(root / "testB_mask/trainA0_009.png", GREY > 0)
    return {
        "testA/circle_1.png": "a link that leads",
        "testA/out_1.png": "a link that leads out of the data folder",
        "testA/two\nlines_1.png": "its name holds characters that cannot be printed",
        f"testA/{'ü' * 120}.png": "its name is longer than 240 bytes",
        "testA_truth/nobody_000.png": "a truth without image in ",
        "testA_truth/testA0_000.png": "cannot be read as a PNG, it is truncated",
        "testB/trainA0_009.png": "subject 'trainA0' is in trainA too",
        "trainA/trainA0_001.png": "cannot be read as a PNG, the file is empty",
        "trainA/trainA0_002.png": "no mask trainA0_002.png in ",
        "trainA_mask/trainA0_003.png": "a mask without image in ",
        "trainB_mask/trainB1_004.png": "8x9 pixels, its slice has 32x32",
        "trainB_mask/trainB1_005.png": "cannot be read as a PNG, it is another kind of file",
        "valA/VALA1_000.PNG": "no mask VALA1_000.PNG in ",
        "valA/folder.png": "a folder, pipe or device",
        "valA/valA0_000.npy": "values of type object",
        "valA/valA0_000.png": "its name differs from valA0_000.npy only in suffix",
        "valA/valA1_000.png": "its name differs from VALA1_000.PNG only in suffix",
        "valB/pipe_1.png": "a folder, pipe or device",
    }


def names(slices: PackedSlices) -> list[str]:
    return [slices.name(i) for i in range(len(slices))]


def files_of(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in root.rglob("*")}


def test_all_problems_are_found_at_once_in_a_fixed_order(phantom: Path) -> None:
    assert check_data(phantom) == []
    wanted = spoil_everything(phantom)
    problems = check_data(phantom)
    assert [str(problem.path.relative_to(phantom)) for problem in problems] == list(wanted)
    for problem, reason in zip(problems, wanted.values(), strict=True):
        assert problem.reason.startswith(reason)
    assert check_data(phantom) == problems


@pytest.mark.parametrize("program", [train.main, test_program.main])
def test_the_flag_lists_them_and_writes_nothing_but_the_table(
    phantom: Path, tmp_path: Path, program: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    place = "checkpoints_dir" if program is train.main else "results_dir"
    arguments = [f"--dataroot={phantom}", f"--{place}={tmp_path / 'out'}", "--name=run", "--check_data"]
    assert program(arguments) == 0
    assert capsys.readouterr().out == "no bad files\n" and not (tmp_path / "out").exists()
    wanted, before = spoil_everything(phantom), files_of(phantom)
    assert program(arguments) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(wanted) + 1
    assert lines[2].startswith(f"{phantom}/testA/two\\nlines_1.png: its name holds")
    assert files_of(phantom) == before
    (table,) = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert table.name == BAD_FILES_NAME and lines[-1] == f"{len(wanted)} bad files, listed in {table}"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] + ": " + row["reason"] for row in rows] == lines[:-1]
    shutil.rmtree(phantom)
    write_phantom(phantom)
    assert program(arguments) == 0 and not table.exists()


def test_odd_names_and_contents_are_no_problem(tmp_path: Path) -> None:
    root = tmp_path / "a folder"
    (root / "trainA").mkdir(parents=True)
    (root / "trainA_mask").mkdir()
    for i, name in enumerate(["-rf _1", "a'b\"c_2", "ä 头_3", "$(x);`y`_4", "%s{0}_5", "7", "x", "9" * 40, "=1+1_6"]):
        write_image(root / "trainA" / f"{name}.png", np.full((32, 32), i / 10, dtype=np.float32), 8)
        write_mask(root / "trainA_mask" / f"{name}.png", np.full((32, 32), i % 2 == 0))
    (root / "trainA/._x.png").write_bytes(b"what some systems leave")
    (root / "trainA/notes.txt").write_text("mine")
    assert check_data(root) == []
    folder = SliceFolder(root, "train", "A")
    assert len(folder) == 9 and {"-rf ", "a'b\"c", "ä 头", "subject", "x"} <= set(folder.subjects)


def test_links_within_the_data_and_of_whole_folders_are_followed(phantom: Path, tmp_path: Path) -> None:
    (phantom / "trainA").rename(tmp_path / "elsewhere")
    (phantom / "trainA").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/link_1.png").symlink_to("trainA0_000.png")
    (phantom / "trainB/link_1.png").symlink_to(phantom / "testB/testB0_000.png")
    for domain in "AB":
        write_mask(phantom / f"train{domain}_mask/link_1.png", GREY > 0)
    assert check_data(phantom) == []
    (tmp_path / "linked").symlink_to(phantom)
    assert check_data(tmp_path / "linked") == []


def test_files_and_manifest_must_agree(heads: Path) -> None:
    write_image(heads / "testA/sub-1_090.png", GREY, 8)
    (heads / "testB/sub-2_003.png").unlink()
    problems = {str(problem.path.relative_to(heads)): problem.reason for problem in check_data(heads)}
    assert problems["testA/sub-1_090.png"].startswith(f"not in {heads / MANIFEST_NAME}")
    assert problems["testB/sub-2_003.png"] == f"in {heads / MANIFEST_NAME}, but the file is missing"
    (heads / MANIFEST_NAME).write_text("{")
    problems = {str(problem.path.relative_to(heads)): problem.reason for problem in check_data(heads)}
    assert problems[MANIFEST_NAME].startswith("not JSON")
    assert problems["testB_mask/sub-2_003.png"].startswith("a mask without image")  # files are checked all the same


def test_a_subject_belongs_to_one_split(phantom: Path) -> None:
    for name in ("testA/TRAINB0_004", "valB/trainA1_007", "testB/000", "trainB/000", "trainA/valA0_008"):
        write_image(phantom / f"{name}.png", GREY, 8)
    found = {(str(p.path.relative_to(phantom)), p.reason) for p in subjects_in_two_splits(phantom)}
    said = "is in {} too; a subject belongs to one split"
    assert found == {
        ("testA/TRAINB0_004.png", f"subject 'TRAINB0' {said.format('trainB')}"),
        ("valB/trainA1_007.png", f"subject 'trainA1' {said.format('trainA')}"),
        *((f"valA/valA0_{i:03d}.png", f"subject 'valA0' {said.format('trainA')}") for i in range(6)),
    }


def test_a_name_that_all_slices_share_names_nobody(tmp_path: Path) -> None:
    for folder in ("trainA", "trainB", "testA"):
        (tmp_path / folder).mkdir()
        for index in range(3):
            write_image(tmp_path / folder / f"img_{index:03d}.png", GREY, 8)
    assert subjects_in_two_splits(tmp_path) == []
    write_image(tmp_path / "trainA/other_000.png", GREY, 8)  # now it names one of two
    assert {problem.path.parent.name for problem in subjects_in_two_splits(tmp_path)} == {"testA"}


def test_the_manifest_says_who_a_subject_is(heads: Path) -> None:
    content = json.loads((heads / MANIFEST_NAME).read_text())
    content["volumes"][-1]["subject"] = "sub-2"  # of trainB
    (heads / MANIFEST_NAME).write_text(json.dumps(content))
    found = subjects_in_two_splits(heads)
    assert {problem.path.parent.name for problem in found} == {"testA", "testB"}
    assert len(found) == 2 * N_SLICES and all("'sub-2' is in trainB too" in problem.reason for problem in found)


def test_a_start_refuses_in_one_sentence(phantom: Path, tmp_path: Path) -> None:
    spoil_everything(phantom)
    with pytest.raises(UserError) as caught:
        train.main(train_arguments(phantom, tmp_path / "out", "cycle_gan"))
    table = tmp_path / "out/experiment" / BAD_FILES_NAME
    first = (
        f"12 bad files, the first is {phantom / 'trainA/trainA0_001.png'}: cannot be read as a PNG, the file is empty"
    )
    assert str(caught.value).startswith(f"{first}; all are listed in {table}; ")
    assert "--skip_bad" in str(caught.value)
    assert len(table.read_text().splitlines()) == 1 + 12
    assert list((tmp_path / "out/experiment").iterdir()) == [table]


def test_training_goes_on_without_bad_files(phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil_everything(phantom)
    arguments = [*train_arguments(phantom, tmp_path / "out", "lsc"), "--skip_bad"]
    run_dir = tmp_path / "out/experiment"
    assert not train.main(arguments)
    skipped = json.loads((run_dir / "run.json").read_text())["skipped"]
    with (run_dir / BAD_FILES_NAME).open(newline="") as file:
        assert list(csv.DictReader(file)) == skipped
    assert len(skipped) == 12 and skipped[0]["path"] == f"{phantom}/trainA/trainA0_001.png"
    said = [
        line for line in (run_dir / "log.txt").read_text().splitlines() if "--skip_bad left out 12 bad files" in line
    ]
    assert len(said) == 1 and skipped[0]["path"] in said[0]
    capsys.readouterr()
    train_part, val_part, _ = open_data(parse(arguments))
    assert [train_part.A.name(i) for i in range(3)] == ["trainA0_000.png", "trainA0_004.png", "trainA0_005.png"]
    assert not {"trainB1_004.png", "trainB1_005.png"} & set(names(train_part.B))
    assert val_part is not None and not any(name.startswith("valA0_000") for name in names(val_part.A))


def test_positions_do_not_move_when_slices_are_left_out(phantom: Path) -> None:
    folder = SliceFolder(phantom, "train", "A")
    before = dict(zip(folder.files, folder.p.tolist(), strict=True))
    levels = folder.pixels(7)
    (phantom / "trainA/trainA0_005.png").write_bytes(b"x")
    (phantom / "trainA_mask/trainA1_000.png").write_bytes(b"x")
    refuse_or_exclude(find_problems([SliceFolder(phantom, "train", "A")]), [folder], table_in=phantom, skip_bad=True)
    assert len(folder) == len(folder.subjects) == len(folder.index) == len(before) - 2
    assert dict(zip(folder.files, folder.p.tolist(), strict=True)).items() <= before.items()
    assert folder.pixels(5) is levels and folder.files[5].stem == "trainA1_001"


@pytest.mark.parametrize("domain", ["A", "B"])
def test_a_domain_of_which_nothing_is_left_is_refused(phantom: Path, tmp_path: Path, domain: str) -> None:
    for path in (phantom / f"val{domain}").iterdir():
        path.write_bytes(b"x")
    arguments = train_arguments(phantom, tmp_path / "out", "cycle_gan")
    with pytest.raises(UserError, match=f"val{domain}: no slice can be used"):
        train.main([*arguments, "--skip_bad"])


def test_a_test_goes_on_without_bad_files(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    (heads / "testA/sub-1_002.png").write_bytes(b"")
    (heads / "testA_mask/sub-1_003.png").write_bytes(b"")
    (heads / "testA_truth/sub-2_004.png").write_bytes(b"")
    (heads / "testA_truth_mask/sub-2_005.png").unlink()
    (heads / "testB/sub-3_006.png").write_bytes(b"")
    (heads / "trainB/sub-8_004.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^6 bad files, the first is .*testA/sub-1_002.png: .*test_latest/bad_files.csv"
    ):
        run_test(heads, tmp_path, "cyc")
    folder, metrics = run_test(heads, tmp_path, "cyc", "--skip_bad")
    assert "warning: --skip_bad left out 6 bad files" in capsys.readouterr().err
    assert [Path(row["path"]).relative_to(heads).as_posix() for row in metrics["skipped"]] == [
        "testA/sub-1_002.png",
        "testA/sub-2_005.png",
        "testA_mask/sub-1_003.png",
        "testA_truth/sub-2_004.png",
        "testB/sub-3_006.png",
        "trainB/sub-8_004.png",
    ]
    assert metrics["n_slices"] == 3 * N_SLICES - 4 and metrics["n_subjects"] == 3
    pictures = {path.name for path in (folder / "images").iterdir()}
    assert "sub-2_006_fake_B.png" in pictures and "sub-2_004_fake_B.png" not in pictures
    assert len((folder / BAD_FILES_NAME).read_text().splitlines()) == 1 + 6
    assert "6 bad files were left out" in (folder / "index.html").read_text()


def test_a_clean_test_says_that_nothing_was_left_out(heads: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    folder, metrics = run_test(heads, tmp_path, "cyc", "--skip_bad", "--no_baselines")
    assert metrics["skipped"] == [] and not (folder / BAD_FILES_NAME).exists()


def test_subjects_seen_in_training_are_no_test_subjects(heads: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    manifest = read_manifest(heads)
    assert manifest is not None
    content = json.loads((heads / MANIFEST_NAME).read_text())
    content["volumes"][-1]["subject"] = "sub-2"
    (heads / MANIFEST_NAME).write_text(json.dumps(content))
    with pytest.raises(UserError, match="subject 'sub-2' is in trainB too"):
        run_test(heads, tmp_path, "cyc")
    _, metrics = run_test(heads, tmp_path, "cyc", "--skip_bad", "--no_baselines")
    assert metrics["n_subjects"] == 2 and len(metrics["skipped"]) == 2 * N_SLICES


def test_constant_slices_and_masks_go_through_a_whole_test(tmp_path: Path) -> None:
    """A slice of background alone, one of one value, a mask of nothing and one of everything; and odd names."""
    root = tmp_path / "data"
    for split in ("testA", "testB", "trainB"):
        (root / split).mkdir(parents=True)
        (root / f"{split}_mask").mkdir()
        for i, (value, shown) in enumerate([(0, False), (0.5, True), (0, True), (1, False), (0.7, True)]):
            name = f"-{split} <b>'\"ü_{i}.png"
            write_image(root / split / name, np.full((40, 40), value, dtype=np.float32), 16)
            write_mask(root / f"{split}_mask" / name, np.full((40, 40), shown))
    assert check_data(root) == []
    make_run(tmp_path / "cyc", "cycle_gan")
    folder, metrics = run_test(root, tmp_path, "cyc")
    assert metrics["n_slices"] == 5 and metrics["skipped"] == []
    assert (folder / "images" / "-testA <b>'\"ü_3_fake_B.png").is_file()
    assert "<b>'" not in (folder / "index.html").read_text()


def test_the_table_that_cannot_be_written_is_named(phantom: Path, tmp_path: Path) -> None:
    (phantom / "trainA/trainA0_001.png").write_bytes(b"")
    (tmp_path / "out/experiment/bad_files.csv").mkdir(parents=True)
    with pytest.raises(UserError, match=r"bad_files.csv: cannot be written \(Is a directory"):
        train.main(train_arguments(phantom, tmp_path / "out", "cycle_gan"))
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"--checkpoints_dir .*file/experiment cannot be written \(Not a directory"):
        train.main(train_arguments(phantom, tmp_path / "file", "cycle_gan"))


def test_a_folder_without_slices_is_no_data_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder trainA or any other of slices"):
        check_data(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        check_data(tmp_path / "absent")
    (tmp_path / "trainA").mkdir()
    (problem,) = check_data(tmp_path)
    assert problem.path == tmp_path / "trainA" and problem.reason.startswith("no slices")


def test_sixteen_bit_pictures_of_other_programs_are_slices(tmp_path: Path) -> None:
    (tmp_path / "trainA").mkdir()
    levels = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    (tmp_path / "trainA/s_1.png").write_bytes(saved(tmp_path, "x.png", levels))
    assert check_data(tmp_path) == []
