"""Age: drawn to fit the head, it changes contrast and gives hyperintensities to the old."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simulation.ageing import ONSET, aged, draw_age, hyperintensities_of_age, ventricles_ml
from simulation.anatomy import LABELS, Anatomy, by_voxel, load_anatomy
from simulation.benchmark import Benchmark, plan_scans, write_benchmark, write_scan
from simulation.presets import HIGH_T1W, find_preset
from simulation.tissue import draw_jitter, tissues_at

SMALL = Benchmark(find_preset("same-contrast"), n_train=1, n_val=0, n_test=1, seed=5, bits=16, matrix=48)


@pytest.fixture(scope="module")
def coarse() -> Anatomy:
    """The embedded head at 2 mm: quick."""
    embedded = load_anatomy()
    even = embedded.fractions[:, :180, :216, :180].reshape(-1, 90, 2, 108, 2, 90, 2)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = embedded.affine[:3, 3] + 0.5
    return Anatomy(by_voxel(even.mean((2, 4, 6))), affine, embedded.tissues)


def test_large_ventricles_make_old_subjects(coarse: Anatomy) -> None:
    volume = ventricles_ml(coarse)
    assert volume is not None and 15 < volume < 35
    ages = [draw_age(np.random.default_rng(seed), coarse) for seed in range(200)]
    assert 40 < np.mean(ages) < 65 and 6 < np.std(ages) < 14 and 20 <= min(ages) <= max(ages) <= 80
    assert ages[3] == draw_age(np.random.default_rng(3), coarse)
    solid = coarse.changed(
        coarse.fractions * np.array([name != "csf" for name in coarse.tissues], np.float32)[:, None, None, None]
    )
    assert ventricles_ml(solid) is None and 20 <= draw_age(np.random.default_rng(0), solid) <= 80
    assert hyperintensities_of_age(np.random.default_rng(0), solid, 80.0) == ()


def test_contrast_of_grey_and_white_matter_falls_with_age() -> None:
    jitter = draw_jitter(np.random.default_rng(0))
    before = json.dumps(jitter)
    contrast = []
    for age in (20.0, 50.0, 80.0):
        signal = {name: HIGH_T1W.sequence.signal(t)[0] for name, t in tissues_at(3.0, aged(jitter, age)).items()}
        contrast.append(1 - signal["gm"] / signal["wm"])
    assert contrast[0] > contrast[1] > contrast[2] > 0.6 * contrast[0]
    assert aged(jitter, 50.0) == jitter and json.dumps(jitter) == before


def test_hyperintensities_grow_with_age(coarse: Anatomy) -> None:
    def load(age: float) -> float:
        drawn = [hyperintensities_of_age(np.random.default_rng(seed), coarse, age) for seed in range(12)]
        return float(np.median([sum(lesion.shape.ml for lesion in lesions) for lesions in drawn]))

    assert load(ONSET - 1) == 0 < load(50.0) < load(65.0) < load(80.0)
    assert 0.2 < load(50.0) < 1 and 2 < load(80.0) < 8, "ml"


def test_age_reaches_the_scans_but_makes_no_folder_of_masks(tmp_path: Path) -> None:
    jobs = plan_scans(tmp_path, replace(SMALL, age=80.0))
    labels = {}
    for job in jobs[2:]:
        _, drawn = write_scan(job)
        assert drawn["age"] == 80.0 and "wmh" in drawn["tissues"]
        planes = [np.asarray(Image.open(path)) for path in (tmp_path / f"test{job.domain}_labels").iterdir()]
        labels[job.domain] = sum(int((plane == LABELS["wmh"]).sum()) for plane in planes)
    assert min(labels.values()) > 0, "both fields show them"
    assert not list(tmp_path.glob("*_lesions"))


def test_masks_are_written_where_lesions_were_asked_for(tmp_path: Path) -> None:
    write_benchmark(tmp_path, replace(SMALL, age=20.0, lesions="wmh", n_lesions=40), workers=1)
    assert sorted(path.name for path in tmp_path.glob("*_lesions")) == ["testA_lesions", "testB_lesions"]
    ages = {scan["age"] for scan in json.loads((tmp_path / "simulation.json").read_text())}
    assert ages == {20.0}
