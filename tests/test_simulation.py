"""The simulator: anatomy, tissue parameters, signal equations, scanner, and the benchmark folder it writes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, stats
from scipy.integrate import trapezoid
from skimage.metrics import structural_similarity
from skimage.morphology import convex_hull_image

from data.manifest import read_manifest
from data.simulation.anatomy import HEAD_CENTRE_MM, LABELS, TISSUES, Anatomy, load_anatomy, save_anatomy
from data.simulation.benchmark import Benchmark, plan_scans, template, write_benchmark, write_scan
from data.simulation.deformation import SmoothField, draw_shape, rotation
from data.simulation.geometry import MAX_CROP, Pose, ScanGeometry, draw_geometry, head_extent_mm, slice_head
from data.simulation.presets import (
    HIGH_T1W,
    HIGH_T2W,
    LOW_FLAIR,
    LOW_T1W,
    LOW_T2W,
    M4RAW_FLAIR,
    M4RAW_T1W,
    M4RAW_T2W,
    PRESETS,
    ULTRA_T1W,
    Protocol,
    adapted,
    find_preset,
)
from data.simulation.scanner import (
    Sampling,
    band_limit,
    coil_sensitivities,
    combined,
    fat_shift_mm,
    noise,
    receive_field,
    to_image,
    transmit_field,
)
from data.simulation.sequences import SpinEcho
from data.simulation.subject import Scan, Scanner, draw_head, simulate_scan
from data.simulation.tissue import FIELDS_T, draw_jitter, tissues_at
from util.errors import UserError

MATRIX = 48
SMALL = Benchmark(find_preset("paper"), n_train=1, n_val=1, n_test=0, seed=5, bits=16, matrix=32)
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
        signal = {name: sequence.signal(tissue)[0] for name, tissue in tissues_at(b0).items()}
        assert max(signal, key=signal.__getitem__) == "csf"
        assert signal["bone"] < 1e-3


def test_csf_stays_brightest_within_the_jitter() -> None:
    for seed in range(20):
        jitter = draw_jitter(np.random.default_rng(seed))
        signal = {name: LOW_T2W.sequence.signal(t)[0] for name, t in tissues_at(0.064, jitter).items()}
        assert max(signal, key=signal.__getitem__) == "csf"


def test_t1w_csf_is_dark_and_white_matter_bright() -> None:
    signal = {name: HIGH_T1W.sequence.signal(tissue)[0] for name, tissue in tissues_at(3.0).items()}
    assert abs(signal["csf"]) < 0.3 * signal["wm"] and abs(signal["csf"]) < signal["gm"] < signal["wm"] < signal["fat"]


def test_flair_and_grey_white_contrast_by_field() -> None:
    def signals(protocol: Protocol) -> dict[str, float]:
        return {n: abs(float(protocol.sequence.signal(t)[0])) for n, t in tissues_at(protocol.b0_t).items()}

    for flair in (LOW_FLAIR, M4RAW_FLAIR):
        assert signals(flair)["csf"] <= 0.3 * signals(flair)["wm"]
    ratio = {p.b0_t: signals(p)["gm"] / signals(p)["wm"] for p in (M4RAW_T1W, HIGH_T1W, ULTRA_T1W)}
    assert abs(math.log(ratio[0.3])) < abs(math.log(ratio[3.0])) and ratio[3.0] < 0.8 and ratio[7.0] < 0.8


def test_timings_by_option_and_what_a_sequence_cannot_take() -> None:
    slower = adapted(HIGH_T1W, "--ti_B", ti_ms=900.0, tr_ms=None)
    assert slower.sequence == replace(HIGH_T1W.sequence, ti_ms=900.0) and slower.name == "3T-T1w[ti=900]"
    assert adapted(LOW_T2W, "", tr_ms=None) is LOW_T2W
    with pytest.raises(UserError, match="T1w is a SpinEcho, which has no ti_ms"):
        adapted(M4RAW_T1W, "--ti_A", ti_ms=300.0)
    with pytest.raises(UserError, match="do not fit"):
        adapted(LOW_T1W, "--ti_A", ti_ms=1450.0)
    with pytest.raises(UserError, match="must be below tr_ms"):
        adapted(LOW_T1W, "--ti_A", ti_ms=3000.0)


# --- scanner -----------------------------------------------------------------------------------------------------


def test_noise_background_is_rayleigh_and_calibrated() -> None:
    rng = np.random.default_rng(0)
    for acquired in (64.0, 40.0):
        background = np.abs(to_image(noise(rng, (12, 64, 64), Sampling(acquired, acquired), 0.05)))
        assert background.mean() == pytest.approx(0.05 * math.sqrt(math.pi / 2), rel=0.02)
        assert background.std() == pytest.approx(0.05 * math.sqrt(2 - math.pi / 2), rel=0.03)


def test_background_of_several_coils_follows_the_central_chi_law() -> None:
    """Root of the sum of squares of N coils: chi with 2N degrees of freedom, whose mean and deviation are known."""
    rng, sampling = np.random.default_rng(0), Sampling(195 / 4, 64)
    for coils in (1, 4, 8):
        seen = combined([to_image(noise(rng, (12, 64, 64), sampling, 0.05)) for _ in range(coils)]) / 0.05
        law = stats.chi(2 * coils)
        assert seen.mean() == pytest.approx(law.mean(), rel=0.01) and seen.std() == pytest.approx(law.std(), rel=0.03)
        for quantile in (0.05, 0.5, 0.95):
            assert (seen < law.ppf(quantile)).mean() == pytest.approx(quantile, abs=0.01)


def test_coils_share_the_image_and_see_different_parts(anatomy: Anatomy) -> None:
    axis = np.arange(-120, 121, 8.0)
    maps = coil_sensitivities(4, np.array([-20.0, 0.0, 20.0]), axis)
    assert np.allclose((np.abs(maps) ** 2).sum(0), 1, atol=1e-5)
    strongest = np.abs(maps).reshape(4, -1).argmax(0)
    assert set(strongest) == {0, 1, 2, 3}
    head = draw_head(0, 3)
    geometry = draw_geometry(np.random.default_rng(0), anatomy, head.shape, matrix=MATRIX, thickness_mm=5.0)
    scanner = Scanner(head, geometry, anatomy)
    quiet = replace(HIGH_T2W, bias_std=0.0, snr_wm=1e9)
    one, four = (scanner.image(replace(quiet, coils=n), np.random.default_rng(0))[0] for n in (0, 4))
    assert np.abs(one - four).max() < 0.06 * one.max() and np.abs(one - four).mean() < 0.005 * one.max()


def test_partial_fourier_leaves_one_side_empty_and_keeps_a_real_object() -> None:
    rows = np.flatnonzero(Sampling(60, 64, 0.75).windows(64)[0])
    assert rows[0] == 32 - 15 and rows[-1] == 32 + 29
    full, partial = (np.abs(to_image(band_limit(_disc(96), 48, Sampling(48, 48, share))))[0] for share in (1.0, 0.75))
    assert np.abs(full - partial).mean() < 0.02 and np.abs(full - partial).max() > 0.02


def _disc(n: int) -> NDArray[np.float32]:
    y, x = np.mgrid[:n, :n] - n / 2
    return (np.hypot(y, x) < n / 3).astype(np.float32)[None]


@pytest.mark.parametrize("side", ["phase", "read"])
@pytest.mark.parametrize("asked_mm", [1.6, 2.5, 5.0])
def test_edge_width_in_plane(side: str, asked_mm: float) -> None:
    """The line spread of k-space cut at 1 / 2 voxel with the scanner's roll-off, by the integral that defines it."""
    matrix, fov = 240, 240.0  # 1 mm pixels
    edge = np.zeros((1, 960, 960), np.float32)
    edge[:, :, 480:960] = 1
    edge = edge if side == "read" else edge.transpose(0, 2, 1)
    lines = fov / asked_mm
    sampling = Sampling(lines, matrix) if side == "phase" else Sampling(matrix, lines)
    image = to_image(band_limit(edge, matrix, sampling))[0].real
    profile = image[120] if side == "read" else image[:, 120]
    spread = np.interp(np.linspace(100, 140, 4001), np.arange(239) + 0.5, np.diff(profile))
    k = np.linspace(-0.5 / asked_mm, 0.5 / asked_mm, 2001)
    window = 0.5 * (1 + np.cos(np.pi * np.clip((np.abs(k) * 2 * asked_mm - 0.75) / 0.25, 0, 1)))
    x = np.linspace(-3 * asked_mm, 3 * asked_mm, 2001)
    law = (window[:, None] * np.cos(2 * np.pi * k[:, None] * x)).sum(0)
    expected = np.ptp(x[law > law.max() / 2])
    found = np.ptp(np.linspace(100, 140, 4001)[spread > spread.max() / 2])
    assert found == pytest.approx(expected, rel=0.05)


