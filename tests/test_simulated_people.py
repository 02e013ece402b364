"""Who is simulated in which split, and what part of their heads the coverage task shows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from data.folder.manifest import read_manifest
from options.preprocess_options import parse
from simulation.anatomy import load_anatomy
from simulation.benchmark import FIRST_SUBJECT, Benchmark, by_person, notes_on, plan_scans, write_benchmark
from simulation.deformation import draw_shape
from simulation.extent import UPPER_IN_HALF, WHOLE
from simulation.geometry import draw_geometry, head_extent_mm
from simulation.heads import PEOPLE
from simulation.people import ROLES, chosen_people
from simulation.presets import find_preset
from simulation.subject import simulate_scan, upper_only
from tests.running import run
from util.errors import UserError

SMALL = Benchmark(find_preset("coverage"), n_train=2, n_val=1, n_test=1, seed=5, bits=16, matrix=32)


def people_of(benchmark: Benchmark) -> dict[str, set[str]]:
    """The people of training A, training B, validation and test."""
    found: dict[str, set[str]] = {}
    for job in plan_scans(Path("x"), benchmark):
        assert job.person is not None
        found.setdefault(job.split + (job.domain if job.split == "train" else ""), set()).add(job.person)
    return found


def test_seventeen_people_are_in_one_split_each() -> None:
    everybody = [person for people in ROLES.values() for person in people]
    assert len(everybody) == len(set(everybody)) == 17 and set(everybody) == set(PEOPLE)
    assert {group: len(people) for group, people in ROLES.items()} == {"trainA": 6, "trainB": 5, "val": 2, "test": 4}
    assert "colin27" in ROLES["trainA"]


def test_no_person_is_in_two_splits_whatever_the_options() -> None:
    pools = (None, "head_03,colin27,head_09,head_02", "trainA=head_09,trainB=head_14,val=colin27,test=head_03,head_10")
    for n_train, n_val, n_test, seed, pool in product((1, 7, 40), (0, 1, 5), (0, 1, 13), (0, 1), pools):
        chosen = replace(
            SMALL, n_train=n_train, n_val=n_val, n_test=n_test, seed=seed, people=chosen_people(pool), matrix=224
        )
        people = people_of(chosen)
        assert sum(map(len, people.values())) == len(set.union(*people.values()))
        assert set(people) == {"trainA", "trainB", *(["val"] if n_val else []), *(["test"] if n_test else [])}
        if pool is None:
            assert all(people[group] <= set(ROLES[group]) for group in people)
            assert len(people["trainA"]) == min(6, n_train) and len(people.get("test", ())) == min(4, n_test)


def test_subjects_are_shared_out_in_turn_and_numbers_leave_other_splits_alone() -> None:
    few, many = (replace(SMALL, n_train=n, n_test=12, matrix=224) for n in (2, 24))
    of_test = [
        [(job.subject, job.person) for job in plan_scans(Path("x"), chosen) if job.split == "test"]
        for chosen in (few, many)
    ]
    assert of_test[0] == of_test[1]
    assert Counter(person for _, person in of_test[0]) == dict.fromkeys(ROLES["test"], 6), "three warps in two fields"
    assert of_test[0][0] == (FIRST_SUBJECT["test"], "head_09")


def test_scans_of_a_person_come_together_and_every_scan_once() -> None:
    jobs = plan_scans(Path("x"), replace(SMALL, n_train=60, n_val=2, n_test=12, matrix=224))
    parts = by_person(jobs)
    assert sorted(index for part in parts for index in part) == list(range(len(jobs)))
    assert all(len({jobs[index].person for index in part}) == 1 and len(part) <= 8 for part in parts)
    assert len(parts) < len(jobs) / 4


def test_people_by_option() -> None:
    def chosen(*options: str) -> dict[str, tuple[str, ...]]:
        argv = ["--simulate", "--out", "x", *(["--people", ",".join(options)] if options else [])]
        return dict(parse(argv).benchmark.chosen_people)

    assert chosen() == dict(ROLES)
    assert chosen("head_13", "head_03") == {"trainA": ("head_13",), "trainB": ("head_03",), "val": (), "test": ()}
    moved = chosen("trainA=head_09", "trainB=colin27", "test=head_03", "head_14")
    assert moved == {"trainA": ("head_09",), "trainB": ("colin27",), "val": (), "test": ("head_03", "head_14")}


@pytest.mark.parametrize(
    "people, says",
    [
        ("head_17", "--people head_17: unknown person, choose from colin27, head_01,"),
        ("", "--people : unknown person"),
        ("head_01,", "unknown person"),
        ("tests=head_01", "--people tests=head_01: unknown split, choose from trainA, trainB, val, test"),
        ("head_01,test=head_01", "head_01 is named twice, but nobody may be in two splits or in A and B"),
        ("trainA=head_01,trainB=head_01", "named twice"),
    ],
)
def test_people_refused(people: str, says: str) -> None:
    with pytest.raises(UserError) as refused:
        chosen_people(people)
    assert says in str(refused.value)


def test_a_split_without_people_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "data"
    done = run("preprocessing_images.py", "--simulate", "--people", "colin27", "--out", out)
    assert done.status == 2 and not out.exists()
    assert done.err.splitlines()[-1].endswith(
        "--people: nobody for trainB, and --n_train 24 asks for subjects there; add head_03 or head_04 or head_01 or "
        "head_15 or head_16, or any other person as trainB=NAME"
    )
    own = run("preprocessing_images.py", "--simulate", "--anatomy", "x.nii", "--people", "colin27", "--out", out)
    assert own.status == 2 and "--people colin27 does nothing beside --anatomy: every subject has that" in own.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coverage")
    write_benchmark(root, SMALL, workers=1)
    return root


def test_manifest_and_drawn_parameters_name_the_person(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    people = {(v.split, v.domain, v.subject): v.person for v in manifest.volumes}
    assert people == {
        ("train", "A", "sim000000"): "colin27",
        ("train", "A", "sim000001"): "head_13",
        ("train", "B", "sim100000"): "head_03",
        ("train", "B", "sim100001"): "head_04",
        ("val", "A", "sim200000"): "head_07",
        ("val", "B", "sim200000"): "head_07",
        ("test", "A", "sim300000"): "head_09",
        ("test", "B", "sim300000"): "head_09",
    }
    drawn = json.loads((folder / "simulation.json").read_text())
    assert {(s["split"], s["domain"], f"sim{s['subject']:06d}"): s["person"] for s in drawn} == people
    assert manifest.settings["people"] == {
        "trainA": ["colin27", "head_13"], "trainB": ["head_03", "head_04"], "val": ["head_07"], "test": ["head_09"],
    }  # fmt: skip


def test_resolution_and_noise_are_recorded_and_told(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    drawn = json.loads((folder / "simulation.json").read_text())
    windows = {(v.subject, v.domain): v.window[1] - v.window[0] for v in manifest.volumes}
    acquired = manifest.settings["acquired"]
    assert acquired["A"]["voxel_mm"] == [12.0, 12.0, 5.0] and acquired["B"]["voxel_mm"] == [7.5, 7.5, 5.0]
    assert acquired["A"]["snr_wm"] == pytest.approx(82.5) and acquired["B"]["gap_mm"] == 1.5
    for scan in drawn:
        assert scan["voxel_mm"] == acquired[scan["domain"]]["voxel_mm"]
        width = windows[f"sim{scan['subject']:06d}", scan["domain"]]
        assert scan["noise"] == pytest.approx(scan["sigma"] / width)
    for domain in "AB":
        levels = [scan["noise"] for scan in drawn if scan["domain"] == domain]
        assert acquired[domain]["noise"] == pytest.approx(np.mean(levels))
    told = list(notes_on(SMALL, manifest))
    assert told[0].startswith("A: 0.064T-T2w, voxels of 12.00 x 12.00 x 5 mm, 1.60 x 1.60 pixels; white matter's SNR 8")
    assert "gaps of 1.5 mm; white matter's SNR 300; noise 0.0" in told[1]
    assert told[2].startswith("pixels of 7.50 mm (--matrix 32) are larger") and len(told) == 3


def test_one_head_of_ones_own_is_said_to_be_one_person(folder: Path) -> None:
    own = replace(SMALL, anatomy="some/where/mine.nii.gz")
    assert {job.person for job in plan_scans(Path("x"), own)} == {None}
    manifest = read_manifest(folder)
    assert manifest is not None
    assert list(notes_on(own, manifest))[-1] == (
        "--anatomy mine.nii.gz: every subject is a warp of this one head, so training and test share the person, and "
        "measures say nothing about other people"
    )
    assert own.recorded()["people"] is None and own.recorded()["anatomy"] == "some/where/mine.nii.gz"


# --- the coverage task -------------------------------------------------------------------------------------------


def test_coverage_leaves_nothing_of_a_out_and_the_lower_part_in_half_of_b() -> None:
    anatomy = load_anatomy()
    for seed, limited in product(range(5), (False, True)):
        rng = np.random.default_rng(seed)
        shape = draw_shape(rng)
        geometry = draw_geometry(
            rng, anatomy, shape, matrix=32, thickness_mm=5.0, gap_mm=1.5, coverage=UPPER_IN_HALF, upper_only=limited
        )
        low, high = head_extent_mm(anatomy, shape, geometry.pose)
        slack = 6.5 / (high - low)
        assert (high - geometry.z_mm[-1]) / (high - low) <= slack, "up to the crown"
        covered = (high - geometry.z_mm[0]) / (high - low)
        assert (0.55 - slack <= covered <= 0.75) if limited else covered >= 1 - slack
    assert WHOLE.left_out(upper_only=True) == ((0, 0), (0, 0))


def test_exactly_half_of_the_subjects_are_scanned_in_the_upper_part() -> None:
    for seed, first in product((0, 1, 7), FIRST_SUBJECT.values()):
        limited = [upper_only(seed, first + number) for number in range(24)]
        assert sum(limited) == 12 and all(sum(limited[i : i + 2]) == 1 for i in range(0, 24, 2))
        assert limited[::2].count(True) not in (0, 12), "whose turn it is differs from pair to pair"


def test_fields_of_the_coverage_task_differ_in_extent_and_spacing() -> None:
    preset = find_preset("coverage")
    number = next(n for n in range(8) if upper_only(0, n))
    low, high, whole = (
        simulate_scan(preset, 0, n, domain, matrix=32, with_truth=domain == "A")
        for n, domain in ((number, "A"), (number, "B"), (number + 1, "B"))
    )
    if upper_only(0, number + 1):
        whole = simulate_scan(preset, 0, number - 1, "B", matrix=32, with_truth=False)
    assert low.affine[2, 2] == 5 and high.affine[2, 2] == whole.affine[2, 2] == 6.5
    assert np.ptp(low.level_mm) > 1.25 * np.ptp(high.level_mm) and np.ptp(whole.level_mm) > 1.25 * np.ptp(high.level_mm)
    assert high.level_mm[-1] == pytest.approx(low.level_mm[-1], abs=10), "both reach the crown"
    assert low.truth is not None and low.truth.shape == low.image.shape and low.truth[:, :, 3:-3].max(axis=(0, 1)).all()
