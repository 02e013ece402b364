"""One person belongs to one split, whatever the person's volumes are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from nifti_bytes import SHAPE, encoded

import preprocessing_images
from data.cache.slice_cache import SliceCache
from data.folder.check import check_data, subjects_in_two_splits
from data.folder.manifest import MANIFEST_NAME, read_manifest
from data.folder.people import joined_people, people_of, person_of
from data.folder.slices import write_image
from preprocessing.folder import summary
from preprocessing.geometry import SourceGeometry
from preprocessing.inputs import Source
from preprocessing.volumes import split_people

N_SLICES = SHAPE[2]
GREY = np.full((32, 32), 0.5, dtype=np.float32)


@pytest.mark.parametrize(
    ("names", "person"),
    [
        (
            ("sub-04_T1w", "sub-04_T2w", "sub-04_ses-02_acq-x_run-1_FLAIR", "sub-04", "sub-04_64mT", "sub-04_x y"),
            "sub-04",
        ),
        (("LISA_0001_LF_axi", "LISA_0001_LF_cor", "LISA_0001_LF_sag"), "LISA_0001_LF"),
        (("2022061003_T101", "2022061003_T102", "2022061003_T201", "2022061003_FLAIR01"), "2022061003"),
        (("IXI002-Guys-0828-T1", "IXI002-Guys-0828-T2", "IXI002-Guys-0828-PD"), "IXI002-Guys-0828"),
        (("a_3T", "a_64mT", "a_0.3T", "a_T2w_ax_run-2", "a.sagittal", "a_echo1", "a_Flair", "a_acq-fast_T1w"), "a"),
        (("T1w", "T1w_axi"), "T1w"),
        (("_T2",), "_T2"),
        (("sub-x-1",), "sub-x-1"),
        (("case_T3",), "case_T3"),
        (("smax",), "smax"),
        (("img_001",), "img_001"),
        (("sim000001",), "sim000001"),
    ],
)
def test_person_of_a_name(names: tuple[str, ...], person: str) -> None:
    assert {name: person_of(name) for name in names} == dict.fromkeys(names, person)


def test_people_differ_by_more_than_case() -> None:
    people = people_of(["Sub-04_T1w", "sub-04_T2w", "sub-05_T1w"])
    assert people["Sub-04_T1w"] == people["sub-04_T2w"] != people["sub-05_T1w"]


def test_what_was_joined_is_one_sentence_with_the_names() -> None:
    assert joined_people(people_of(["a", "b"])) == ""
    said = joined_people(people_of([f"p{i}_{plane}" for i in range(8) for plane in ("axi", "sag")]))
    assert "p0 (p0_axi, p0_sag); p1 (p1_axi, p1_sag)" in said and said.endswith("p4 (p4_axi, p4_sag) and 3 more")


@pytest.mark.parametrize("seed", range(20))
def test_volumes_of_one_person_are_never_torn_apart(seed: int) -> None:
    names = {
        "A": [f"sub-{i:02d}_{scan}" for i in range(6) for scan in ("T1w", "T2w", "ses-2_T1w")],
        "B": [
            *(f"sub-{i:02d}_3T" for i in range(3, 9)),
            *(f"q{i}_{plane}" for i in range(3) for plane in ("axi", "sag")),
        ],
    }
    somewhere = SourceGeometry((1, 1, 1), np.eye(4))
    sources = [Source(Path(f"{name}.nii"), name, domain, somewhere) for domain in names for name in names[domain]]
    people, splits, notes = split_people(sources, val_fraction=0.2, test_fraction=0.3, seed=seed)
    assert set(splits) == {*(f"sub-{i:02d}" for i in range(9)), "q0", "q1", "q2"}
    assert notes == []
    assert set(people) == {*names["A"], *names["B"]} and set(people.values()) == set(splits)
    for domain in names:
        assert {splits[people[name]] for name in names[domain]} == {"train", "val", "test"}


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / f"{name}.nii"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded())
    return folder


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (("x",), (), "1 volume of 1 person, so val and test are empty: all goes to train"),
        (("x", "y"), (), "2 volumes of 2 people, so val and test are empty: all go to train"),
        (("x_T1w", "x_T2w"), (), "2 volumes of 1 person, so val and test are empty: all go to train"),
        (("x", "y"), ("--val_fraction", 0), "2 volumes of 2 people, so test is empty: all go to train"),
        (("x", "y"), ("--val_fraction", 0.5), "2 volumes of 2 people, so test is empty: all go to train and val"),
        (("x",), ("--all_test",), ""),
        (("x", "y", "z"), (), ""),
    ],
)
def test_splits_that_stay_empty_are_told(
    tmp_path: Path, names: tuple[str, ...], options: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = put(tmp_path / "IN", *names)
    arguments = ("--input_B", place, "--out", tmp_path / "D", "--workers", 1, *options)
    assert preprocessing_images.main([str(argument) for argument in arguments]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "--input_B" in line]
    assert len(lines) == bool(said)
    assert all(line.startswith(f"note: --input_B: {said}; with 3 people or more") for line in lines)


def test_the_table_counts_volumes_people_and_slices(tmp_path: Path) -> None:
    put(tmp_path / "A", *(f"p{i}_{plane}" for i in range(3) for plane in ("axi", "sag")))
    put(tmp_path / "B", "q")
    places = ("--input_A", str(tmp_path / "A"), "--input_B", str(tmp_path / "B"), "--out", str(tmp_path / "D"))
    assert preprocessing_images.main([*places, "--workers", "1"]) == 0
    manifest = read_manifest(tmp_path / "D")
    assert manifest is not None
    table = summary(tmp_path / "D", manifest)
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert [column.header for column in table.columns] == [
        "split",
        *(f"{what} {domain}" for domain in "AB" for what in ("volumes", "people", "slices")),
    ]
    slices = str(2 * N_SLICES)
    assert rows == [
        ("train", "2", "1", slices, "1", "1", str(N_SLICES)),
        ("val", "2", "1", slices, "0", "0", "0"),
        ("test", "2", "1", slices, "0", "0", "0"),
    ]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A data folder of three people with two volumes each, and one of B's volumes of the first."""
    for name in ("A/sub-1_T1w", "A/sub-1_T2w", "A/sub-2_T1w", "A/sub-2_T2w", "A/x_axi", "A/x_sag", "B/sub-1_FLAIR"):
        path = tmp_path / f"{name}.nii"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded())
    return tmp_path