def test_edge_width_through_the_slice(anatomy: Anatomy) -> None:
    """A step along z, seen by slices of every offset, rises over the width of their profile."""
    fractions = np.zeros((6, 61, 61, 400), np.float32)
    fractions[WM, :, :, 200:] = 1
    affine = np.diag([4.0, 4.0, 0.25, 1.0])
    affine[:3, 3] = (-120, -137, -38)
    step = Anatomy(fractions, affine, known_centre_mm=HEAD_CENTRE_MM)
    shape = replace(draw_head(0, 0).shape, matrix=np.eye(3), displacement=SmoothField(np.zeros((3, 11, 11, 11)), 40.0))
    pose = Pose(np.zeros(3), np.zeros(3))
    for thickness in (2.0, 5.0, 8.0):
        z, seen = [], []
        for offset in np.arange(0, thickness, thickness / 10):
            geometry = ScanGeometry(pose, 32, thickness, np.arange(-24 + offset, 24, thickness), (0.0, 0.0))
            sliced = slice_head(step, shape, geometry)
            middle = sliced.fractions.shape[-1] // 2
            z += list(geometry.z_mm)
            seen += list(sliced.fractions[WM, :, middle, middle])
        order = np.argsort(z)
        fine = np.arange(-20, 20, 0.02)
        height = np.interp(fine, np.array(z)[order], np.array(seen)[order])
        middle_mm = 20 - trapezoid(height, fine)
        # of a uniform profile this integral is a quarter of its width
        assert 4 * trapezoid(np.abs(height - (fine > middle_mm)), fine) == pytest.approx(thickness, rel=0.05)


