"""The faults of a scan: each obeys its physics, grows with its severity and repeats from its seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simulation.anatomy import HEAD_CENTRE_MM, load_anatomy
from simulation.deformation import rotation
from simulation.faults import (
    CONTRAST_LOST,
    DISPLACEMENT_MM,
    EXTRA_NOISE,
    FAULTS,
    SPIKES,
    ZIPPER_LEVEL,
    banding,
    check_faults,
    contrast_loss,
    distortion,
    draw_poses,
    draw_severities,
    extra_noise,
    grade,
    line_times,
    mispositioned,
    motion,
    moving_kspace,
    zipper,
)
from simulation.geometry import FOV_MM, Pose
from simulation.scanner import Sampling, band_limit, noise, to_image
from util.errors import UserError

MATRIX, FINE, SLICES = 64, 128, 6
FULL, CUT = Sampling(MATRIX, MATRIX), Sampling(44, 50)
Z_MM = 5.0 * np.arange(SLICES)
SIGNALS = {"csf": 0.6, "gm": 0.3, "wm": 0.2, "fat": 0.5, "bone": 0.0, "soft": 0.1}
STRAIGHT = Pose(np.zeros(3), np.zeros(3))


def head(side: int = FINE, x_mm: float = 0.0, y_mm: float = 0.0, angle_deg: float = 0.0) -> NDArray[np.float32]:
    """Slices (n, side, side) of a soft-edged ellipsoid with two ventricles, turned from x to y and then shifted."""
    axis = (np.arange(side) - side / 2) * FOV_MM / side
    z, y, x = np.meshgrid(np.linspace(-50, 50, SLICES), axis - y_mm, axis - x_mm, indexing="ij")
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    x, y = cosine * x + sine * y, cosine * y - sine * x

    def blob(x0: float, width: float, length: float) -> NDArray[np.float64]:
        radius = np.sqrt(((x - x0) / width) ** 2 + (y / length) ** 2 + (z / 90) ** 2)
        return 1 / (1 + np.exp((radius - 1) * min(width, length) / 2.5))

    return (blob(0, 72, 92) + blob(-18, 12, 30) + blob(20, 12, 25)).astype(np.float32)


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


SIGNAL = head()
KSPACE = band_limit(SIGNAL, MATRIX, CUT)


def magnitude(kspace: NDArray[np.complex64]) -> NDArray[np.float32]:
    return np.abs(to_image(kspace)).astype(np.float32)


def still() -> NDArray[np.float32]:
    return magnitude(KSPACE)


IMAGE_FAULTS: dict[str, Callable[[float, int], NDArray[Any]]] = {
    "noise": lambda s, seed: magnitude(extra_noise(KSPACE, s, rng(seed), sampling=CUT, sigma=0.05)),
    "zipper": lambda s, seed: magnitude(zipper(KSPACE, s, rng(seed), sampling=CUT)),
    "banding": lambda s, seed: magnitude(banding(KSPACE, s, rng(seed))),
    "motion": lambda s, seed: magnitude(motion(SIGNAL, s, rng(seed), matrix=MATRIX, sampling=CUT)),
    "motion of trains": lambda s, seed: magnitude(
        motion(SIGNAL, s, rng(seed), matrix=MATRIX, sampling=Sampling(44, 50, 0.75), echoes=8)
    ),
    "distortion": lambda s, seed: magnitude(band_limit(distortion(SIGNAL, s, rng(seed), z_mm=Z_MM), MATRIX, CUT)),
}


# --- which, and how bad ------------------------------------------------------------------------------------------


def test_grades() -> None:
    assert [grade(s) for s in (0.0, 1e-3, 0.499, 0.5, 1.0)] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("bad", [{"ghost": 0.5}, {"noise": 0.0}, {"noise": 1.01}, {"zipper": float("nan")}])
def test_unknown_faults_and_severities_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        check_faults(bad)
    check_faults(dict.fromkeys(FAULTS, 1.0))


def test_every_fault_refuses_a_severity_outside_its_range() -> None:
    calls: list[Callable[[float], object]] = [lambda s, f=f: f(s, 0) for f in IMAGE_FAULTS.values()]
    calls += [lambda s: contrast_loss(SIGNALS, s), lambda s: mispositioned(STRAIGHT, s, rng())]
    for call in calls:
        for severity in (0.0, -0.1, 1.5, float("nan")):
            with pytest.raises(UserError, match="severity"):
                call(severity)


def test_severities_drawn_for_one_fault_do_not_depend_on_the_others() -> None:
    all_of_them = draw_severities(rng(), FAULTS, 1.0)
    assert list(all_of_them) == list(FAULTS) and all(0 < s <= 1 for s in all_of_them.values())
    assert draw_severities(rng(), ["zipper", "noise"], 1.0) == {n: all_of_them[n] for n in ("noise", "zipper")}
    assert draw_severities(rng(), FAULTS, 0.0) == {}
    ends = []
    for names, probability in ((FAULTS, 0.3), (("motion",), 1.0), ((), 0.0)):
        generator = rng()
        some = draw_severities(generator, names, probability)
        assert some.items() <= all_of_them.items()
        ends.append(generator.random())
    assert len(set(ends)) == 1
    many = [draw_severities(rng(seed), FAULTS, 0.3) for seed in range(300)]
    assert np.mean([len(some) for some in many]) == pytest.approx(0.3 * len(FAULTS), rel=0.1)
    with pytest.raises(UserError, match="ghost"):
        draw_severities(rng(), ["ghost"], 0.5)
    with pytest.raises(UserError, match="probability"):
        draw_severities(rng(), FAULTS, 1.5)


# --- what all faults of an image have in common -------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGE_FAULTS)
def test_change_grows_with_severity_from_next_to_nothing(name: str) -> None:
    fault = IMAGE_FAULTS[name]
    clean = fault(1e-9, 3)
    changes = [float(np.abs(fault(s, 3) - clean).mean()) for s in (1e-3, 0.1, 0.3, 0.6, 1.0)]
    assert all(low < high for low, high in itertools.pairwise(changes)), changes
    assert changes[0] < 2e-3 * clean.mean() < changes[-1]
    if name != "motion of trains":
        np.testing.assert_allclose(clean, still(), atol=1e-4)


@pytest.mark.parametrize("name", IMAGE_FAULTS)
def test_seed_decides_every_byte_and_inputs_stay(name: str) -> None:
    fault, signal, kspace = IMAGE_FAULTS[name], SIGNAL.copy(), KSPACE.copy()
    assert fault(0.7, 1).tobytes() == fault(0.7, 1).tobytes() != fault(0.7, 2).tobytes()
    assert np.array_equal(signal, SIGNAL) and np.array_equal(kspace, KSPACE)


def test_types() -> None:
    spectra = [
        extra_noise(KSPACE, 1, rng(), sampling=CUT, sigma=0.1),
        zipper(KSPACE, 1, rng(), sampling=CUT),
        banding(KSPACE, 1, rng()),
        motion(SIGNAL, 1, rng(), matrix=MATRIX, sampling=CUT),
        motion(SIGNAL * np.complex64(1j), 1, rng(), matrix=MATRIX, sampling=CUT),
    ]
    np.testing.assert_allclose(spectra[-1], 1j * spectra[-2], atol=1e-2)
    assert all(s.dtype == np.complex64 and s.shape == KSPACE.shape for s in spectra)
    distorted = distortion(SIGNAL, 1, rng(), z_mm=Z_MM)
    assert distorted.dtype == np.float32 and distorted.shape == SIGNAL.shape


# --- k-space -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", [0.2, 1.0])
def test_background_noise_rises_by_the_documented_factor(severity: float) -> None:
    own = noise(rng(0), (40, MATRIX, MATRIX), CUT, 0.05)
    noisy = to_image(extra_noise(own, severity, rng(1), sampling=CUT, sigma=0.05))
    expected = 0.05 * np.sqrt(1 + (EXTRA_NOISE * severity) ** 2)
    assert noisy.real.std() == pytest.approx(expected, rel=0.02) == pytest.approx(noisy.imag.std(), rel=0.02)


@pytest.mark.parametrize("sampling", [FULL, CUT, Sampling(MATRIX, MATRIX, 0.7)])
def test_zipper_sits_in_one_readout_column_of_all_slices(sampling: Sampling) -> None:
    added = zipper(KSPACE, 1, rng(), sampling=sampling) - KSPACE
    energy = np.abs(to_image(added)) ** 2
    along_readout = energy.sum((0, 1))
    column = int(along_readout.argmax())
    near = np.arange(column - 3, column + 4)
    assert along_readout[column] > 0.7 * along_readout.sum() and along_readout[near].sum() > 0.97 * along_readout.sum()
    assert (energy.sum(1).argmax(1) == column).all()
    dashes = energy[:, :, column]
    assert dashes.std() > 0.5 * dashes.mean(), "incoherent lines make dashes, not an even line"
    inside = still()[still() > still().mean()].mean()
    assert np.sqrt(dashes.mean()) == pytest.approx(ZIPPER_LEVEL * inside, rel=0.01)
    phase, read = sampling.windows(MATRIX)
    assert not added[:, phase == 0].any() and not added[:, :, read == 0].any()


def test_zipper_and_bands_go_with_the_brightness_of_the_head() -> None:
    for added in (
        lambda k: zipper(k, 1, rng(), sampling=CUT) - k,
        lambda k: banding(k, 1, rng()) - k,
    ):
        np.testing.assert_allclose(added(2 * KSPACE), 2 * added(KSPACE), rtol=1e-4, atol=1e-2)


def test_banding_leaves_all_but_the_spiked_samples() -> None:
    spiked = banding(KSPACE, 1, rng())
    changed = spiked != KSPACE
    per_slice = changed.sum((1, 2))
    assert 1 <= (per_slice > 0).sum() <= SLICES and per_slice.max() <= SPIKES
    row, column = np.nonzero(changed.any(0))
    radius = np.hypot(row - MATRIX // 2, column - MATRIX // 2)
    assert radius.min() > 3 and radius.max() < MATRIX / 4, "coarse stripes, inside the lines of any protocol"
    assert row.min() >= MATRIX // 2, "and in the half that partial Fourier measures"
    one = banding(np.ones((1, MATRIX, MATRIX), np.complex64), 1, rng())
    assert (one != 1).any(), "a scan that has banding shows it"


def test_lines_of_one_pose_are_those_of_the_shifted_head() -> None:
    pose_of_line = np.zeros(MATRIX, int)
    pixel = FOV_MM / MATRIX
    poses = np.array([[2 * pixel, -3 * pixel, 0.0]])
    shifted = to_image(moving_kspace(SIGNAL, poses, pose_of_line, matrix=MATRIX, sampling=CUT))
    np.testing.assert_allclose(shifted, np.roll(to_image(KSPACE), (-3, 2), (1, 2)), atol=1e-5)
    poses = np.array([[1.3, -2.1, 0.0]])
    shifted = to_image(moving_kspace(SIGNAL, poses, pose_of_line, matrix=MATRIX, sampling=CUT))
    np.testing.assert_allclose(shifted, to_image(band_limit(head(FINE, 1.3, -2.1), MATRIX, CUT)), atol=2e-3)


def test_lines_of_one_pose_are_those_of_the_turned_head() -> None:
    poses, pose_of_line = np.array([[1.3, -2.1, 8.0]]), np.zeros(MATRIX, int)
    turned = to_image(moving_kspace(SIGNAL, poses, pose_of_line, matrix=MATRIX, sampling=CUT))
    expected = to_image(band_limit(head(FINE, 1.3, -2.1, 8.0), MATRIX, CUT))
    assert np.abs(turned - expected).max() < 0.02 < 0.2 < np.abs(to_image(KSPACE) - expected).max()


def test_each_line_has_the_pose_of_its_moment() -> None:
    poses, pose_of_line = np.array([[0.0, 0.0, 0.0], [5.0, 2.0, 3.0]]), np.arange(MATRIX) // 8 % 2
    mixed = moving_kspace(SIGNAL, poses, pose_of_line, matrix=MATRIX, sampling=CUT)
    for number in (0, 1):
        alone = moving_kspace(SIGNAL, poses, np.full(MATRIX, number), matrix=MATRIX, sampling=CUT)
        assert np.array_equal(mixed[:, pose_of_line == number], alone[:, pose_of_line == number])


def test_head_lies_still_where_the_middle_line_is_taken() -> None:
    moved = motion(SIGNAL, 1, rng(), matrix=MATRIX, sampling=CUT)
    middle = MATRIX // 2
    np.testing.assert_array_equal(moved[:, middle], KSPACE[:, middle])
    assert not np.allclose(moved[:, middle - 18], KSPACE[:, middle - 18])


@pytest.mark.parametrize("sampling", [CUT, Sampling(44, 44, 0.625)])
def test_lines_are_taken_in_order_or_by_trains(sampling: Sampling) -> None:
    phase, _ = sampling.windows(MATRIX)
    measured = line_times(MATRIX, sampling, 1)[phase > 0]
    assert (np.diff(measured) > 0).all() and measured[0] < 0.1 and 0.9 < measured[-1] < 1
    trains = line_times(MATRIX, Sampling(MATRIX, MATRIX), 8)
    np.testing.assert_allclose(trains.reshape(8, 8), np.broadcast_to(np.arange(8) / 8, (8, 8)), atol=1e-9)


def test_poses_are_those_of_the_published_preset() -> None:
    for seed in range(30):
        moments, poses = draw_poses(rng(seed), 0.5)
        assert (
            poses.shape == (len(moments) + 1, 3) and (np.diff(moments) > 0).all() and 0 < moments[0] < moments[-1] < 1
        )
        assert np.hypot(*(poses - poses[0])[:, :2].T).max() <= 1 + 2 + 3
        assert 1.5 - 0.7 <= np.abs(poses[-1, 2] - poses[0, 2]) <= 2 + 0.7
        np.testing.assert_array_equal(draw_poses(rng(seed), 1.0)[0], moments)
        np.testing.assert_allclose(draw_poses(rng(seed), 1.0)[1], 2 * poses)


# --- before k-space ----------------------------------------------------------------------------------------------


def test_distortion_conserves_the_signal_and_moves_it_by_millimetres() -> None:
    distorted = distortion(SIGNAL, 1, rng(), z_mm=Z_MM)
    np.testing.assert_allclose(distorted.sum(-1), SIGNAL.sum(-1), rtol=0.01, atol=0.01)
    assert distorted.min() >= 0
    comb = np.zeros((SLICES, FINE, FINE), np.float32)
    teeth = np.arange(24, FINE - 24, 16)
    comb[:, :, teeth] = 1
    moved = distortion(comb, 1, rng(), z_mm=Z_MM)
    reach = np.arange(-8, 8)
    places = (moved[:, :, teeth[:, None] + reach] * reach).sum(-1) / moved[:, :, teeth[:, None] + reach].sum(-1)
    largest = np.abs(places).max() * FOV_MM / FINE
    assert 0.3 * DISPLACEMENT_MM < largest < 1.05 * DISPLACEMENT_MM


@pytest.mark.parametrize("seed", range(6))
def test_distortion_nowhere_folds(seed: int) -> None:
    ones = distortion(np.ones_like(SIGNAL), 1, rng(seed), z_mm=Z_MM)[:, :, 12:-12]
    assert 0.5 < ones.min() < 1 < ones.max() < 1.5


def test_contrast_loss_keeps_the_mean_of_the_three_and_all_else() -> None:
    brain = ("gm", "wm", "csf")
    for severity in (0.01, 0.5, 1.0):
        flat = contrast_loss(SIGNALS, severity)
        assert sum(flat[n] for n in brain) == pytest.approx(sum(SIGNALS[n] for n in brain))
        left = 1 - CONTRAST_LOST * severity
        assert flat["csf"] - flat["wm"] == pytest.approx(left * (SIGNALS["csf"] - SIGNALS["wm"]))
        assert {n: flat[n] for n in ("fat", "bone", "soft")} == {n: SIGNALS[n] for n in ("fat", "bone", "soft")}
    inverted = contrast_loss({**SIGNALS, "csf": -0.6}, 1.0)
    assert inverted["csf"] == pytest.approx(-contrast_loss(SIGNALS, 1.0)["csf"])
    arrays = contrast_loss({name: np.array([value, 2 * value]) for name, value in SIGNALS.items()}, 0.5)
    for name, value in contrast_loss(SIGNALS, 0.5).items():
        np.testing.assert_allclose(arrays[name], [value, 2 * value])


def fraction_outside(pose: Pose) -> float:
    """How much of the embedded head lies outside the field of view."""
    anatomy = load_anatomy()
    index = np.argwhere(anatomy.fractions[:, ::8, ::8, ::8].sum(0) > 0.5).T * 8
    from_centre = anatomy.affine[:3, :3] @ index + anatomy.affine[:3, 3:] - HEAD_CENTRE_MM[:, None]
    scan = rotation(pose.angles_deg).T @ (from_centre - pose.shift_mm[:, None])
    return float((np.abs(scan[:2]) > FOV_MM / 2).any(0).mean())


def test_mispositioned_head_leaves_the_field_of_view() -> None:
    assert fraction_outside(STRAIGHT) == 0
    for seed in range(8):
        shares = [fraction_outside(mispositioned(STRAIGHT, s, rng(seed))) for s in (0.01, 0.3, 1.0)]
        assert shares[0] == 0 and shares[1] < 0.01 and 0.001 < shares[2] < 0.15, shares


def test_mispositioned_adds_to_the_pose_in_proportion() -> None:
    pose = Pose(np.array([1.0, -2.0, 3.0]), np.array([-4.0, 5.0, 6.0]))
    full, half = mispositioned(pose, 1.0, rng()), mispositioned(pose, 0.5, rng())
    np.testing.assert_allclose(half.angles_deg - pose.angles_deg, 0.5 * (full.angles_deg - pose.angles_deg))
    np.testing.assert_allclose(half.shift_mm - pose.shift_mm, 0.5 * (full.shift_mm - pose.shift_mm))
    assert (np.abs(full.shift_mm - pose.shift_mm) > 10).all()
