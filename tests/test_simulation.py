"""The simulator: anatomy, tissue parameters, signal equations, scanner, and the benchmark folder it writes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from data.manifest import read_manifest
from data.simulation.anatomy import TISSUES, Anatomy, load_anatomy, save_anatomy
from data.simulation.benchmark import plan_scans, write_benchmark, write_scan
from data.simulation.deformation import draw_shape, rotation
from data.simulation.geometry import MAX_CROP, draw_geometry, head_extent_mm
from data.simulation.presets import HIGH_T1W, HIGH_T2W, LOW_T2W, PRESETS, find_preset
from data.simulation.scanner import band_limit, noise, to_image
from data.simulation.sequences import MPRAGE, SpinEcho
from data.simulation.subject import Scan, Scanner, draw_head, simulate_scan
from data.simulation.tissue import FIELDS_T, Tissue, draw_jitter, tissues_at
from util.errors import UserError

MATRIX = 48
CSF, GM, WM, FAT, BONE, SOFT = range(6)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return load_anatomy()


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate_scan(find_preset("same-contrast"), 0, 3, "A", matrix=MATRIX, with_truth=True)


# --- anatomy -----------------------------------------------------------------------------------------------------


def test_fractions_are_partial_volumes(anatomy: Anatomy) -> None:
    fractions = anatomy.fractions
    assert fractions.shape == (len(TISSUES), 181, 217, 181) and fractions.dtype == np.float32
    assert fractions.min() >= 0 and fractions[:, ::2, ::2, ::2].sum(0).max() <= 1 + 1e-5
    grey, white, fluid = fractions[GM], fractions[WM], fractions[CSF]
    litres = {name: float(fractions[number].sum()) / 1e6 for number, name in enumerate(TISSUES)}
    assert 0.55 < litres["gm"] < 1.0 and 0.5 < litres["wm"] < 0.85 and 0.2 < litres["csf"] < 0.55
    cortex = (grey > 0.05) & (grey + white + fluid > 0.99)
    assert (grey[cortex] < 0.95).mean() > 0.3, "a hard label map has no mixed voxels"


def test_ventricles_deep_grey_and_closed_skull(anatomy: Anatomy) -> None:
    def at(x_mm: float, y_mm: float, z_mm: float) -> NDArray[np.float32]:
        i, j, k = np.rint(np.linalg.inv(anatomy.affine) @ [x_mm, y_mm, z_mm, 1])[:3].astype(int)
        return anatomy.fractions[:, i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2].mean((1, 2, 3))

    assert at(-8, 15, 14)[CSF] > 0.8, "frontal horn of the lateral ventricle"
    assert at(-24, 4, 2)[GM] > 0.5, "putamen"
    assert at(-26, -20, 30)[WM] > 0.9, "corona radiata"
    open_space = anatomy.fractions[BONE, :, :, 95:150] < 0.35
    component, _ = ndimage.label(open_space)
    inside, outside = component[90, 108, 10], component[0, 0, 10]
    assert inside > 0 and outside > 0 and inside != outside, "no way from the brain to the scalp but through bone"


def test_anatomy_round_trip_and_refusals(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fractions = rng.dirichlet(np.ones(len(TISSUES) + 1), (5, 6, 7)).transpose(3, 0, 1, 2)[:-1].astype(np.float32)
    save_anatomy(tmp_path / "map.npz", Anatomy(fractions, np.eye(4)))
    again = load_anatomy(tmp_path / "map.npz")
    assert np.abs(again.fractions - fractions).max() < 0.05 and again.fractions.sum(0).max() <= 1 + 1e-6
    with pytest.raises(UserError, match="sum to at most 1"):
        save_anatomy(tmp_path / "bad.npz", Anatomy(fractions * 2, np.eye(4)))
    (tmp_path / "text.npz").write_text("no map")
    with pytest.raises(UserError, match="not a tissue-fraction map"):
        load_anatomy(tmp_path / "text.npz")


# --- tissue and signal -------------------------------------------------------------------------------------------


def test_grey_white_t1_ratio_grows_with_field() -> None:
    ratio = {b0: tissues_at(b0)["gm"].t1_ms / tissues_at(b0)["wm"].t1_ms for b0 in (0.064, 3.0)}
    assert ratio[0.064] <= 1.25 and 1.4 <= ratio[3.0] <= 1.8
    between = tissues_at(math.sqrt(0.3 * 1.5))["wm"]
    assert between.t1_ms == pytest.approx((400 + 660) / 2), "linear in log B0: the geometric mean lies halfway"
    for b0 in (0.01, 9.4, math.nan):
        with pytest.raises(UserError, match="known from"):
            tissues_at(b0)


@pytest.mark.parametrize("b0", FIELDS_T)
def test_csf_is_brightest_in_t2w_at_every_field(b0: float) -> None:
    for sequence in (LOW_T2W.sequence, HIGH_T2W.sequence, SpinEcho(5500, 128), SpinEcho(2000, 200)):
        signal = {name: sequence.signal(tissue) for name, tissue in tissues_at(b0).items()}
        assert max(signal, key=signal.__getitem__) == "csf"
        assert signal["bone"] < 1e-3


def test_csf_stays_brightest_within_the_jitter() -> None:
    for seed in range(20):
        jitter = draw_jitter(np.random.default_rng(seed))
        signal = {name: LOW_T2W.sequence.signal(t) for name, t in tissues_at(0.064, jitter).items()}
        assert max(signal, key=signal.__getitem__) == "csf"


def test_t1w_csf_is_dark_and_white_matter_bright() -> None:
    signal = {name: HIGH_T1W.sequence.signal(tissue) for name, tissue in tissues_at(3.0).items()}
    assert abs(signal["csf"]) < 0.3 * signal["wm"] and abs(signal["csf"]) < signal["gm"] < signal["wm"] < signal["fat"]


@pytest.mark.parametrize("name", TISSUES)
def test_mprage_equals_a_pulse_by_pulse_simulation(name: str) -> None:
    tissue, s = tissues_at(3.0)[name], MPRAGE(2400, 1000, 2.14, 8.0, 7.6, 176)

    def relax(m: float, ms: float) -> float:
        return 1 + (m - 1) * math.exp(-ms / tissue.t1_ms)

    flip, m, middle = math.radians(8.0), 1.0, 0.0
    for _ in range(12):  # repetitions until steady
        m = relax(-m, 1000 - 88 * 7.6)
        for echo in range(176):
            middle = m if echo == 88 else middle
            m = relax(m * math.cos(flip), 7.6)
        m = relax(m, 2400 - (1000 - 88 * 7.6) - 176 * 7.6)
    expected = tissue.pd * middle * math.sin(flip) * math.exp(-2.14 / tissue.t2star_ms)
    assert s.signal(tissue) == pytest.approx(expected, abs=1e-4)


def test_spin_echo_by_hand_and_bad_timings() -> None:
    tissue = Tissue(t1_ms=1000, t2_ms=100, t2star_ms=50, pd=0.8)
    assert SpinEcho(1000, 100).signal(tissue) == pytest.approx(0.8 * (1 - math.exp(-1)) * math.exp(-1))
    for bad in ((-1, 10), (1000, 0), (100, 200), (math.nan, 10)):
        with pytest.raises(UserError, match="ms ="):
            SpinEcho(*bad)
    with pytest.raises(UserError, match="do not fit"):
        MPRAGE(2400, 500, 2.14, 8, 7.6, 176)


# --- scanner -----------------------------------------------------------------------------------------------------


def test_noise_background_is_rayleigh_and_calibrated() -> None:
    rng = np.random.default_rng(0)
    for acquired in (64.0, 40.0):
        background = np.abs(to_image(noise(rng, (12, 64, 64), acquired, 0.05)))
        assert background.mean() == pytest.approx(0.05 * math.sqrt(math.pi / 2), rel=0.02)
        assert background.std() == pytest.approx(0.05 * math.sqrt(2 - math.pi / 2), rel=0.03)


def test_band_limit_keeps_intensity_and_blurs_as_asked() -> None:
    image = np.zeros((1, 192, 192), np.float32)
    image[:, 48:144, 48:144] = 1
    widths = []
    for acquired in (96.0, 48.0, 24.0):
        seen = np.abs(to_image(band_limit(image, 96, acquired)))[0]
        assert seen.shape == (96, 96) and seen[48, 48] == pytest.approx(1, abs=0.05)
        edge = seen[10:40, 48]
        rise = np.interp((0.2, 0.8), np.maximum.accumulate(edge), np.arange(len(edge)))
        widths.append(rise[1] - rise[0])
        kspace = band_limit(image, 96, acquired)[0]
        lost = np.abs(np.arange(96) - 48) > acquired / 2
        assert not kspace[lost].any() and not kspace[:, lost].any()
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.25) and widths[2] / widths[1] == pytest.approx(2, rel=0.15)


def test_truth_is_the_high_field_signal_without_noise_and_bias(anatomy: Anatomy, scan: Scan) -> None:
    head = draw_head(0, 3)
    geometry = draw_geometry(np.random.default_rng(0), anatomy, head.shape, matrix=MATRIX, thickness_mm=5.0)
    scanner = Scanner(head, geometry, anatomy)
    clean = replace(HIGH_T2W, snr_wm=1e9, bias_std=0.0)
    image, _ = scanner.image(clean, np.random.default_rng(1))
    assert np.allclose(scanner.ideal(HIGH_T2W), image, atol=1e-5)
    assert scan.truth is not None and scan.truth.shape == scan.image.shape
    air = ~ndimage.binary_dilation(scan.truth_mask, iterations=4)
    assert scan.truth[air].max() < 0.05 * np.percentile(scan.truth[scan.truth_mask], 99)
    assert scan.image[air].mean() > 0.02 * np.percentile(scan.image[scan.truth_mask], 99), "noise in the background"


# --- geometry ----------------------------------------------------------------------------------------------------


def test_scan_volumes_and_levels(scan: Scan) -> None:
    n = scan.image.shape[2]
    assert scan.image.shape == scan.labels.shape == scan.truth_mask.shape == (MATRIX, MATRIX, n)
    assert scan.level_mm.shape == (n,) and (np.diff(scan.level_mm) > 2).all()
    assert np.allclose(np.diag(scan.affine), (240 / MATRIX, 240 / MATRIX, 5.0, 1.0))
    assert set(np.unique(scan.labels)) <= set(range(7)) and {1, 2, 3, 4, 5, 6} <= set(np.unique(scan.labels))
    assert not scan.truth_mask[0].any() and scan.truth_mask[:, :, n // 2].mean() > 0.3


def test_coverage_is_cropped_between_0_and_25_percent(anatomy: Anatomy) -> None:
    crops = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shape = draw_shape(rng)
        geometry = draw_geometry(rng, anatomy, shape, matrix=MATRIX, thickness_mm=5.0)
        low, high = head_extent_mm(anatomy, shape, geometry.pose)
        lost = ((geometry.z_mm[0] - low) / (high - low), (high - geometry.z_mm[-1]) / (high - low))
        slack = 5.0 / (high - low)
        assert all(0 <= part <= MAX_CROP + slack for part in lost)
        assert all(0 <= crop <= MAX_CROP for crop in geometry.crop)
        crops.append(geometry.crop)
    assert np.ptp(crops, axis=0).min() > 0.05


def test_deformed_heads_keep_a_smooth_outline(anatomy: Anatomy, scan: Scan) -> None:
    def solidity(mask: NDArray[np.bool_]) -> float:
        return float(mask.sum() / convex_hull_image(mask).sum())

    template = solidity(ndimage.binary_fill_holes(anatomy.fractions[:, ::4, ::4, 100].sum(0) > 0.5))
    levels = np.flatnonzero((scan.level_mm > 15) & (scan.level_mm < 60))
    assert len(levels) >= 5
    for k in levels:
        assert solidity(scan.truth_mask[:, :, k]) > template - 0.04
    for seed in range(3):  # no folding: the map from subject to template keeps volume positive everywhere
        axis = np.arange(-100, 101, 10.0)
        points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
        moved = draw_shape(np.random.default_rng(seed)).to_template(points)
        jacobian = np.stack(np.gradient(moved, 10.0, axis=(1, 2, 3)), 1)
        assert np.linalg.det(jacobian.transpose(2, 3, 4, 0, 1)).min() > 0.4


def test_rotation_is_a_rotation() -> None:
    turn = rotation(np.array([5.0, -3.0, 10.0]))
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)


# --- benchmark ---------------------------------------------------------------------------------------------------


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmark")
    write_benchmark(root, "paper", n_train=1, n_val=1, n_test=0, seed=5, bits=16, workers=1, matrix=32)
    return root


def test_benchmark_folder_is_complete(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.origin == "simulated" and len(manifest.volumes) == 4
    train = {v.domain: v.subject for v in manifest.volumes if v.split == "train"}
    paired = {v.domain: v.subject for v in manifest.volumes if v.split == "val"}
    assert train["A"] != train["B"] and paired["A"] == paired["B"]
    for volume in manifest.volumes:
        levels = [entry.level_mm for entry in volume.slices if entry.level_mm is not None]
        assert len(levels) == len(volume.slices) > 5 and levels == sorted(levels)
        suffixes = ["", "_mask", "_labels", *(["_truth", "_truth_mask"] if volume.domain == "A" else [])]
        for entry in volume.slices:
            assert all((folder / (volume.folder + suffix) / entry.file).is_file() for suffix in suffixes)


def test_same_seed_same_bytes_whatever_was_simulated_before(folder: Path, tmp_path: Path) -> None:
    jobs = plan_scans(tmp_path, "paper", n_train=1, n_val=1, n_test=0, seed=5, bits=16, matrix=32)
    for job in reversed(jobs[1:3]):
        write_scan(job)
    again, first = _digest(tmp_path), _digest(folder)
    assert len(again) > 50 and all(first[name] == digest for name, digest in again.items())


@pytest.mark.slow
def test_same_bytes_on_any_number_of_workers(folder: Path, tmp_path: Path) -> None:
    write_benchmark(tmp_path, "paper", n_train=1, n_val=1, n_test=0, seed=5, bits=16, workers=2, matrix=32)
    assert _digest(tmp_path) == _digest(folder)


def test_seeds_subjects_and_purposes_are_independent() -> None:
    preset = find_preset("same-contrast")
    a = plan_scans(Path("x"), preset.name, n_train=2, n_val=1, n_test=2, seed=0, bits=16, matrix=64)
    more = plan_scans(Path("x"), preset.name, n_train=9, n_val=1, n_test=2, seed=0, bits=16, matrix=64)
    assert [job for job in a if job.split == "test"] == [job for job in more if job.split == "test"]
    owners = {(job.subject, job.split) for job in more}
    assert len(owners) == len({subject for subject, _ in owners}), "no subject in two splits"
    matrices = [draw_head(seed, subject).shape.matrix for seed, subject in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert not np.allclose(matrices[0], matrices[1]) and not np.allclose(matrices[0], matrices[2])
    assert np.array_equal(matrices[0], matrices[3])


def test_presets_and_refusals() -> None:
    assert set(PRESETS) == {"same-contrast", "paper"}
    assert PRESETS["same-contrast"].low == PRESETS["paper"].low
    numbers = {"n_train": 1, "n_val": 0, "n_test": 0, "seed": 0, "bits": 16, "matrix": 64}
    with pytest.raises(UserError, match="--simulate other"):
        plan_scans(Path("x"), "other", **numbers)
    for wrong in ({"matrix": 65}, {"matrix": 8}, {"n_train": 0}, {"n_test": -1}):
        with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
            plan_scans(Path("x"), "paper", **{**numbers, **wrong})