def test_transmit_field_acts_on_the_flip_angle(anatomy: Anatomy) -> None:
    axis = np.arange(-96, 97, 8.0)
    field = transmit_field(0.42, np.array([-10.0, 0.0, 10.0]), axis)
    centre, edge = field[1, 12, 12], field[1, 12, np.abs(axis - 88).argmin()]
    assert centre == field.max() and centre - edge == pytest.approx(0.42, rel=0.06)
    head = draw_head(0, 3)
    geometry = draw_geometry(np.random.default_rng(0), anatomy, head.shape, matrix=MATRIX, thickness_mm=5.0)
    scanner = Scanner(head, geometry, anatomy)
    shaded, flat = (scanner.signal(replace(ULTRA_T1W, transmit_drop=drop)) for drop in (0.42, 0.0))
    middle = len(flat) // 2
    ratio = np.divide(shaded, flat, out=np.full_like(flat, np.nan), where=np.abs(flat) > 0.005)[middle]
    n = len(ratio)
    rim = np.r_[ratio[:, n // 8 : n // 4].ravel(), ratio[:, -n // 4 : -n // 8].ravel()]
    assert np.nanmedian(ratio[n // 3 : -n // 3, n // 3 : -n // 3]) > 1.05 and np.nanmedian(rim) < 1
    assert np.allclose(scanner.signal(ULTRA_T1W, ideal=True), flat)


def test_fat_moves_along_the_readout(anatomy: Anatomy) -> None:
    assert fat_shift_mm(3.0, 220.0, 1.0) == pytest.approx(447 / 220, rel=0.01)
    head = draw_head(0, 3)
    geometry = draw_geometry(np.random.default_rng(0), anatomy, head.shape, matrix=MATRIX, thickness_mm=5.0)
    scanner = Scanner(head, geometry, anatomy)
    x = np.arange(scanner.sliced.fractions.shape[-1]) * 240 / scanner.sliced.fractions.shape[-1]

    def centre(image: NDArray[np.float32]) -> float:
        return float((image * x).sum() / image.sum())

    fat = scanner.sliced.fractions[FAT]
    slow = replace(HIGH_T2W, bandwidth_hz=447 / 1.5)  # a pixel and a half
    assert centre(scanner._shifted(fat, slow)) - centre(fat) == pytest.approx(1.5 * 240 / MATRIX, rel=0.05)


def test_repetitions_at_0_3_tesla_differ_as_published(anatomy: Anatomy) -> None:
    """M4Raw T2w, one head, two repetitions: 28.2 to 29.5 dB and SSIM 0.61 to 0.64 of the volume's maximum [V]."""
    head = draw_head(0, 3)
    geometry = draw_geometry(np.random.default_rng(0), anatomy, head.shape, matrix=256, thickness_mm=6.0)
    scanner = Scanner(head, replace(geometry, z_mm=geometry.z_mm[2:18:3]), anatomy)
    rng = np.random.default_rng(1)
    bias = receive_field(rng, M4RAW_T2W.bias_std, scanner.geometry.z_mm, scanner.sliced.coarse_mm).astype(np.float32)
    sigma = float(M4RAW_T2W.sequence.signal(tissues_at(0.3)["wm"])[0]) / M4RAW_T2W.snr_wm
    received = scanner.signal(M4RAW_T2W) * scanner._fine(bias)
    first, second = (scanner.acquire(received, M4RAW_T2W, sigma, rng) for _ in range(2))
    top = first.max()
    psnr = 10 * math.log10(top**2 / ((first - second) ** 2).mean())
    ssim = np.mean([structural_similarity(a, b, data_range=top) for a, b in zip(first, second, strict=True)])
    assert 28 <= psnr <= 30 and 0.58 <= ssim <= 0.68


def test_band_limit_keeps_intensity_and_blurs_as_asked() -> None:
    image = np.zeros((1, 192, 192), np.float32)
    image[:, 48:144, 48:144] = 1
    widths = []
    for acquired in (96.0, 48.0, 24.0):
        seen = np.abs(to_image(band_limit(image, 96, Sampling(acquired, acquired))))[0]
        assert seen.shape == (96, 96) and seen[48, 48] == pytest.approx(1, abs=0.05)
        edge = seen[10:40, 48]
        rise = np.interp((0.2, 0.8), np.maximum.accumulate(edge), np.arange(len(edge)))
        widths.append(rise[1] - rise[0])
        kspace = band_limit(image, 96, Sampling(acquired, acquired))[0]
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
    write_benchmark(root, SMALL, workers=1)
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
    jobs = plan_scans(tmp_path, SMALL)
    for job in reversed(jobs[1:3]):
        write_scan(job)
    again, first = _digest(tmp_path), _digest(folder)
    assert len(again) > 50 and all(first[name] == digest for name, digest in again.items())


@pytest.mark.slow
def test_same_bytes_on_any_number_of_workers(folder: Path, tmp_path: Path) -> None:
    write_benchmark(tmp_path, SMALL, workers=2)
    assert _digest(tmp_path) == _digest(folder)


def test_seeds_subjects_and_purposes_are_independent() -> None:
    a, more = (plan_scans(Path("x"), replace(SMALL, n_train=n, n_test=2)) for n in (2, 9))
    tests = [[(job.subject, job.domain) for job in jobs if job.split == "test"] for jobs in (a, more)]
    assert tests[0] == tests[1] and len(tests[0]) == 4
    owners = {(job.subject, job.split) for job in more}
    assert len(owners) == len({subject for subject, _ in owners}), "no subject in two splits"
    matrices = [draw_head(seed, subject).shape.matrix for seed, subject in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert not np.allclose(matrices[0], matrices[1]) and not np.allclose(matrices[0], matrices[2])
    assert np.array_equal(matrices[0], matrices[3])


def test_presets_and_refusals() -> None:
    assert set(PRESETS) == {"same-contrast", "paper", "m4raw-to-3T", "3T-to-7T"}
    assert PRESETS["same-contrast"].low == PRESETS["paper"].low
    with pytest.raises(UserError, match="--simulate other"):
        find_preset("other")
    for wrong in ({"matrix": 65}, {"matrix": 8}, {"n_train": 0}, {"n_test": -1}):
        with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
            plan_scans(Path("x"), replace(SMALL, **wrong))


def test_faults_change_the_scan_and_are_recorded_but_leave_the_truth() -> None:
    preset = find_preset("same-contrast")
    clean = simulate_scan(preset, 0, 3, "A", matrix=MATRIX, with_truth=True)
    for faults in (("noise",), ("zipper", "banding"), ("motion",), ("contrast",), ("distortion",)):
        worse = simulate_scan(preset, 0, 3, "A", matrix=MATRIX, with_truth=True, faults=faults, fault_probability=1.0)
        assert set(worse.drawn["faults"]) == set(faults)
        assert all(0 < f["severity"] <= 1 and f["grade"] in (1, 2) for f in worse.drawn["faults"].values())
        assert np.array_equal(worse.truth, clean.truth) and not np.allclose(worse.image, clean.image)
    misplaced = simulate_scan(
        preset, 0, 3, "A", matrix=MATRIX, with_truth=True, faults=("positioning",), fault_probability=1.0
    )
    assert misplaced.image.shape == clean.image.shape and not np.array_equal(misplaced.truth_mask, clean.truth_mask)
    assert clean.drawn["faults"] == {}


def test_whole_volumes_as_nifti_are_written_and_replaced(tmp_path: Path) -> None:
    tiny = replace(SMALL, n_val=0, nifti=True, faults=("noise",), fault_probability=1.0)
    write_benchmark(tmp_path, tiny, workers=1)
    folder, other = tmp_path / "nifti", tmp_path / "nifti" / "mine.nii.gz"
    names = {path.name for path in folder.iterdir()}
    low = [f"train_sim000000_A{suffix}.nii.gz" for suffix in ("", "_truth", "_labels")]
    assert names == {*low, *(f"train_sim100000_B{suffix}.nii.gz" for suffix in ("", "_labels"))}
    image, truth, labels = (nibabel.load(folder / name) for name in low)
    assert image.shape == truth.shape == labels.shape and image.header.get_zooms() == (7.5, 7.5, 5.0)
    assert labels.get_data_dtype() == np.uint8 and nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    drawn = json.loads((tmp_path / "simulation.json").read_text())
    assert {scan["domain"]: bool(scan["faults"]) for scan in drawn} == {"A": True, "B": False}
    other.write_text("not ours")
    write_benchmark(tmp_path, replace(tiny, nifti=False), workers=1)
    assert [path.name for path in folder.iterdir()] == ["mine.nii.gz"]


def test_slices_with_a_gap_see_what_slices_without_do_at_their_places(anatomy: Anatomy) -> None:
    head = draw_head(0, 3)
    wide = draw_geometry(np.random.default_rng(0), anatomy, head.shape, matrix=MATRIX, thickness_mm=5.0, gap_mm=1.0)
    assert np.allclose(np.diff(wide.z_mm), 6) and wide.affine[2, 2] == 6
    apart = Scanner(head, wide, anatomy).sliced.fractions
    alone = Scanner(head, replace(wide, gap_mm=0.0, z_mm=wide.z_mm[7:8]), anatomy).sliced.fractions
    assert np.abs(apart[:, 7:8] - alone).mean() < 1e-3  # the smooth map between them is interpolated from other nodes
    assert find_preset("m4raw-to-3T").low.gap_mm == 1


def test_lesions_are_in_the_test_subjects_of_both_fields_and_in_no_others(tmp_path: Path) -> None:
    ill = replace(SMALL, n_val=0, n_test=1, nifti=True, lesions="tumour", n_lesions=1, matrix=48)
    write_benchmark(tmp_path, ill, workers=1)
    folders = sorted(path.name for path in tmp_path.glob("*_lesions"))
    assert folders == ["testA_lesions", "testB_lesions"]
    volumes = {}
    for domain in "AB":
        stem = tmp_path / "nifti" / f"test_sim300000_{domain}"
        mask, labels = (nibabel.load(f"{stem}_{kind}.nii.gz").get_fdata() for kind in ("lesions", "labels"))
        assert np.isin(labels[mask > 0], [LABELS["tumour"], LABELS["oedema"]]).mean() > 0.9
        volumes[domain] = mask.sum() * 25e-3  # ml of 5 mm cubes
        slices = [np.asarray(Image.open(path)) for path in sorted((tmp_path / f"test{domain}_lesions").iterdir())]
        assert any(plane.any() for plane in slices) and set(np.unique(slices)) == {0, 255}
    assert volumes["A"] > 1 and volumes["A"] == pytest.approx(volumes["B"], rel=0.35)
    assert sorted(path.name for path in tmp_path.glob("nifti/train*lesions*")) == []


def test_another_head_and_atrophy_reach_the_scan(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no_such"):
        write_benchmark(tmp_path / "a", replace(SMALL, anatomy=str(tmp_path / "no_such.nii.gz")), workers=1)
    assert not (tmp_path / "a").exists()
    csf = []
    for ventricles in (1.0, 3.0):
        job = plan_scans(tmp_path, replace(SMALL, ventricles=ventricles, deformation=0.0))[0]
        scan = simulate_scan(
            job.benchmark.preset, 5, 0, "A", matrix=MATRIX, with_truth=False, deformation=0.0,
            anatomy=template(None, ventricles, 0.0),
        )  # fmt: skip
        csf.append(int((scan.labels == LABELS["csf"]).sum()))
    assert csf[1] > 1.05 * csf[0]
