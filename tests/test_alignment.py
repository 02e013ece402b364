"""Volumes on one axis of levels: made-up anatomy along the head, seen by scans that end sooner or later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from data.alignment import aligned_levels, looks_of
from data.cache.slice_cache import SliceCache
from data.unaligned_dataset import UnalignedDataset
from data.unaligned_options import UnalignedOptions
from evaluation.level_error import LevelledSlices, level_errors

ANATOMY = gaussian_filter(np.random.default_rng(0).normal(size=(101, 24, 24)), (4, 2, 2)).astype(np.float32)


def scans(ranges: list[tuple[float, float]], seed: int, noise: float = 0.01) -> tuple[np.ndarray, ...]:
    """Looks, p, volume and true level of the slices of volumes that show these parts of the axis."""
    rng, found = np.random.default_rng(seed), []
    for number, (first, last) in enumerate(ranges):
        n = int(rng.integers(14, 22))
        level = np.linspace(first, last, n)
        images = ANATOMY[np.round(100 * level).astype(int)] + noise * rng.normal(size=(n, 24, 24)).astype(np.float32)
        p = ((np.arange(n) + 0.5) / n).astype(np.float32)
        found.append((looks_of(torch.from_numpy(images)[:, None]).numpy(), p, np.full(n, number), level))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def test_looks_are_block_means_of_mean_0_and_length_1() -> None:
    images = torch.rand(3, 1, 48, 72, generator=torch.Generator().manual_seed(0))
    looks = looks_of(images)
    blocks = images[:, 0].reshape(3, 24, 2, 24, 3).mean((2, 4)).flatten(1)
    expected = blocks - blocks.mean(1, keepdim=True)
    torch.testing.assert_close(looks, expected / expected.norm(dim=1, keepdim=True))


def test_scans_that_end_sooner_find_their_place() -> None:
    low = scans([(0, 1), (0.02, 0.98), (0, 0.97), (0.03, 1)], 1)
    high = scans([(0, 1), (0.35, 1), (0.3, 0.96), (0.02, 0.99), (0.4, 1)], 2)
    found_low, found_high = aligned_levels((low[0], high[0]), (low[1], high[1]), (low[2], high[2]))
    assert found_low.dtype == np.float32 and found_low.min() >= 0 and found_high.max() <= 1
    assert np.abs(high[1] - high[3]).max() > 0.3
    assert np.abs(found_low - low[3]).max() < 0.06
    assert np.abs(found_high - high[3]).max() < 0.06
    assert np.polyfit(found_low, low[1], 1) == pytest.approx((1, 0), abs=0.02)  # the axis is A's own


def test_volumes_that_look_like_nothing_keep_their_levels() -> None:
    rng = np.random.default_rng(3)
    looks = tuple(looks_of(torch.from_numpy(rng.normal(size=(60, 1, 24, 24)))).numpy() for _ in "AB")
    p = tuple(np.tile((np.arange(20) + 0.5) / 20, 3).astype(np.float32) for _ in "AB")
    volume = tuple(np.repeat(np.arange(3), 20) for _ in "AB")
    for found, before in zip(aligned_levels(looks, p, volume), p, strict=True):
        assert np.abs(found - before).max() < 0.3  # by chance a little


def test_single_slices_are_no_obstacle() -> None:
    looks = scans([(0.5, 0.5)], 4)[0][:1], scans([(0.5, 0.5)], 5)[0][:1]
    half = np.array([0.5], np.float32)
    found = aligned_levels(looks, (half, half), (np.zeros(1, int), np.zeros(1, int)))
    assert [x.shape for x in found] == [(1,), (1,)] and all(np.isfinite(x).all() for x in found)


def test_a_dataset_pairs_by_aligned_levels_if_asked(phantom: Path) -> None:
    plain, aligned = (
        UnalignedDataset(
            SliceCache(phantom, phantom.parent / "cache"), UnalignedOptions(load_size=32, align_levels=asked)
        )
        for asked in (False, True)
    )
    assert all((x == y).all() for x, y in zip(plain.levels(), (plain.A.p, plain.B.p), strict=True))
    low, high = aligned.levels()
    assert low.shape == plain.A.p.shape and high.shape == plain.B.p.shape and (high != plain.B.p).any()
    draws = aligned.batches("gan", "shuffled", 0, 4).draws
    assert (draws.p_a == low[draws.a]).all() and (draws.p_b == high[draws.b]).all()
    assert np.abs(draws.p_a - draws.p_b).max() < 0.2
    assert aligned.levels()[0] is low  # found once


def test_the_report_matches_slices_by_aligned_levels() -> None:
    fields = scans([(0, 1), (0.02, 0.98), (0, 0.97)], 6), scans([(0.35, 1), (0, 0.98), (0.3, 0.96)], 7)
    low, high = (
        [
            LevelledSlices(
                subject=f"sub-{number}",
                embedding=looks[volume == number],
                thumbnail=looks[volume == number],
                p=p[volume == number],
                index=np.arange((volume == number).sum()),
                level_mm=(180 * level[volume == number]).astype(np.float32),
            )
            for number in range(3)
        ]
        for looks, p, volume, level in fields
    )
    errors = level_errors(low, high, seed=0)
    assert errors is not None and errors["aligned"].shape == errors["same_p"].shape
    assert np.median(errors["aligned"]) < 6 < 10 < np.median(errors["same_p"])
    assert level_errors(low[:1], high[:1], seed=0) is None  # its own head alone
