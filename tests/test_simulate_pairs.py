"""Pairs of many protocols: scripts/simulate_pairs.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.aligned_dataset import AlignedDataset
from data.cache.slice_cache import SliceCache
from data.folder.manifest import read_manifest, read_placements
from data.folder.slices import read_image, read_mask
from data.scale import scales
from data.unaligned_options import UnalignedOptions
from scripts import simulate_pairs
from scripts.simulate_pairs import CONTRASTS, PEOPLE, PairJob, draw_preset, on_square, parts_of
from simulation.people import ROLES
from util.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects to train on, of two contrasts, and one for validation, small."""
    out = tmp_path_factory.mktemp("pairs") / "data"
    arguments = ["--out", str(out), "--n_train", "2", "--n_val", "1", "--matrix", "64", "--workers", "1"]
    assert simulate_pairs.main(arguments) == 0
    return out


def test_every_slice_has_its_truth_and_masks(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None and len(manifest.volumes) == 3
    for volume in manifest.volumes:
        for entry in volume.slices:
            place = folder / f"{volume.split}A"
            image, truth = read_image(place / entry.file), read_image(Path(f"{place}_truth") / entry.file)
            mask, true_mask = (read_mask(Path(f"{place}{kind}") / entry.file) for kind in ("_mask", "_truth_mask"))
            assert image.shape == truth.shape == mask.shape == (64, 64)
            if true_mask.sum() > 200:  # where there is more than the crown
                overlap = 2 * (mask & true_mask).sum() / (mask.sum() + true_mask.sum())
                assert overlap > 0.8
                assert np.corrcoef(image[true_mask], truth[true_mask])[0, 1] > 0.2


def test_dataset_and_manifest_agree_on_the_grid(folder: Path, tmp_path: Path) -> None:
    dataset = AlignedDataset(SliceCache(folder, tmp_path), UnalignedOptions(load_size=64, preprocess="resize"))
    manifest = read_manifest(folder)
    assert manifest is not None
    assert len(dataset.A) == len(dataset.B) == sum(len(v.slices) for v in manifest.volumes if v.split == "train")
    scale = scales(read_placements(folder), "train")["A"]
    assert (scale.slice_axis, scale.fov_mm, scale.pixel_mm) == (2, 240.0, 3.75)


def test_what_is_drawn_is_told(folder: Path) -> None:
    drawn = json.loads((folder / "simulation.json").read_text())
    assert {row["split"] for row in drawn} == {"train", "val"}
    for row in drawn:
        assert 0.05 <= row["b0_t"] <= 0.1 and 0.84 < row["zoom"] < 1.16
        assert "distortion" not in row["faults"]
    assert [row["protocol"] for row in drawn] == ["low-T2w", "low-T1w", "low-T2w"]


def test_no_person_of_the_test_is_trained_on() -> None:
    assert not {*PEOPLE["train"], *PEOPLE["val"]} & set(ROLES["test"])
    assert not set(PEOPLE["train"]) & set(PEOPLE["val"])


def test_every_person_has_every_contrast() -> None:
    people = PEOPLE["train"]
    jobs = [PairJob(Path("x"), 64, 0, "train", number) for number in range(3 * len(people))]
    assert {(job.person, job.contrast) for job in jobs} == {(p, c) for p in people for c in CONTRASTS}
    assert sorted(job.subject for part in parts_of(jobs) for job in part) == [job.subject for job in jobs]
    assert all(len({job.person for job in part}) == 1 for part in parts_of(jobs))


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_voxels_are_not_enlarged_and_both_fields_show_the_same_slices(contrast: str) -> None:
    for seed in range(20):
        for pixel in (240 / 220, 240 / 164):
            preset = draw_preset(np.random.default_rng(seed), contrast, pixel)
            assert preset.on_grid(pixel) == preset
            assert preset.low.thickness_mm == preset.high.thickness_mm
            assert preset.low.resolution_mm >= preset.high.resolution_mm >= pixel - 1e-9


def test_the_middle_stays_in_the_middle() -> None:
    volume = np.zeros((6, 6, 2))
    volume[2:4, 2:4] = 1
    for side in (4, 10):
        made = on_square(volume, side)
        assert made.shape == (side, side, 2) and made.sum() == volume.sum()
        assert made[side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1].all()


@pytest.mark.parametrize("wrong", [("--matrix", "65"), ("--matrix", "9"), ("--n_train", "0"), ("--seed", "-1")])
def test_wrong_numbers_are_refused(tmp_path: Path, wrong: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=wrong[0]):
        simulate_pairs.main(["--out", str(tmp_path / "out"), *wrong])
    assert not (tmp_path / "out").exists()
