"""Slice folders, sampling and transforms."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from data import sampling
from data.batch import Pairs
from data.cache.slice_cache import SliceCache
from data.folder.check import find_problems, refuse_or_exclude
from data.folder.slice_folder import SliceFolder
from data.folder.slices import write_image, write_mask
from data.registry import DATASETS
from data.transforms import TrainTransform, to_native, to_network
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
    masks = folder.sibling("mask")
    assert masks is not None and masks.folder == phantom / "train_maskA"


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


def ring(n_a: int, n_b: int, k: int) -> Pairs:
    """Every b beside the k slices of A around its place."""
    b = np.repeat(np.arange(n_b), k)
    a = (b * n_a // n_b + np.tile(np.arange(k), n_b) - k // 2) % n_a
    return Pairs(a, b, np.full(len(b), 1 / len(b)))


def test_the_banks_pairs_replace_levels(phantom: Path) -> None:
    data, pairs = dataset(phantom), ring(12, 14, 3)
    data.set_partners(pairs)
    draws = data.batches("gan", "shuffled", 0, 4).draws
    assert len(draws) == 14
    assert set(zip(draws.a.tolist(), draws.b.tolist(), strict=True)) <= set(
        zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)
    )
    assert (draws.p_a == data.A.p[draws.a]).all() and (draws.p_b == data.B.p[draws.b]).all()
    again, other = (data.batches("gan", "shuffled", epoch, 4).draws for epoch in (0, 1))
    assert again.a.tolist() == draws.a.tolist() and again.b.tolist() == draws.b.tolist()
    assert other.b.tolist() != draws.b.tolist()
    in_turn = dataset(phantom, serial_batches=True)
    in_turn.set_partners(pairs)
    assert (np.diff(in_turn.batches("gan", "shuffled", 0, 4).draws.a) >= 0).all()


@pytest.mark.parametrize(("n_a", "n_b"), [(500, 500), (700, 500), (500, 700), (40, 400)])
def test_every_b_is_drawn_equally_often_and_nearly_every_a_at_all(n_a: int, n_b: int) -> None:
    pairs, length = ring(n_a, n_b, 4), max(n_a, n_b)
    a, b = sampling.paired_evenly(pairs, n_a, length, np.random.default_rng(0))
    of_a, of_b = np.bincount(a, minlength=n_a), np.bincount(b, minlength=n_b)
    assert of_b.min() >= length // n_b and of_b.max() <= -(-length // n_b)
    assert (of_a == 0).mean() < 0.06  # chance alone would leave out a third
    assert set(zip(a.tolist(), b.tolist(), strict=True)) <= set(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))


def test_pairs_are_drawn_by_their_shares() -> None:
    pairs = Pairs(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), np.array([0.4, 0.1, 0.1, 0.4]))
    drawn = [sampling.paired_evenly(pairs, 2, 40, np.random.default_rng(seed)) for seed in range(50)]
    a, b = (np.concatenate(part) for part in zip(*drawn, strict=True))
    assert (a == b).mean() == pytest.approx(0.8, abs=0.03)


def test_what_a_loss_compares_is_cropped_and_flipped_alike(phantom: Path) -> None:
    """A mark at the same place of every slice comes back at one place where crops are shared, else at several."""
    for domain in "AB":
        for path in (phantom / f"train{domain}").iterdir():
            image = np.full((32, 32), 0.1, np.float32)
            image[12, 9] = 1
            write_image(path, image, 8)
            write_mask(phantom / f"train{domain}_mask" / path.name, np.ones((32, 32), bool))
    data = dataset(phantom, preprocess="crop", crop_size=24, flip=True)

    def places(kind: str) -> list[tuple[list[int], list[int]]]:
        batches = data.batches("gan", "shuffled", 0, 7, places=kind)
        loaded = [data.__getitems__(batches[i]) for i in range(2)]
        return [tuple(x.flatten(1).argmax(1).tolist() for x in (batch.A, batch.B)) for batch in loaded]

    for a, b in places("own"):
        assert sum(x == y for x, y in zip(a, b, strict=True)) < 3
    for a, b in places("pair"):
        assert a == b and len(set(a)) > 4
    first, second = places("batch")
    assert len({*first[0], *first[1]}) == len({*second[0], *second[1]}) == 1 and first != second


def test_slices_of_two_sizes_share_the_part_of_the_room() -> None:
    transform = TrainTransform(preprocess="crop", load_size=0, crop_size=16, flip=False)
    small, large = (transform.draw_crops(np.arange(500), (side, side)) for side in (25, 115))
    assert (small[:, :2] == large[:, :2] // 10).all()


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
