"""The baselines: maps of intensities, noise, sharpness, and that none reads the truth."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_heads import write_heads
from scipy.ndimage import gaussian_filter, zoom

from data.folder.slice_folder import SliceFolder
from evaluation import baselines, classical, contrast, intensities
from evaluation.folders import open_test_data
from evaluation.paired import score
from evaluation.subjects import SubjectSlices, read_subject

SIDE = 96  # pixels


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("data"))


@pytest.fixture
def volume(dataroot: Path) -> SubjectSlices:
    data = open_test_data(dataroot, "test", table_in=dataroot)
    return read_subject(data.source, data.subjects["sub-2"], with_truth=True)


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def disc(radius: float = 30) -> np.ndarray:
    """The mask of a round head, (96, 96)."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    return y**2 + x**2 < radius**2


def scanned(
    sigma: float, *, coils: int = 1, band: float = 1.0, texture: float = 0.0, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Four slices as a scanner makes them, magnitude or root of the sum of squares, and their masks.

    sigma: noise of one channel. band: measured part of k-space per axis, the rest is zero-filled.
    texture: amplitude of what lies in the head beside its mean of 0.5.
    """
    rng = np.random.default_rng(seed)
    kept = np.abs(np.fft.fftfreq(SIDE)) < band / 2
    window, head = kept[:, None] & kept, disc()
    slices = []
    for _ in range(4):
        clean = np.where(head, 0.5 + texture * gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2) * 5, 0)
        squares = np.zeros((SIDE, SIDE))
        for _ in range(coils):
            noise = np.fft.fft2(rng.normal(size=(SIDE, SIDE)) + 1j * rng.normal(size=(SIDE, SIDE))) * window
            squares = squares + np.abs(clean / coils**0.5 + sigma / window.mean() ** 0.5 * np.fft.ifft2(noise)) ** 2
        slices.append((np.sqrt(squares).astype(np.float32), head))
    return slices


def test_pooled_quantiles_are_those_of_all_foreground(dataroot: Path) -> None:
    folder = SliceFolder(dataroot, "train", "B")
    values = np.concatenate([folder.image(i)[folder.mask(i)] for i in range(len(folder))])
    found = intensities.pooled_quantiles(folder)
    np.testing.assert_allclose(found, np.quantile(values, intensities.RANKS), atol=2e-3)
    assert (np.diff(found) >= 0).all()


def test_histogram_match_reaches_the_target_and_keeps_order(volume: SubjectSlices) -> None:
    target = (intensities.RANKS**2).astype(np.float32)
    matched = intensities.match_histogram(volume.image, volume.mask, target)
    assert (matched[~volume.mask] == 0).all()
    np.testing.assert_allclose(np.quantile(matched[volume.mask], intensities.RANKS), target, atol=5e-3)
    order = np.argsort(volume.image[volume.mask], kind="stable")
    assert (np.diff(matched[volume.mask][order]) >= 0).all()


def test_histogram_match_with_ties() -> None:
    image = np.array([[[0.0, 0.0, 0.0, 1.0]]], dtype=np.float32)
    mask = np.ones_like(image, dtype=bool)
    matched = intensities.match_histogram(image, mask, intensities.RANKS.astype(np.float32))
    assert np.unique(matched[image == 0]).size == 1 and matched[image == 0][0] < matched[image == 1][0]


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("band", [1.0, 0.5])
@pytest.mark.parametrize("sigma", [0.02, 0.08])
def test_noise_is_measured_in_the_air(coils: int, band: float, sigma: float) -> None:
    """For any number of coils and measured part of k-space, and where the window cuts off a third of the air."""
    slices = scanned(sigma, coils=coils, band=band, texture=0.3)
    assert classical.noise_sigma(slices) == pytest.approx(sigma, rel=0.06)
    floor = np.quantile(slices[0][0][~slices[0][1]], 0.33)
    cut = [(np.maximum(image - floor, 0), mask) for image, mask in slices]
    assert classical.noise_sigma(cut) == pytest.approx(sigma, rel=0.06)


def test_noise_without_air_comes_from_details() -> None:
    """Air of one value, no air and too little of it; without noise and without a head there is none."""
    slices = scanned(0.05)
    black = [(np.where(mask, image, np.float32(0)), mask) for image, mask in slices]
    assert classical.noise_sigma(black) == pytest.approx(0.05, rel=0.1)
    close = [(image[20:76, 20:76], mask[20:76, 20:76]) for image, mask in slices]
    assert classical.noise_sigma(close) == pytest.approx(0.05, rel=0.15)
    assert classical.noise_sigma([(0 * image, mask) for image, mask in slices]) == 0
    assert classical.noise_sigma([(0 * image, ~(mask | ~mask)) for image, mask in slices]) == 0


def test_the_filter_undoes_a_blur_whatever_the_size_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted between blurred and sharp heads, it restores much of another head's loss, also on a finer grid."""
    monkeypatch.setattr(classical, "LARGEST_GAIN", 3.0)
    sharp = scanned(0.0, texture=0.3)
    soft = [gaussian_filter(image, 0.8) for image, _ in sharp]
    before, after = (classical.radial_power(images, sharp) for images in (soft, [image for image, _ in sharp]))
    gain = classical.filter_gain([before], [after])
    assert gain[0] == gain[-1] == 1 and 1 < gain.max() <= classical.LARGEST_GAIN
    for factor in (1, 2):
        image = zoom(scanned(0.0, texture=0.3, seed=1)[0][0], factor)
        blurred = gaussian_filter(image, 0.8 * factor)
        side = factor * classical.head_side(sharp)
        error = np.abs(classical.apply_gain(blurred, gain, side) - image).mean()
        assert error < 0.7 * np.abs(blurred - image).mean(), factor


def test_the_order_of_contrasts_is_found_and_small_dips_are_not() -> None:
    """Concentric tissues of two heads of different sizes: the same order, another one, and the same but for chance."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    rng = np.random.default_rng(0)

    def boxes(radius: float, levels: list[float]) -> contrast.Boxes:
        rings = np.minimum(np.hypot(y, x) / radius * 4, 3.99).astype(int)
        image = (np.array(levels)[rings] + rng.normal(0, 0.02, rings.shape)).astype(np.float32)
        return contrast.Boxes.of([image] * 2, [disc(radius)] * 2, np.array([0.2, 0.7], np.float32))

    levels = [0.1, 0.3, 0.5, 0.9]
    a = boxes(30, levels)
    source = np.quantile(a.box[a.inside], intensities.RANKS).astype(np.float32)
    target = np.linspace(0.05, 0.95, 1001).astype(np.float32)

    def values(of_b: list[float]) -> np.ndarray:
        return contrast.ordered(target, contrast.sums_by_bin(a, [boxes(24, of_b), boxes(40, of_b)], source))

    np.testing.assert_array_equal(values(levels), target)
    np.testing.assert_array_equal(values([0.3, 0.28, 0.5, 0.9]), target)
    turned = values([0.8, 0.6, 0.4, 0.1])
    np.testing.assert_array_equal(np.sort(turned), target)
    mapped = intensities.map_quantiles(np.array(levels, np.float32), source, turned)
    assert (np.diff(mapped) < 0).all()
    assert contrast.ordered(target, np.zeros((2, contrast.BINS))) is target


def test_classical_is_ahead_and_none_reads_the_truth(volume: SubjectSlices, dataroot: Path, pool: Executor) -> None:
    low, high = SliceFolder(dataroot, "test", "A"), SliceFolder(dataroot, "train", "B")
    fitted = baselines.fit(low, high, pool)
    rows = baselines.synthesise(volume, fitted, pool)
    blind = baselines.synthesise(replace(volume, truth=None, truth_mask=None), fitted, pool)
    assert set(baselines.synthesise(volume, None, pool)) == {"identity"}
    assert set(rows) == set(baselines.BASELINES)
    for row in rows:
        np.testing.assert_array_equal(rows[row], blind[row])
        assert rows[row].dtype == np.float32 and rows[row].min() >= 0 and rows[row].max() <= 1
    np.testing.assert_array_equal(rows["identity"], volume.visible)
    assert volume.truth is not None and volume.truth_mask is not None
    scores = {row: score(slices, volume.truth, volume.truth_mask) for row, slices in rows.items()}
    assert scores["classical"]["psnr"] > scores["histogram"]["psnr"] + 2
    assert scores["histogram"]["psnr"] > scores["identity"]["psnr"]
