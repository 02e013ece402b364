"""`scripts/register_pairs.py`: known placings are found again, bad ones are told, and test.py finds the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_up_volumes import write_volumes
from numpy.typing import NDArray
from PIL import Image
from test_testing import make_run, run_test

import preprocessing_images
from data.folder.slices import read_image
from preprocessing.nifti import read_nifti
from scripts import pairs_picture, register_pairs, slice_registration
from scripts.registration_quality import best_shift, qualities
from scripts.slice_registration import Placing, Registered, register, warp
from util.errors import UserError

Floats = NDArray[np.floating]

SIDE = 80  # pixels of the low-field slices
SLICES = 2
RADII = np.array([30.0, 24.0])  # of the head, in low-field pixels
CENTRE = np.array([41.0, 38.0])
RNG_SEED = 3  # of the blobs and of the noise


def anatomy(points: Floats, level: int) -> Floats:
    """A head with a bright rim and blobs, at any points (2, ...) in low-field pixels."""
    rng = np.random.default_rng(RNG_SEED + level // 2)
    offset = points - CENTRE.reshape(2, *[1] * (points.ndim - 1))
    radius = np.sqrt(sum((part / side) ** 2 for part, side in zip(offset, RADII - level, strict=True)))
    inside = 1 / (1 + np.exp((radius - 1) * 25))
    image = 0.45 + 0.4 * np.exp(-(((radius - 0.93) / 0.05) ** 2))
    for _ in range(14):
        place, width = CENTRE + rng.uniform(-0.7, 0.7, 2) * RADII, rng.uniform(2, 5)
        distance = sum((part - at) ** 2 for part, at in zip(points, place, strict=True))
        image = image + rng.choice([-0.3, 0.35]) * np.exp(-distance / (2 * width**2))
    return np.asarray(np.clip(image, 0.05, 1) * inside)


def scans(truth: Placing, shape: tuple[int, int], *, noise: float = 0.04, folded: bool = True) -> tuple[Floats, Floats]:
    """Slices of low field, noisy, and of high field, which lie as `truth` says.

    The contrast is the same, or `folded`: dark and bright structures of the low field are bright alike.
    """
    rng = np.random.default_rng(RNG_SEED)
    low, high = [], []
    grid = np.indices(shape).astype(float)
    there = np.linalg.inv(truth.matrix) @ (grid.reshape(2, -1) - truth.place[:, None]) + truth.centre[:, None]
    for level in range(SLICES):
        clean = anatomy(np.indices((SIDE, SIDE)).astype(float), level)
        low.append(np.hypot(clean + rng.normal(0, noise, clean.shape), rng.normal(0, noise, clean.shape)))
        other = anatomy(there, level).reshape(shape)
        bright = 0.2 * np.tanh(other / 0.1) + np.abs(other - 0.45) * np.tanh(other / 0.3)
        high.append(100 * (bright if folded else other))
    return np.stack(low), np.stack(high)


def placed(
    shift: tuple[float, float], turn: float, scales: tuple[float, float], middle: tuple[float, float]
) -> Placing:
    """A placing by its parts: shift in low-field pixels, turn in degrees, middle of the high-field slice in pixels."""
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    matrix = np.diag(scales) @ np.array([[cos, -sin], [sin, cos]])
    return Placing(matrix, CENTRE, np.array(middle) + matrix @ np.array(shift))


def errors_px(found: Placing, truth: Placing, mask: NDArray[np.bool_]) -> Floats:
    """How far off each pixel of the head is, in low-field pixels."""
    points = np.argwhere(mask).T.astype(float)
    return np.asarray(np.linalg.norm(np.linalg.inv(truth.matrix) @ (found.of(points) - truth.of(points)), axis=0))


@pytest.mark.parametrize(
    ("truth", "shape"),
    [
        (placed((0, 0), 0, (1, 1), (41, 38)), (80, 80)),
        (placed((5, -4), 0, (1.9, 1.9), (75, 80)), (150, 160)),
        (placed((-2, 3), 8, (2.2, 2.0), (90, 84)), (180, 170)),
        (placed((3, 2), -6, (0.8, 0.9), (35, 34)), (72, 72)),
    ],
    ids=["same", "shifted, other pixels", "turned, two scales", "coarser high field"],
)
def test_known_placings_are_found_within_half_a_pixel(truth: Placing, shape: tuple[int, int]) -> None:
    low, high = scans(truth, shape)
    found = register(low, high, "sub")
    for placing, mask in zip(found.placings, found.low_mask, strict=True):
        off = errors_px(placing, truth, mask)
        assert np.median(off) < 0.5 and off.max() < 1.0
    assert found.high.shape == low.shape


def test_a_wrong_placing_is_told_by_its_quality() -> None:
    truth = placed((0, 0), 0, (1, 1), (41, 38))
    low, high = scans(truth, (SIDE, SIDE), noise=0.02, folded=False)
    found = register(low, high, "sub")
    shifted = np.roll(found.high, 2, axis=1)
    wrong = Registered(found.placings, shifted, found.low_mask, np.roll(found.high_mask, 2, axis=1))
    good, bad = qualities(low, found)[0], qualities(low, wrong)[0]
    assert bad.misfit_px == pytest.approx(2, abs=0.5) and good.misfit_px == pytest.approx(0, abs=0.5)
    assert good.dice > 0.9 and good.quarters == 4
    assert bad.dice < good.dice and (bad.edge_corr or 0) < (good.edge_corr or 0)


def test_best_shift_is_that_of_a_shifted_image_and_none_for_noise() -> None:
    rng = np.random.default_rng(0)
    image = anatomy(np.indices((SIDE, SIDE)).astype(float), 0)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[20:60, 20:60] = True
    assert best_shift(image, np.roll(image, (-2, 3), (0, 1)), inside, 5) == pytest.approx((2, -3), abs=0.2)
    assert best_shift(image, rng.normal(size=image.shape), inside, 5) is None
    assert best_shift(np.ones_like(image), image, inside, 5) is None


def test_a_turn_and_scales_are_read_from_a_placing_and_warping_keeps_the_mean() -> None:
    truth = placed((0, 0), 0, (2, 3), (80, 110))
    turned = truth.changed(np.array([0, 0, np.radians(5), 0, 0, 0]), 50)
    assert truth.scales == pytest.approx((2, 3)) and truth.turn_deg == pytest.approx(0, abs=1e-9)
    assert placed((0, 0), 7, (2, 2), (0, 0)).turn_deg == pytest.approx(7)
    assert np.linalg.det(turned.matrix) == pytest.approx(6)
    high = scans(truth, (170, 230))[1][0]
    low = warp(high, truth, (SIDE, SIDE))
    assert low.sum() * 6 == pytest.approx(high.sum(), rel=0.02)


def test_slices_without_a_head_and_heads_of_another_plane_are_refused() -> None:
    low, high = scans(placed((0, 0), 0, (1, 1), (41, 38)), (SIDE, SIDE))
    empty = low.copy()
    empty[1] = 0
    with pytest.raises(UserError, match=r"sub, low field: no head found in slice 2 of 2"):
        register(empty, high, "sub")
    long = scans(placed((0, 0), 0, (1, 3.4), (41, 140)), (SIDE, 280))[1]
    with pytest.raises(UserError, match=r"shapes differ by a factor of .*same plane"):
        register(low, long, "sub")


# the program ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that a training could have had."""
    root = tmp_path_factory.mktemp("training")
    fractions = ["--val_fraction", "0", "--test_fraction", "0", "--pixel_mm", "2", "--fov_mm", "100", "--workers", "1"]
    preprocessing_images.main([*write_volumes(root), *fractions, "--out", str(root / "data")])
    return root / "data"


