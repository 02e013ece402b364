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
from scipy import ndimage
from skimage.morphology import convex_hull_image

from data.folder.manifest import read_manifest
from simulation.anatomy import FURTHER, LABELS, TISSUES, Anatomy, load_anatomy, save_anatomy
from simulation.benchmark import Benchmark, plan_scans, template, write_benchmark, write_scan
from simulation.deformation import draw_shape, rotation
from simulation.extent import CROPPED
from simulation.geometry import draw_geometry, head_extent_mm
from simulation.presets import (
    CLINICAL_FLAIR,
    HIGH_T1W,
    HIGH_T2W,
    LOW_FLAIR,
    LOW_T1W,
    LOW_T2W,
    M4RAW_FLAIR,
    M4RAW_T1W,
    PRESETS,
    ULTRA_T1W,
    Protocol,
    find_preset,
    with_acquisition,
    with_timings,
)
from simulation.sequences import SpinEcho
from simulation.subject import Scan, Scanner, draw_head, simulate_scan
from simulation.tissue import FIELDS_T, draw_jitter, tissues_at
from util.errors import UserError

MATRIX = 48
SMALL = Benchmark(find_preset("paper"), n_train=1, n_val=1, n_test=0, seed=5, bits=16, matrix=32)
CSF, GM, WM, FAT, BONE, SOFT, DGM = range(7)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return load_anatomy()


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate_scan(find_preset("same-contrast"), 0, 3, "A", matrix=MATRIX, with_truth=True)


# --- anatomy -----------------------------------------------------------------------------------------------------


def test_fractions_are_partial_volumes(anatomy: Anatomy) -> None:
    fractions = anatomy.fractions
    assert fractions.shape == (len(TISSUES + FURTHER), 181, 217, 181) and fractions.dtype == np.float32
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
    assert at(-24, 4, 2)[GM] + at(-24, 4, 2)[DGM] > 0.5 and at(-24, 4, 2)[DGM] > 0.2, "putamen"
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
    with pytest.raises(UserError, match="tissue 'liver': unknown, choose from csf"):
        tissues_at(3.0, names=("wm", "liver"))
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

    for flair in (LOW_FLAIR, M4RAW_FLAIR, CLINICAL_FLAIR):
        assert signals(flair)["csf"] <= 0.3 * signals(flair)["wm"]
    ratio = {p.b0_t: signals(p)["gm"] / signals(p)["wm"] for p in (M4RAW_T1W, HIGH_T1W, ULTRA_T1W)}
    assert abs(math.log(ratio[0.3])) < abs(math.log(ratio[3.0])) and ratio[3.0] < 0.8 and ratio[7.0] < 0.8


def test_timings_by_option_and_what_a_sequence_cannot_take() -> None:
    slower = with_timings(HIGH_T1W, "--ti_B", ti_ms=900.0, tr_ms=None)
    assert slower.sequence == replace(HIGH_T1W.sequence, ti_ms=900.0) and slower.name == "3T-T1w[ti=900]"
    assert with_timings(LOW_T2W, "", tr_ms=None) is LOW_T2W
    with pytest.raises(UserError, match="T1w is a SpinEcho, which has no ti_ms"):
        with_timings(M4RAW_T1W, "--ti_A", ti_ms=300.0)
    with pytest.raises(UserError, match="--tr_A: spin echo: tr_ms = 0, must be a positive number"):
        with_timings(M4RAW_T1W, "--tr_A", tr_ms=0)
    with pytest.raises(UserError, match="do not fit"):
        with_timings(LOW_T1W, "--ti_A", ti_ms=1450.0)
    with pytest.raises(UserError, match="must be below tr_ms"):
        with_timings(LOW_T1W, "--ti_A", ti_ms=3000.0)


def test_thickness_partial_fourier_and_snr_by_option() -> None:
    thin = with_acquisition(HIGH_T1W, thickness_mm=1.0, partial_fourier=0.75, snr_wm=None)
    assert thin.name == "3T-T1w[thickness=1,partial=0.75]" and thin.partial_fourier == 0.75
    assert thin.snr_wm == pytest.approx(HIGH_T1W.snr_wm / 5), "a fifth of the voxel"
    assert with_acquisition(HIGH_T1W, thickness_mm=1.0, snr_wm=40.0).snr_wm == 40
    assert with_acquisition(HIGH_T1W, thickness_mm=None) is HIGH_T1W


def test_truth_has_the_high_field_slice_profile_at_the_low_field_places(anatomy: Anatomy) -> None:
    head = draw_head(0, 3)
    geometry = draw_geometry(np.random.default_rng(0), anatomy, head.shape, matrix=MATRIX, thickness_mm=5.0)
    scanner = Scanner(head, geometry, anatomy)
    for thickness in (2.0, 8.0):
        truth = scanner.with_slices_of(replace(HIGH_T2W, thickness_mm=thickness)).ideal(HIGH_T2W)
        k = len(truth) // 2
        alone = replace(geometry, thickness_mm=thickness, z_mm=geometry.z_mm[k : k + 1])
        assert np.allclose(truth[k], Scanner(head, alone, anatomy).ideal(HIGH_T2W)[0], atol=0.02)
        assert np.abs(truth[k] - scanner.ideal(HIGH_T2W)[k]).max() > 0.05, "another profile is another image"
    assert scanner.with_slices_of(HIGH_T2W) is scanner


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
    noise = scan.drawn["sigma"] * math.sqrt(math.pi / 2)
    assert 0.98 * noise < scan.image[air].mean() < 1.25 * noise, "and a little ringing of the scalp"


# --- geometry ----------------------------------------------------------------------------------------------------


def test_scan_volumes_and_levels(scan: Scan) -> None:
    n = scan.image.shape[2]
    assert scan.image.shape == scan.labels.shape == scan.truth_mask.shape == (MATRIX, MATRIX, n)
    assert scan.level_mm.shape == (n,) and (np.diff(scan.level_mm) > 2).all()
    assert np.allclose(np.diag(scan.affine), (240 / MATRIX, 240 / MATRIX, 5.0, 1.0))
    assert set(np.unique(scan.labels)) <= set(range(7)) and {1, 2, 3, 4, 5, 6} <= set(np.unique(scan.labels))
    assert not scan.truth_mask[0].any() and scan.truth_mask[:, :, n // 2].mean() > 0.3


def test_coverage_is_cropped_between_0_and_25_percent(anatomy: Anatomy) -> None:
    crops, most = [], CROPPED.bottom[1]
    assert CROPPED.bottom == CROPPED.top == (0, 0.25)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shape = draw_shape(rng)
        geometry = draw_geometry(rng, anatomy, shape, matrix=MATRIX, thickness_mm=5.0)
        low, high = head_extent_mm(anatomy, shape, geometry.pose)
        lost = ((geometry.z_mm[0] - low) / (high - low), (high - geometry.z_mm[-1]) / (high - low))
        slack = 5.0 / (high - low)
        assert all(0 <= part <= most + slack for part in lost)
        assert all(0 <= crop <= most for crop in geometry.crop)
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
    assert set(PRESETS) == {"same-contrast", "paper", "coverage", "m4raw-to-3T", "3T-to-7T"}
    assert PRESETS["same-contrast"].low == PRESETS["paper"].low
    with pytest.raises(UserError, match="--simulate other"):
        find_preset("other")
    assert PRESETS["same-contrast"].low == PRESETS["coverage"].low
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
            anatomy=template("colin27", None, ventricles, 0.0),
        )  # fmt: skip
        csf.append(int((scan.labels == LABELS["csf"]).sum()))
    assert csf[1] > 1.05 * csf[0]
