"""Anatomies other than the embedded one, and what makes heads differ: own maps, shape, ventricles, sulci."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from simulation.anatomy import FURTHER, HEAD_CENTRE_MM, LABELS, LESIONS, TISSUES, Anatomy, by_voxel, load_anatomy
from simulation.atrophy import lateral_ventricles, with_atrophy
from simulation.deformation import MAX_AMOUNT, draw_shape
from simulation.geometry import draw_geometry, slice_head
from simulation.label_maps import SCALP, SKULL, from_labels, read_anatomy
from util.errors import UserError

CORTEX, WHITE, VENTRICLE, SKIN = 3, 2, 4, 258
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def coarse() -> Anatomy:
    """The embedded head at 2 mm, its origin moved: everything is quick, and nothing may rely on the embedded affine."""
    embedded = load_anatomy()
    even = embedded.fractions[:, :180, :216, :180].reshape(len(embedded.tissues), 90, 2, 108, 2, 90, 2)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = embedded.affine[:3, 3] + 0.5 + [100, -50, 30]
    return Anatomy(by_voxel(even.mean((2, 4, 6))), affine, embedded.tissues)


def six_fractions(anatomy: Anatomy) -> NDArray[np.float32]:
    """Fractions (X, Y, Z, 6) for a NIfTI file: deep grey matter counts as grey, blood as soft tissue."""
    six = anatomy.fractions[: len(TISSUES)].copy()
    six[TISSUES.index("gm")] += anatomy.fraction("dgm")
    six[TISSUES.index("soft")] += anatomy.fraction("blood")
    return np.moveaxis(six, 0, -1)


def ball(shape: tuple[int, int, int], spacing: tuple[float, float, float], centre_mm: Array, radius: float) -> Array:
    place = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"))
    return np.linalg.norm(place - centre_mm.reshape(3, 1, 1, 1), axis=0) < radius


def brain_labels(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> NDArray[np.int16]:
    """A spherical brain of cortex, white matter and a ventricle, which lies to the right, in front and above."""
    centre = np.array([(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True)])
    labels = np.zeros(shape, np.int16)
    labels[ball(shape, spacing, centre, 60)] = CORTEX
    labels[ball(shape, spacing, centre, 56)] = WHITE
    labels[ball(shape, spacing, centre + np.array([12, 18, 24]), 14)] = VENTRICLE
    return labels


def save(path: Path, values: NDArray, affine: Array) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def centred(spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> Array:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True)]
    return affine


def ventricle_mm(anatomy: Anatomy) -> Array:
    """Middle of the fluid within the brain, in mm."""
    place = np.stack(np.meshgrid(*[np.arange(n) for n in anatomy.brain.shape], indexing="ij"))
    processes = np.einsum("ij,j...->i...", anatomy.affine[:3, :3], place) + anatomy.affine[:3, 3].reshape(3, 1, 1, 1)
    inner = (np.linalg.norm(processes, axis=0) < 50) * anatomy.fraction("csf")
    return np.asarray((processes * inner).sum((1, 2, 3)) / inner.sum())


# --- label maps --------------------------------------------------------------------------------------------------


def test_labels_of_a_brain_get_a_head(tmp_path: Path) -> None:
    shape, spacing = (64, 64, 64), (2.0, 2.0, 2.0)
    path = save(tmp_path / "labels.nii.gz", brain_labels(shape, spacing), centred(spacing, shape))
    anatomy = read_anatomy(path)
    assert anatomy.tissues == TISSUES and anatomy.fractions.dtype == np.float32
    assert anatomy.fractions.min() >= 0 and anatomy.fractions.sum(0).max() <= 1 + 1e-5
    litres = anatomy.brain.sum() * 8 / 1e6
    assert litres == pytest.approx(4 / 3 * np.pi * (60**3 - 14**3) / 1e6, rel=0.02)
    inverse = np.linalg.inv(anatomy.affine)
    across = anatomy.fractions[:, :, *np.rint((inverse @ [0, 0, 0, 1])[1:3]).astype(int)]
    left = across[:, : across.shape[1] // 2]
    order = [
        int((left[TISSUES.index(name)] * np.arange(left.shape[1])).sum() / left[TISSUES.index(name)].sum())
        for name in ("fat", "bone", "gm", "wm")
    ]
    assert order == sorted(order), "from the skin inwards: fat, bone, cortex, white matter"
    grown = sum(thickness for thickness, _ in SKULL + SCALP)
    assert across.sum() * 2 == pytest.approx(120 + 2 * grown, abs=2), "shells keep their thickness below a voxel"


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_orientation_comes_from_the_affine(tmp_path: Path, codes: str) -> None:
    shape, spacing = (60, 64, 68), (2.2, 2.0, 2.4)
    image = nibabel.Nifti1Image(brain_labels(shape, spacing), centred(spacing, shape))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(turn), tmp_path / "turned.nii.gz")
    anatomy = read_anatomy(tmp_path / "turned.nii.gz")
    assert nibabel.aff2axcodes(anatomy.affine) == ("R", "A", "S")
    assert ventricle_mm(anatomy) == pytest.approx([12, 18, 24], abs=1)
    assert anatomy.centre_mm == pytest.approx([0, 0, 4], abs=2.5)


def test_oblique_affines_place_the_head_where_they_say(tmp_path: Path) -> None:
    shape, spacing = (64, 64, 64), (2.0, 2.0, 2.0)
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = save(tmp_path / "oblique.nii", brain_labels(shape, spacing), turn @ centred(spacing, shape))
    anatomy = read_anatomy(path)
    assert ventricle_mm(anatomy) == pytest.approx((turn @ [12, 18, 24, 1])[:3], abs=1)
    assert anatomy.spacing_mm == pytest.approx(spacing)


def test_labels_with_a_head_are_left_without_shells_and_hypointensities_are_lesions() -> None:
    labels = brain_labels((40, 40, 40), (4.0, 4.0, 4.0))
    labels[labels == 0] = SKIN
    labels[20, 20, 14] = 77
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    anatomy = from_labels(labels, affine, "labels")
    assert anatomy.fractions.shape[1:] == labels.shape and np.array_equal(anatomy.affine, affine)
    assert anatomy.tissues == (*TISSUES, "wmh") and anatomy.fraction("wmh")[20, 20, 14] > 0.3
    assert anatomy.fraction("bone").max() == 0 and anatomy.fraction("soft")[0, 0, 0] > 0.99
    assert anatomy.label_numbers.tolist() == [0, 1, 2, 3, 4, 5, 6, LABELS["wmh"]]


def test_label_maps_that_are_none(tmp_path: Path) -> None:
    shape, spacing = (32, 32, 32), (4.0, 4.0, 4.0)
    labels, affine = brain_labels(shape, spacing), centred(spacing, shape)

    def refused(name: str, values: NDArray, match: str, place: Array = affine) -> None:
        path = save(tmp_path / f"{name}.nii.gz", values, place)
        with pytest.raises(UserError, match=match) as error:
            read_anatomy(path)
        assert str(path) in str(error.value)

    refused("unknown", np.where(labels == WHITE, 999, labels).astype(np.int16), "unknown labels 999")
    refused("half", np.where(labels == WHITE, 2.5, labels).astype(np.float32), "labels 2.5")
    refused("nan", np.where(labels == WHITE, np.nan, labels).astype(np.float32), "NaN")
    refused("infinite", np.where(labels == WHITE, np.inf, labels).astype(np.float32), "NaN or infinite")
    refused("fluid", np.where(labels > 0, VENTRICLE, 0).astype(np.int16), "no label of grey or white matter")
    refused("empty", np.zeros_like(labels), "no label of grey or white matter")
    refused("metres", labels, "litres of grey and white matter", np.diag([0.004, 0.004, 0.004, 1.0]))
    refused("flat", labels[:, :, 16], "need labels")
    refused("series", np.stack([labels] * 3, -1), "need labels")
    (tmp_path / "text.nii.gz").write_text("no image")
    (tmp_path / "image.png").write_text("no image")
    for name in ("text.nii.gz", "missing.nii", "image.png", "missing.npz"):
        with pytest.raises(UserError, match=name):
            read_anatomy(tmp_path / name)


# --- fraction maps -----------------------------------------------------------------------------------------------


def test_fraction_maps_keep_their_fractions(tmp_path: Path, coarse: Anatomy) -> None:
    values = six_fractions(coarse)
    flipped = coarse.affine @ np.diag([-1.0, -1.0, 1.0, 1.0])
    flipped[:3, 3] = (coarse.affine @ [values.shape[0] - 1, values.shape[1] - 1, 0, 1])[:3]
    again = read_anatomy(save(tmp_path / "lps.nii.gz", values[::-1, ::-1], flipped))
    assert np.allclose(again.affine, coarse.affine) and np.allclose(
        np.moveaxis(again.fractions, 0, -1), values, atol=1e-6
    )
    assert again.centre_mm == pytest.approx(coarse.centre_mm)


def test_fraction_maps_that_are_none(tmp_path: Path, coarse: Anatomy) -> None:
    values = six_fractions(coarse)[::2, ::2, ::2]
    affine = coarse.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    for name, wrong, match in (
        ("more", values * 1.5, "largest sum in a voxel 1.5"),
        ("less", values - 0.1, "smallest fraction -0.1"),
        ("nan", np.where(values > 0.9, np.nan, values), "NaN"),
        ("seven", np.concatenate([values, values[..., :1] * 0], -1), "need labels"),
        ("no brain", values * [1, 0, 0, 1, 1, 1], "litres of grey and white matter"),
    ):
        with pytest.raises(UserError, match=match):
            read_anatomy(save(tmp_path / f"{name}.nii.gz", wrong.astype(np.float32), affine))


# --- centre and shape --------------------------------------------------------------------------------------------


def test_centre_of_the_embedded_head_is_the_rule_for_others(coarse: Anatomy) -> None:
    embedded = load_anatomy()
    assert np.array_equal(embedded.centre_mm, HEAD_CENTRE_MM)
    assert Anatomy(embedded.fractions, embedded.affine, embedded.tissues).centre_mm == pytest.approx(
        HEAD_CENTRE_MM, abs=1.5
    )
    assert coarse.centre_mm == pytest.approx(HEAD_CENTRE_MM + np.array([100, -50, 30]), abs=2.5)


def test_centre_needs_a_brain(coarse: Anatomy) -> None:
    with pytest.raises(UserError, match="centre of its head is unknown"):
        _ = Anatomy(np.zeros_like(coarse.fractions), coarse.affine, coarse.tissues).centre_mm


def test_any_anatomy_is_sliced_about_its_own_centre(coarse: Anatomy) -> None:
    seen = []
    for anatomy in (coarse, load_anatomy()):
        shape = draw_shape(np.random.default_rng(1))
        scan = draw_geometry(np.random.default_rng(2), anatomy, shape, matrix=48, thickness_mm=8.0)
        sliced = slice_head(anatomy, shape, scan)
        middle = [int(np.abs(sliced.level_mm - level).argmin()) for level in (0.0, 40.0)]
        seen.append((sliced.level_mm[middle], sliced.fractions[:, middle].mean((2, 3))))
    (levels, means), (embedded_levels, embedded_means) = seen
    assert levels == pytest.approx(embedded_levels, abs=8.0), "levels count alike, whatever the origin"
    assert means == pytest.approx(embedded_means, abs=0.02)


def test_amount_of_deformation() -> None:
    points = np.random.default_rng(0).uniform(-90, 90, (3, 200))
    moved = {}
    for amount in (0.0, 0.5, 1.0, MAX_AMOUNT):
        rng = np.random.default_rng(3)
        moved[amount] = np.linalg.norm(draw_shape(rng, amount).to_template(points) - points, axis=0).mean()
    assert moved[0.0] == 0 and 0 < moved[0.5] < moved[1.0] < moved[MAX_AMOUNT]
    states = []
    for amount in (0.0, 1.0, MAX_AMOUNT):
        rng = np.random.default_rng(3)
        draw_shape(rng, amount)
        states.append(rng.uniform())
    assert len(set(states)) == 1, "what is drawn next does not depend on the amount"
    for wrong in (-0.1, MAX_AMOUNT + 0.1, float("nan")):
        with pytest.raises(UserError, match="amount of deformation"):
            draw_shape(np.random.default_rng(0), wrong)


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_deformation_does_not_fold(seed: int) -> None:
    axis = np.arange(-100, 101, 10.0)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    moved = draw_shape(np.random.default_rng(seed), MAX_AMOUNT).to_template(points)
    jacobian = np.stack(np.gradient(moved, 10.0, axis=(1, 2, 3)), 1)
    assert np.linalg.det(jacobian.transpose(2, 3, 4, 0, 1)).min() > 0.3


# --- atrophy -----------------------------------------------------------------------------------------------------


def test_lateral_ventricles_are_the_two_in_the_white_matter(coarse: Anatomy) -> None:
    found = lateral_ventricles(coarse)
    assert 12 < found.sum() * 8 / 1e3 < 40, "millilitres"
    sides = (np.argwhere(found) * 2 + coarse.affine[:3, 3] - coarse.centre_mm)[:, 0]
    assert 0.3 < (sides > 0).mean() < 0.7
    with pytest.raises(UserError, match="no lateral ventricles"):
        lateral_ventricles(coarse.changed(coarse.fractions * np.float32([0, 1, 1, 1, 1, 1, 1, 1]).reshape(8, 1, 1, 1)))


def test_ventricles_grow_with_the_amount_and_the_skull_stays(coarse: Anatomy) -> None:
    volumes = [float(lateral_ventricles(coarse).sum())]
    for amount in (1.5, 2.0, 3.0):
        wide = with_atrophy(coarse, ventricles=amount)
        volumes.append(float(lateral_ventricles(wide).sum()))
        assert volumes[-1] / volumes[0] == pytest.approx(amount, rel=0.25)
        assert wide.fractions.min() >= 0 and wide.fractions.sum(0).max() <= 1 + 1e-5
        assert np.abs(wide.fraction("bone") - coarse.fraction("bone")).max() < 0.05
        assert np.array_equal(wide.centre_mm, coarse.centre_mm)
    assert volumes == sorted(volumes)


def test_sulci_widen_at_the_cortex_cost(coarse: Anatomy) -> None:
    fluid = []
    for amount in (0.2, 0.5, 1.0):
        wide = with_atrophy(coarse, sulci_mm=amount)
        gain = wide.fraction("csf") - coarse.fraction("csf")
        assert gain.min() >= 0 and np.allclose(gain, coarse.fraction("gm") - wide.fraction("gm"), atol=1e-6)
        assert not gain[lateral_ventricles(coarse)].any(), "deep grey keeps its surface"
        assert np.array_equal(wide.fractions[2:], coarse.fractions[2:])
        fluid.append(gain.sum())
    assert fluid[0] > 0 and fluid[1] / fluid[0] == pytest.approx(2.5, rel=0.2), "in proportion to the border's way"
    assert fluid[2] > 1.6 * fluid[1]


def test_atrophy_default_and_limits(coarse: Anatomy) -> None:
    assert with_atrophy(coarse) is coarse
    for wrong in ({"ventricles": 0.5}, {"ventricles": 9.0}, {"sulci_mm": -0.1}, {"sulci_mm": float("nan")}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            with_atrophy(coarse, **wrong)


def test_lesion_names_are_no_tissues() -> None:
    assert not set(LESIONS) & {*TISSUES, *FURTHER}
    assert len(set(LABELS.values())) == 1 + len(TISSUES) + len(LESIONS)  # those of FURTHER have numbers of the six


def test_whole_heads_of_the_label_maps_that_the_people_come_from() -> None:
    """Numbers of CHARM: a head of 2.5 mm voxels with a long neck, an artery, an optic nerve and a lesion."""
    labels = np.zeros((90, 90, 120), np.int16)
    spacing = (2.5, 2.5, 2.5)
    centre = np.array([112.0, 112.0, 200.0])
    for number, radius in ((511, 92), (507, 89), (515, 78), (516, 75), (515, 73), (24, 70), (CORTEX, 66), (WHITE, 60)):
        labels[ball(labels.shape, spacing, centre, radius)] = number
    neck = ball((90, 90, 1), spacing, np.array([112.0, 112.0, 0.0]), 40)
    labels[:, :, :60] = np.where(neck & (labels[:, :, :60] == 0), 507, labels[:, :, :60])
    for number, place in ((502, 30), (514, 32), (530, 34), (25, 36), (136, 38), (506, 40), (508, 42), (509, 44)):
        labels[place : place + 2, 44:47, 79:82] = number
    anatomy = from_labels(labels, np.diag([*spacing, 1.0]), "labels")
    assert anatomy.tissues == (*TISSUES, "blood", "wmh")
    assert anatomy.fraction("blood").sum() > 10 and anatomy.fraction("wmh").sum() > 5
    assert anatomy.fractions.shape[3] < 90 and anatomy.affine[2, 3] > 80, "the neck is cut off"
    brain_mm = anatomy.affine[2, 3] + 2.5 * np.flatnonzero((anatomy.brain > 0.5).any((0, 1)))[0]
    assert brain_mm - anatomy.affine[2, 3] == pytest.approx(20, abs=6)
    x = int((112 - anatomy.affine[0, 3]) / 2.5)
    across = anatomy.fractions[:, x, :, int((200 - anatomy.affine[2, 3]) / 2.5)]
    outermost = [int(np.flatnonzero(across[TISSUES.index(name)] > 0.4)[-1]) for name in ("gm", "bone", "fat", "soft")]
    assert outermost == sorted(outermost) and len(set(outermost)) == 4, "skin over fat over bone over brain"


def test_nuclei_of_label_maps_have_iron() -> None:
    labels = brain_labels((40, 40, 40), (4.0, 4.0, 4.0))
    labels[20:23, 20:23, 14:16] = 13
    anatomy = from_labels(labels, np.diag([4.0, 4.0, 4.0, 1.0]), "labels")
    assert anatomy.tissues == (*TISSUES, "dgm") and anatomy.fraction("dgm").max() > 0.5
    assert anatomy.label_numbers[-1] == LABELS["gm"]
