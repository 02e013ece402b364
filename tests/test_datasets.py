"""Slice folders, sampling and transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data import sampling
from data.check import find_problems, settle
from data.registry import DATASETS
from data.slice_folder import SliceFolder
from data.slices import write_image, write_mask
from data.transforms import TrainTransform, to_native, to_network
from data.unaligned_dataset import UnalignedMaskDataset, UnalignedOptions, collate
from util.errors import UserError

RNG = np.random.default_rng(0)


def dataset(root: Path, mode: str = "unaligned_mask", seed: int = 0, **options: object) -> UnalignedMaskDataset:
    return DATASETS[mode](root, UnalignedOptions(**{"load_size": 32, **options}), seed=seed)


def test_positions_from_file_names(phantom: Path) -> None:
    folder = SliceFolder(phantom, "train", "A")
    assert len(folder) == 12
    assert folder.index.tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert folder.p[:6] == pytest.approx((np.arange(6) + 0.5) / 6)
    assert folder.level_mm is None


def test_slices_are_decoded_once_while_memory_lasts(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SliceFolder(phantom, "train", "A")
    image, mask = folder.image(0), folder.mask(0)
    monkeypatch.setattr("data.slice_folder.KEEP_BYTES", image.nbytes + mask.nbytes // 2)
    small = SliceFolder(phantom, "train", "A")
    assert small.image(0) is small.image(0)
    assert small.mask(0) is not small.mask(0)  # no room left
    assert small.image(1) is not small.image(1)
    for path in (phantom / "trainA" / folder.files[0].name, phantom / "trainA_mask" / folder.files[0].name):
        path.unlink()
    assert folder.image(0) is image
    assert folder.mask(0) is mask


def test_older_layout_is_recognised(phantom: Path) -> None:
    (phantom / "trainA").rename(phantom / "train_A")
    (phantom / "trainA_mask").rename(phantom / "train_maskA")
    folder = SliceFolder(phantom, "train", "A")
    assert len(folder) == 12
    assert folder.mask_folder == phantom / "train_maskA"


def test_masks_are_computed_where_there_are_none(phantom: Path) -> None:
    given = SliceFolder(phantom, "train", "B").mask(3)
    for path in (phantom / "trainB_mask").iterdir():
        path.unlink()
    (phantom / "trainB_mask").rmdir()
    computed = SliceFolder(phantom, "train", "B").mask(3)
    assert (given & computed).sum() > 0.8 * (given | computed).sum()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "trainA_mask" / "trainA0_002.png").unlink(), "trainA0_002.png: no mask"),
        (lambda root: (root / "trainA" / "trainA0_002.png").unlink(), "a mask without image"),
        (lambda root: (root / "trainA" / "trainA0_002.png").write_bytes(b"no picture"), "cannot be read"),
        (lambda root: write_mask(root / "trainA_mask" / "trainA1_001.png", np.ones((8, 9), bool)), "8x9 pixels"),
    ],
)
def test_bad_files_are_named(phantom: Path, spoil, message: str) -> None:
    spoil(phantom)
    with pytest.raises(UserError, match=message):
        settle(find_problems(dataset(phantom).folders), [], table_in=phantom, skip_bad=False)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        SliceFolder(tmp_path / "nowhere", "train", "A")
    with pytest.raises(UserError, match="no folder trainA"):
        SliceFolder(tmp_path, "train", "A")
    (tmp_path / "trainA").mkdir()
    with pytest.raises(UserError, match="no slices"):
        SliceFolder(tmp_path, "train", "A")


def test_an_epoch_shows_every_slice_of_the_smaller_domain_and_partners_of_its_level(phantom: Path) -> None:
    data = dataset(phantom, level_tolerance=0.1)
    draws = [draw for batch in data.batches("gan", "shuffled", 0, 4) for draw in batch]
    assert len(draws) == 14  # the larger domain's count
    assert {draw.a for draw in draws} == set(range(12))
    assert all(abs(draw.p_a - draw.p_b) <= 0.1 + 1e-6 for draw in draws)


def test_draws_depend_on_seed_stage_and_epoch_alone(phantom: Path) -> None:
    data = dataset(phantom)
    reference = data.batches("gan", "shuffled", 3, 4)
    assert dataset(phantom).batches("gan", "shuffled", 3, 4) == reference
    assert data.batches("gan", "shuffled", 4, 4) != reference
    assert data.batches("lsc", "shuffled", 3, 4) != reference
    assert dataset(phantom, seed=1).batches("gan", "shuffled", 3, 4) != reference


def test_bank_partners_replace_levels(phantom: Path) -> None:
    data = dataset(phantom)
    table = np.stack([np.full(12, 5), np.full(12, 9)], 1)
    data.set_partners(table)
    assert {draw.b for batch in data.batches("gan", "shuffled", 0, 4) for draw in batch} == {5, 9}


def test_level_batches_hold_distinct_levels_from_the_same_place(phantom: Path) -> None:
    data = dataset(phantom, level_crop=0.0, level_tolerance=0.1)
    for batch in data.batches("sgp", "levels", 0, 4):
        levels = [draw.p_a for draw in batch]
        assert levels == sorted(levels)
        assert len(set(levels)) == len(levels)
        assert all(abs(draw.p_a - draw.p_b) <= 0.1 + 1e-6 for draw in batch)


def test_level_crop_counts_levels_anew() -> None:
    p = ((np.arange(40) + 0.5) / 40).astype(np.float32)
    draws = sampling.level_epoch(
        p,
        p,
        np.zeros(40, int),
        np.zeros(40, int),
        batch_size=4,
        rng=np.random.default_rng(0),
        tolerance=0.03,
        crop=0.25,
    )
    shifts = [draw.p_a - p[draw.a] for draw in draws]
    assert max(map(abs, shifts)) > 0.02
    assert all(0 <= draw.p_a <= 1 and 0 <= draw.p_b <= 1 for draw in draws)


def test_near_level_against_brute_force() -> None:
    levels, wanted = RNG.random(50).astype(np.float32), RNG.random(200).astype(np.float32)
    chosen = sampling.near_level(levels, wanted, 0.02, np.random.default_rng(1))
    for position, level in zip(chosen, wanted, strict=True):
        distance = np.abs(levels - level)
        assert distance[position] <= max(0.02 + 1e-6, distance.min() + 1e-6)
    lone = sampling.near_level(np.array([0.5], np.float32), wanted, 0.02, np.random.default_rng(1))
    assert (lone == 0).all()


def test_items_have_the_documented_shape_and_range(phantom: Path) -> None:
    data = dataset(phantom)
    batch = collate([data[draw] for draw in data.batches("gan", "shuffled", 0, 4)[0]])
    assert batch.A.shape == batch.mask_B.shape == (4, 1, 32, 32)
    assert batch.A.dtype == batch.mask_A.dtype == torch.float32
    assert (batch.A[batch.mask_A == 0] == -1).all()
    assert set(batch.mask_A.unique().tolist()) == {0.0, 1.0}
    assert dataset(phantom, mode="unaligned")[data.batches("gan", "shuffled", 0, 4)[0][0]].mask_A.min() == 1


@pytest.mark.parametrize("preprocess", ["resize", "crop", "resize_and_crop", "none"])
def test_image_and_mask_move_together_and_the_key_decides(preprocess: str) -> None:
    mask = np.zeros((30, 40), bool)
    mask[5:20, 8:25] = True
    transform = TrainTransform(preprocess=preprocess, load_size=48, crop_size=24, flip=True)
    results = [transform(mask.astype(np.float32), mask, key) for key in (1, 1, 2, 3, 4, 5)]
    size = {"resize": (48, 48), "none": (30, 40)}.get(preprocess, (24, 24))
    for image, seen in results:
        assert image.shape == seen.shape == (1, *size)
        assert ((image > 0) == (seen > 0)).float().mean() > 0.97  # edges are blurred by resizing
    assert torch.equal(results[0][0], results[1][0])
    assert any(not torch.equal(results[0][0], other) for other, _ in results[2:])


def test_random_transforms_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    TrainTransform(preprocess="crop", load_size=8, crop_size=8, flip=True)(
        np.ones((9, 9), np.float32), np.ones((9, 9), bool), 3
    )
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("preprocess", ["resize", "crop", "none"])
def test_there_and_back(preprocess: str) -> None:
    y, x = np.mgrid[0 : np.pi : 50j, 0 : np.pi : 44j]
    image, mask = (0.5 + 0.4 * np.sin(x) * np.cos(y)).astype(np.float32), np.ones((50, 44), bool)
    tensor, _ = to_network(image, mask, preprocess=preprocess, load_size=64, multiple=16)
    assert tensor.shape == ((1, 64, 64) if preprocess == "resize" else (1, 64, 48))
    back = to_native(tensor, (50, 44), preprocess=preprocess)
    assert back.shape == (50, 44)
    assert np.abs(back - image).max() < (0.02 if preprocess == "resize" else 1e-6)


def test_sixteen_bits_survive_loading(tmp_path: Path) -> None:
    image = RNG.random((12, 12)).astype(np.float32)
    (tmp_path / "trainA").mkdir()
    write_image(tmp_path / "trainA" / "s_000.png", image, 16)
    assert np.abs(SliceFolder(tmp_path, "train", "A").image(0) - image).max() < 1e-5