def save(path: Path, slices: Floats, affine: Floats) -> None:
    """Save slices (S, H, W), anterior on top, as a volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.flip(slices.transpose(2, 1, 0), axis=1)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(volume, np.float32), affine), path)


@pytest.fixture
def scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders `low` and `high` with a volume of one person; they are registered from one start, which is quicker."""
    monkeypatch.setattr(slice_registration, "GROWTHS", (1.0,))
    low, high = scans(placed((2, -3), 4, (1.5, 1.5), (62, 60)), (125, 120))
    save(tmp_path / "low" / "sub-01_64mT_T2w.nii.gz", low, np.diag([1.0, 1.0, 5.0, 1.0]))
    save(tmp_path / "high" / "sub-01_3T_T2w.nii.gz", high, np.diag([0.6, 0.6, 5.0, 1.0]))
    return tmp_path


def arguments(root: Path, training: Path, *more: str) -> list[str]:
    flags = {"--low": root / "low", "--high": root / "high", "--like": training, "--out": root / "out"}
    return [*(str(part) for flag in flags.items() for part in flag), *more]


def test_a_pair_becomes_a_test_folder_whose_truth_test_py_compares_with(scanned: Path, training: Path) -> None:
    assert register_pairs.main(arguments(scanned, training)) == 0
    data = scanned / "out" / "data"
    stems = sorted(path.name for path in (data / "testA").iterdir())
    assert len(stems) == SLICES and stems == sorted(path.name for path in (data / "testA_truth").iterdir())
    assert read_image(data / "testA_truth" / stems[0]).shape == (50, 50)
    table = (scanned / "out" / "registration.csv").read_text().splitlines()
    assert len(table) == 1 + SLICES and table[0].startswith("subject,slice,turn_deg")
    assert (scanned / "out" / "registration.png").stat().st_size > 10_000
    for name in ("low", "high"):
        _, affine, geometry = read_nifti(scanned / "out" / name / "sub-01_64mT_T2w.nii.gz")
        assert geometry.shape == (SIDE, SIDE, SLICES) and np.diag(affine) == pytest.approx([1, 1, 5, 1])
    make_run(scanned / "cyc", "cycle_gan")
    results, metrics = run_test(data, scanned, "cyc")
    rows = metrics["paired"]
    assert set(rows) >= {"fake_B", "identity", "histogram", "classical"}
    assert all(isinstance(rows[row]["edge_corr"]["mean"], float) for row in ("fake_B", "identity", "classical"))
    pairs_picture.main([str(results), "--out", str(scanned / "pairs.png")])
    with Image.open(scanned / "pairs.png") as picture:
        assert picture.mode == "L" and picture.width * 4 == picture.height * SLICES  # four rows, a column a slice
    (data / "testA_truth").rename(data / "elsewhere")
    with pytest.raises(UserError, match="need a test with truth"):
        pairs_picture.main([str(results), "--out", str(scanned / "pairs.png")])
    with pytest.raises(UserError, match=r"low: no metrics.json with the data folder's name"):
        pairs_picture.main([str(scanned / "low"), "--out", str(scanned / "pairs.png")])


