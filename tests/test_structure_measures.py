"""Edges, neighbouring slices and air, against implementations of their own and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import binary_dilation, correlate1d, gaussian_filter

from evaluation import paired
from evaluation.metrics import structure


@pytest.fixture
def volume() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, truth (4, 40, 50) float32 in [0, 1] and a head mask."""
    rng = np.random.default_rng(5)
    truth = gaussian_filter(rng.random((4, 40, 50)), (0.7, 2, 2))
    truth = ((truth - truth.min()) / np.ptp(truth)).astype(np.float32)
    prediction = np.clip(gaussian_filter(truth, (0, 1, 1)) + rng.normal(0, 0.02, truth.shape), 0, 1).astype(np.float32)
    y, x = np.mgrid[:40, :50]
    mask = np.stack([(x - 25) ** 2 + (y - 20) ** 2 < (12 + s) ** 2 for s in range(4)])
    return prediction, truth, mask


def test_edge_corr_against_scipy(volume: tuple[np.ndarray, ...]) -> None:
    prediction, truth, mask = volume

    def magnitude(image: np.ndarray) -> np.ndarray:  # inside the head no pixel lies at the border
        down, right = (correlate1d(image.astype(np.float64), [-0.5, 0, 0.5], axis=axis) for axis in (1, 2))
        return np.sqrt(down**2 + right**2)

    expected = stats.pearsonr(magnitude(prediction)[mask], magnitude(truth)[mask]).statistic
    assert structure.edge_corr(prediction, truth, mask) == pytest.approx(expected, abs=1e-12)
    assert 0.3 < expected < 0.95


def test_edges_do_not_depend_on_contrast_but_on_their_place(volume: tuple[np.ndarray, ...]) -> None:
    _, truth, mask = volume
    assert structure.edge_corr(0.3 * truth + 0.2, truth, mask) == pytest.approx(1)
    assert structure.edge_corr(1 - truth, truth, mask) == pytest.approx(1)
    shifted = np.roll(truth, 6, axis=2)
    assert (structure.edge_corr(shifted, truth, mask) or 0) < 0.5
    assert structure.edge_corr(np.full_like(truth, 0.5), truth, mask) is None


def test_slice_consistency_against_numpy(volume: tuple[np.ndarray, ...]) -> None:
    prediction, truth, mask = volume
    pairs = [
        (prediction[s + 1, i, j] - float(prediction[s, i, j]), truth[s + 1, i, j] - float(truth[s, i, j]))
        for s in range(3)
        for i, j in zip(*np.nonzero(mask[s] & mask[s + 1]), strict=True)
    ]
    expected = np.corrcoef(np.array(pairs, dtype=np.float64).T)[0, 1]
    assert structure.slice_consistency(prediction, truth, mask) == pytest.approx(expected, abs=1e-6)


def test_flickering_slices_are_inconsistent(volume: tuple[np.ndarray, ...]) -> None:
    _, truth, mask = volume
    flicker = truth + np.array([0.2, -0.2, 0.2, -0.2], np.float32)[:, None, None]
    assert structure.slice_consistency(truth + 0.1, truth, mask) == pytest.approx(1)
    assert (structure.slice_consistency(flicker, truth, mask) or 0) < 0.75
    assert structure.slice_consistency(truth[:1], truth[:1], mask[:1]) is None


def test_air_leak_against_a_dilation(volume: tuple[np.ndarray, ...]) -> None:
    prediction, truth, mask = volume
    disc = np.hypot(*np.mgrid[-1:2, -1:2]) <= structure.RIM * 50  # 1 px: the pixels at the sides
    air = np.stack([~binary_dilation(plane, disc) for plane in mask])
    expected = prediction[air].mean(dtype=np.float64) / prediction[mask].mean(dtype=np.float64)
    assert structure.air_leak(prediction, truth, mask) == pytest.approx(expected)


def test_air_leak_by_hand() -> None:
    mask = np.zeros((2, 100, 100), bool)
    mask[0, 40:60, 40:60] = True
    prediction = np.where(mask, 0.5, 0.0)
    assert structure.air_leak(prediction, prediction, mask) == 0
    prediction[0, 40:60, 60:62] = 1.0  # 2 % of the side beyond the head do not count
    assert structure.air_leak(prediction, prediction, mask) == 0
    prediction[1] = 0.1  # a slice without head is air
    air = 10_000 + 10_000 - np.count_nonzero(np.hypot(*_to_square()) <= 2)
    assert structure.air_leak(prediction, prediction, mask) == pytest.approx(0.1 * 10_000 / air / 0.5)
    assert structure.air_leak(prediction, prediction, np.ones_like(mask)) is None


def _to_square() -> tuple[np.ndarray, np.ndarray]:
    """Distance from the square of 40 to 59 along both axes, for every pixel of 100 x 100."""
    outside = np.maximum(np.maximum(40 - np.arange(100), np.arange(100) - 59), 0)
    return outside[:, None] + 0 * outside, outside + 0 * outside[:, None]


def test_they_are_among_the_measures_with_definitions_and_reasons() -> None:
    empty = np.zeros((2, 16, 16), np.float32)
    scores = paired.score(empty, empty, np.zeros(empty.shape, bool))
    for name in paired.STRUCTURE:
        assert name in paired.MEASURES and name in paired.DEFINITIONS and name in paired.WHY_NONE
        assert scores[name] is None
    assert not paired.HIGHER_IS_BETTER["air_leak"] and paired.HIGHER_IS_BETTER["edge_corr"]