def sliced(scans: Path) -> Path:
    places = ("--input_A", str(scans / "A"), "--input_B", str(scans / "B"), "--out", str(scans / "D"))
    assert preprocessing_images.main([*places, "--val_fraction", "0", "--workers", "1"]) == 0
    return scans / "D"


def test_the_manifest_knows_the_people_and_the_screen_says_them(
    scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sliced(scans)
    out = capsys.readouterr().out
    assert "sub-1 (sub-1_FLAIR, sub-1_T1w, sub-1_T2w); sub-2 (sub-2_T1w, sub-2_T2w); x (x_axi, x_sag)" in out
    manifest = read_manifest(root)
    assert manifest is not None
    found = {volume.subject: (volume.person, volume.split) for volume in manifest.volumes}
    assert {subject: person for subject, (person, _) in found.items()} == {
        "sub-1_T1w": "sub-1",
        "sub-1_T2w": "sub-1",
        "sub-1_FLAIR": "sub-1",
        "sub-2_T1w": "sub-2",
        "sub-2_T2w": "sub-2",
        "x_axi": "x",
        "x_sag": "x",
    }
    assert len(set(found.values())) == 3, "one split a person"
    assert check_data(root) == []


def edited(root: Path, **fields: dict[str, object]) -> None:
    """Change fields of the manifest's volumes: subject name to value; a value of None removes the field."""
    content = json.loads((root / MANIFEST_NAME).read_text())
    for volume in content["volumes"]:
        for field, values in fields.items():
            if volume["subject"] in values:
                volume[field] = values[volume["subject"]]
                if volume[field] is None:
                    del volume[field]
    (root / MANIFEST_NAME).write_text(json.dumps(content))


def move_to(root: Path, subject: str, split: str) -> None:
    """As an older version might have split: one volume of a person in another split."""
    manifest = read_manifest(root)
    assert manifest is not None
    (volume,) = (volume for volume in manifest.volumes if volume.subject == subject)
    for kind in ("", "_mask"):
        target = root / f"{split}{volume.domain}{kind}"
        target.mkdir(exist_ok=True)
        for entry in volume.slices:
            (root / f"{volume.folder}{kind}" / entry.file).rename(target / entry.file)
    edited(root, split={subject: split})


def test_an_older_manifest_is_read_and_a_person_torn_apart_is_told(scans: Path) -> None:
    root = sliced(scans)
    manifest = read_manifest(root)
    assert manifest is not None
    edited(root, person={volume.subject: None for volume in manifest.volumes})
    assert check_data(root) == []
    trained = next(v.subject for v in manifest.volumes if v.folder == "trainA" and v.subject.endswith(("T2w", "sag")))
    move_to(root, trained, "val")
    reasons = {problem.reason for problem in subjects_in_two_splits(root)}
    (reason,) = reasons
    assert reason.startswith(f"subject '{trained}' is the same person as '") and "in trainA" in reason


def test_the_manifest_can_correct_the_rule(scans: Path, tmp_path: Path) -> None:
    root = sliced(scans)
    manifest = read_manifest(root)
    assert manifest is not None
    trained = next(v.subject for v in manifest.volumes if v.folder == "trainA" and v.subject.endswith(("T2w", "sag")))
    move_to(root, trained, "val")
    cache = SliceCache(root, tmp_path / "cache")
    assert {problem.path.parent.name for problem in cache.shared_subjects()} == {"valA"}
    edited(root, person={trained: "another"})
    assert subjects_in_two_splits(root) == []
    again = SliceCache(root, tmp_path / "cache")
    again.open("train", "A")
    again.open("val", "A")
    assert again.shared_subjects() == []
    tested = next(v.subject for v in manifest.volumes if v.folder == "trainA" and v.subject[:3] != trained[:3])
    move_to(root, tested, "test")
    edited(root, person={trained: "another", tested: "Another"})
    reasons = {problem.reason for problem in SliceCache(root, tmp_path / "cache").shared_subjects()}
    assert reasons == {
        f"subject '{tested}' is the same person as '{trained}' in valA, by its name or the manifest; "
        f"a person belongs to one split"
    }


def test_folders_made_by_hand_follow_the_same_rule(tmp_path: Path) -> None:
    root = tmp_path / "data"
    names = (
        "trainA/sub-04_T1w",
        "trainA/sub-05_T1w",
        "trainB/p_axi",
        "trainB/q_axi",
        "testA/Sub-04_T2w",
        "testB/p_sag",
    )
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        for index in range(2):
            write_image(root / f"{name}_{index:03d}.png", GREY, 8)
    said = "in {}, by its name or the manifest; a person belongs to one split"
    expected = {
        "testA": f"subject 'Sub-04_T2w' is the same person as 'sub-04_T1w' {said.format('trainA')}",
        "testB": f"subject 'p_sag' is the same person as 'p_axi' {said.format('trainB')}",
    }
    for found in (subjects_in_two_splits(root), SliceCache(root, tmp_path / "cache").shared_subjects()):
        assert len(found) == 4 and {problem.path.parent.name: problem.reason for problem in found} == expected