def test_voxel_sides_can_be_given_and_a_folder_be_written_again(scanned: Path, training: Path) -> None:
    register_pairs.main(arguments(scanned, training, "--voxel_mm", "1.2", "1.2", "7"))
    affine = nibabel.load(scanned / "out" / "high" / "sub-01_64mT_T2w.nii.gz").affine
    assert np.diag(affine) == pytest.approx([1.2, 1.2, 7, 1])
    with pytest.raises(UserError, match=r"--out .*is not empty.*--overwrite"):
        register_pairs.main(arguments(scanned, training))
    (scanned / "out" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"contains other files \(notes.txt\)"):
        register_pairs.main(arguments(scanned, training, "--overwrite"))
    (scanned / "out" / "notes.txt").unlink()
    assert register_pairs.main(arguments(scanned, training, "--overwrite")) == 0
    assert (training / "trainB").is_dir() and any((training / "trainB").iterdir())  # links are cut, not followed


def rename(name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / "high" / "sub-01_3T_T2w.nii.gz").rename(root / "high" / name)

    return damage


def _second_contrast(root: Path) -> None:
    save(root / "high" / "sub-01_3T_T1w.nii.gz", np.ones((2, 40, 40)), np.eye(4))


def _fewer_slices(root: Path) -> None:
    save(root / "high" / "sub-01_3T_T2w.nii.gz", scans(placed((0, 0), 0, (1, 1), (41, 38)), (80, 80))[1][:1], np.eye(4))


def _other_plane(root: Path) -> None:
    save(root / "high" / "sub-01_3T_T2w.nii.gz", np.random.default_rng(0).random((40, 40, 3)), np.diag([5.0, 1, 1, 1]))


def _tiny(root: Path) -> None:
    save(root / "high" / "sub-01_3T_T2w.nii.gz", np.random.default_rng(0).random((2, 20, 20)), np.diag([1.0, 1, 5, 1]))


def _no_head(root: Path) -> None:
    save(root / "high" / "sub-01_3T_T2w.nii.gz", np.eye(64)[None].repeat(2, 0), np.diag([1.0, 1, 5, 1]))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (rename("sub-02_3T_T2w.nii.gz"), r"--low .*sub-01_64mT_T2w.nii.gz .*no partner in --high"),
        (_second_contrast, r"--high .*sub-01_3T_T1w.nii.gz and sub-01_3T_T2w.nii.gz show one person"),
        (_fewer_slices, r"1 slices, sub-01_64mT_T2w.nii.gz has 2; slices are paired by their order"),
        (_other_plane, r"slices are sagittal, those of sub-01_64mT_T2w.nii.gz axial"),
        (_tiny, r"need at least 32 a side"),
        (_no_head, r"high field: no head found in slice 1 of 2"),
    ],
)
def test_volumes_that_are_no_pair_are_refused_and_nothing_is_left(
    scanned: Path, training: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(scanned)
    with pytest.raises(UserError, match=sentence):
        register_pairs.main(arguments(scanned, training))
    assert not any((scanned / "out").iterdir()) if (scanned / "out").exists() else True


def test_wrong_folders_and_numbers_are_refused(scanned: Path, training: Path) -> None:
    with pytest.raises(UserError, match=r"--like .*no manifest.json"):
        register_pairs.main(arguments(scanned, scanned / "low"))
    with pytest.raises(UserError, match=r"--voxel_mm 1.0 0.0 5.0: need three numbers above 0"):
        register_pairs.main(arguments(scanned, training, "--voxel_mm", "1", "0", "5"))
    (scanned / "high" / "sub-01_3T_T2w.nii.gz").unlink()
    with pytest.raises(UserError, match=r"--high .*no .nii or .nii.gz file found"):
        register_pairs.main(arguments(scanned, training))


def test_information_is_largest_for_equal_samples_and_does_not_mind_the_contrast() -> None:
    rng = np.random.default_rng(1)
    one = rng.random(4000) * (slice_registration.BINS - 1)
    same = slice_registration.normalised_information(one, one)
    turned = slice_registration.normalised_information(one, slice_registration.BINS - 1 - one)
    unlike = slice_registration.normalised_information(one, rng.permutation(one))
    assert same == pytest.approx(turned, abs=1e-6) and same > 1.2 > 1.1 > unlike > 1
