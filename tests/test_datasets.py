"""Slice folders, sampling and transforms."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from data import sampling
from data.cache.slice_cache import SliceCache
from data.folder.check import find_problems, refuse_or_exclude
from data.folder.slice_folder import SliceFolder
from data.folder.slices import write_image, write_mask
from data.registry import DATASETS
from data.transforms import to_native, to_network
from data.unaligned_dataset import UnalignedMaskDataset
from data.unaligned_options import UnalignedOptions
from util.errors import UserError

RNG = np.random.default_rng(0)


def dataset(root: Path, mode: str = "unaligned_mask", seed: int = 0, **options: object) -> UnalignedMaskDataset:
    cache = SliceCache(root, root.parent / "cache")
    return DATASETS[mode](cache, UnalignedOptions(**{"load_size": 32, **options}), seed=seed)


def test_positions_from_file_names(phantom: Path) -> None:
    folder = SliceFolder(phantom, "train", "A")
    assert len(folder) == 12
    assert folder.index.tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert folder.p[:6] == pytest.approx((np.arange(6) + 0.5) / 6)
    assert folder.level_mm is None


def test_slices_are_decoded_once_while_memory_lasts(phantom: Path) -> None:
    folder = SliceFolder(phantom, "train", "A")
    levels, mask = folder.pixels(0), folder.mask(0)
    small = SliceFolder(phantom, "train", "A", keep_bytes=levels.nbytes + mask.nbytes // 2)
    assert small.pixels(0) is small.pixels(0)
    assert small.mask(0) is not small.mask(0)  # no room left
    assert small.pixels(1) is not small.pixels(1)
    for path in (phantom / "trainA" / folder.files[0].name, phantom / "trainA_mask" / folder.files[0].name):
        path.unlink()
    assert folder.pixels(0) is levels
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
        refuse_or_exclude(
            find_problems([SliceFolder(phantom, "train", d) for d in "AB"]), [], table_in=phantom, skip_bad=False
        )
    with pytest.raises(UserError, match=message):
        refuse_or_exclude(
            [p for part in dataset(phantom).folders for p in part.problems], [], table_in=phantom, skip_bad=False
        )


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
    draws = data.batches("gan", "shuffled", 0, 4).draws
    assert len(draws) == 14  # the larger domain's count
    assert set(draws.a.tolist()) == set(range(12))
    assert (np.abs(draws.p_a - draws.p_b) <= 0.1 + 1e-6).all()
    assert (draws.p_a == data.A.p[draws.a]).all() and (draws.p_b == data.B.p[draws.b]).all()


def test_draws_depend_on_seed_stage_and_epoch_alone(phantom: Path) -> None:
    data = dataset(phantom)

    def drawn(data: UnalignedMaskDataset, stage: str, epoch: int) -> list[list[float]]:
        draws = data.batches(stage, "shuffled", epoch, 4).draws
        return [getattr(draws, field.name).tolist() for field in fields(draws)]

    reference = drawn(data, "gan", 3)
    assert drawn(dataset(phantom), "gan", 3) == reference
    for other in (drawn(data, "gan", 4), drawn(data, "lsc", 3), drawn(dataset(phantom, seed=1), "gan", 3)):
        assert other != reference


def test_batches_are_cut_as_lists_are(phantom: Path) -> None:
    data = dataset(phantom)
    batches = data.batches("gan", "shuffled", 0, 4)
    assert [len(batch) for batch in batches] == [4, 4, 4, 2] and len(batches) == 4
    as_list = [batch.key.tolist() for batch in batches]
    assert as_list == [batches.draws.key[start : start + 4].tolist() for start in (0, 4, 8, 12)]
    assert batches[-1].key.tolist() == as_list[-1]
    for cut in (slice(1, None), slice(None, 2), slice(1, 3), slice(3, 9), slice(9, 12), slice(2, 1), slice(-2, None)):
        assert [batch.key.tolist() for batch in batches[cut]] == as_list[cut]
        assert len(batches[cut]) == len(as_list[cut])
    with pytest.raises(IndexError):
        batches[4]
    with pytest.raises(ValueError, match="step 2"):
        batches[::2]


def test_bank_partners_replace_levels(phantom: Path) -> None:
    data = dataset(phantom)
    table = np.stack([np.full(12, 5), np.full(12, 9)], 1)
    data.set_partners(table)
    assert set(data.batches("gan", "shuffled", 0, 4).draws.b.tolist()) == {5, 9}


def test_level_batches_hold_distinct_levels_from_the_same_place(phantom: Path) -> None:
    data = dataset(phantom, level_crop=0.0, level_tolerance=0.1)
    for batch in data.batches("sgp", "levels", 0, 4):
        levels = batch.p_a.tolist()
        assert levels == sorted(levels)
        assert len(set(levels)) == len(levels)
        assert (np.abs(batch.p_a - batch.p_b) <= 0.1 + 1e-6).all()


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
    assert np.abs(draws.p_a - p[draws.a]).max() > 0.02
    assert min(draws.p_a.min(), draws.p_b.min()) >= 0 and max(draws.p_a.max(), draws.p_b.max()) <= 1


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
    draws = data.batches("gan", "shuffled", 0, 4)[0]
    batch = data.__getitems__(draws)
    assert batch.A.shape == batch.mask_B.shape == (4, 1, 32, 32)
    assert batch.A.dtype == batch.mask_A.dtype == torch.float32
    assert (batch.A[batch.mask_A == 0] == -1).all()
    assert set(batch.mask_A.unique().tolist()) == {0.0, 1.0}
    assert batch.key.tolist() == draws.key.tolist() and batch.index_A.tolist() == draws.a.tolist()
    assert batch.p_B.dtype == torch.float32 and batch.key.dtype == batch.index_B.dtype == torch.int64
    assert dataset(phantom, mode="unaligned").__getitems__(draws).mask_A.min() == 1


@pytest.mark.parametrize("preprocess", ["resize", "crop", "none"])
def test_there_and_back(preprocess: str) -> None:
    y, x = np.mgrid[0 : np.pi : 50j, 0 : np.pi : 44j]
    image, mask = (0.5 + 0.4 * np.sin(x) * np.cos(y)).astype(np.float32), np.ones((50, 44), bool)
    tensor, _ = to_network(image, mask, preprocess=preprocess, load_size=64, multiple=16)
    assert tensor.shape == ((1, 64, 64) if preprocess == "resize" else (1, 64, 48))
    back = to_native(tensor, (50, 44), preprocess=preprocess, load_size=64)
    assert back.shape == (50, 44)
    assert np.abs(back - image).max() < (0.02 if preprocess == "resize" else 1e-6)


def test_sixteen_bits_survive_loading(tmp_path: Path) -> None:
    image = RNG.random((12, 12)).astype(np.float32)
    (tmp_path / "trainA").mkdir()
    write_image(tmp_path / "trainA" / "s_000.png", image, 16)
    assert np.abs(SliceFolder(tmp_path, "train", "A").image(0) - image).max() < 1e-5
