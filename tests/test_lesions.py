"""Lesions: where they lie, what they take, and how they relax."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.anatomy import FURTHER, LABELS, LESIONS, TISSUES, Anatomy, by_voxel, load_anatomy
from simulation.deformation import draw_shape
from simulation.geometry import draw_geometry, slice_head
from simulation.hyperintensities import Hyperintensity, draw_hyperintensity, load_shapes, ventricle_distance
from simulation.lesions import KINDS, Lesion, draw_lesions, with_lesions
from simulation.tissue import FIELDS_T, tissues_at
from util.errors import UserError


@pytest.fixture(scope="module")
def coarse() -> Anatomy:
    """The embedded head at 2 mm: quick."""
    embedded = load_anatomy()
    even = embedded.fractions[:, :180, :216, :180].reshape(len(embedded.tissues), 90, 2, 108, 2, 90, 2)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = embedded.affine[:3, 3] + 0.5
    return Anatomy(by_voxel(even.mean((2, 4, 6))), affine, embedded.tissues)


def drawn(coarse: Anatomy, kind: str, count: int, seed: int = 0) -> tuple[Lesion | Hyperintensity, ...]:
    return draw_lesions(np.random.default_rng(seed), coarse, kind, count)


@pytest.mark.parametrize(
    ("kind", "rows"), [("wmh", ["wmh"]), ("tumour", ["tumour", "oedema"]), ("infarct", ["infarct"])]
)
def test_lesions_take_their_place_from_the_tissue_they_replace(coarse: Anatomy, kind: str, rows: list[str]) -> None:
    ill = with_lesions(coarse, drawn(coarse, kind, 20 if kind == "wmh" else 2))
    assert ill.tissues == (*TISSUES, *FURTHER, *rows)
    assert ill.label_numbers.tolist() == [*range(7), 2, 6, *(LABELS[name] for name in rows)]
    assert ill.fractions.min() >= 0 and np.allclose(ill.fractions.sum(0), coarse.fractions.sum(0), atol=1e-5)
    assert np.array_equal(ill.centre_mm, coarse.centre_mm)
    assert np.allclose(ill.brain + ill.fraction("csf"), coarse.brain + coarse.fraction("csf"), atol=1e-5)
    replaced = {name for layer in KINDS[kind].layers for name in layer.replaces}
    for name in TISSUES:
        lost = coarse.fraction(name) - ill.fraction(name)
        assert lost.min() >= 0 and (
            lost.max() > 0.3 if name in replaced - {"csf"} else name in replaced or not lost.any()
        )
    for name in rows:
        assert ill.fraction(name).max() > 0.5, f"{name} fills whole voxels"


def test_hyperintensities_lie_inside_white_matter(coarse: Anatomy) -> None:
    ill = with_lesions(coarse, drawn(coarse, "wmh", 40))
    spots = ill.fraction("wmh")
    assert (spots <= coarse.fraction("wm") + 1e-6).all() and spots.sum() * 8 / 1e3 > 1, "millilitres"
    assert coarse.fraction("wm")[spots > 0.5].mean() > 0.85


def test_shapes_are_those_of_real_hyperintensities(coarse: Anatomy) -> None:
    shapes = load_shapes()
    ml = np.array([shape.ml for shape in shapes])
    assert len(shapes) == 724 and ml.max() == pytest.approx(39.401) and ml.min() == pytest.approx(0.006)
    assert 0.015 < np.median(ml) < 0.05, "most are dots"
    assert all(shape.inside[tuple(shape.anchor)] for shape in shapes)
    near = {large: np.mean([s.distance_mm < 12 for s in shapes if (s.ml > 1) is large]) for large in (True, False)}
    assert near[True] > 0.7 > 0.5 > near[False], "large ones are at the ventricles"
    lesion = Hyperintensity(shapes[5], coarse.centre_mm, np.eye(3), mirrored=False)
    voxels = np.argwhere(shapes[5].inside).T - shapes[5].anchor[:, None]
    assert lesion.inside_at(voxels + coarse.centre_mm[:, None]).mean() > 0.75
    flipped = Hyperintensity(shapes[5], coarse.centre_mm, np.eye(3), mirrored=True)
    mirror = voxels * np.array([[-1], [1], [1]]) + coarse.centre_mm[:, None]
    assert np.allclose(flipped.inside_at(mirror), lesion.inside_at(voxels + coarse.centre_mm[:, None]))


def test_hyperintensities_lie_where_they_were(coarse: Anatomy) -> None:
    rng = np.random.default_rng(0)
    distance, affine = ventricle_distance(coarse)
    assert distance.shape == coarse.brain.shape, "2 mm voxels are coarse enough"
    moved, farther = [], []
    for _ in range(60):
        lesion = draw_hyperintensity(rng, coarse)
        place = lesion.shape.place_mm * np.array([-1 if lesion.mirrored else 1, 1, 1]) + coarse.centre_mm
        index = np.rint(np.linalg.inv(affine)[:3] @ [*lesion.centre_mm, 1]).astype(int)
        assert coarse.fraction("wm")[tuple(index)] > 0.9
        moved.append(np.linalg.norm(place - lesion.centre_mm))
        farther.append(abs(distance[tuple(index)] - lesion.shape.distance_mm))
    assert np.median(moved) < 16 and max(moved) < 42 and np.median(farther) < 3
    assert max(draw_hyperintensity(rng, coarse, most_ml=0.1).shape.ml for _ in range(30)) <= 0.1


def test_oedema_surrounds_the_tumour_and_spares_the_cortex(coarse: Anatomy) -> None:
    ill = with_lesions(coarse, drawn(coarse, "tumour", 1))
    core, oedema = ill.fraction("tumour"), ill.fraction("oedema")
    assert (oedema <= coarse.fraction("wm") + 1e-6).all()
    place = np.stack(np.meshgrid(*[np.arange(n) for n in core.shape], indexing="ij"))
    middle = (place * core).sum((1, 2, 3)) / core.sum()
    away = np.linalg.norm(place - middle.reshape(3, 1, 1, 1), axis=0)
    assert (away * oedema).sum() / oedema.sum() > 1.3 * (away * core).sum() / core.sum()


def test_outlines_are_irregular_and_closed(coarse: Anatomy) -> None:
    for kind in ("tumour", "infarct"):
        (lesion,) = drawn(coarse, kind, 1, seed=1)
        assert isinstance(lesion, Lesion)
        direction = np.random.default_rng(0).normal(size=(3, 300))
        direction /= np.linalg.norm(direction, axis=0)
        steps = np.linspace(0, 3 * lesion.radii_mm.max(), 90)
        inside = np.stack([lesion.radius_at(lesion.centre_mm[:, None] + direction * step) < 1 for step in steps])
        assert inside[0].all() and not inside[-1].any()
        ellipsoid = 1 / np.sqrt((((lesion.turn.T @ direction) / lesion.radii_mm[:, None]) ** 2).sum(0))
        relative = inside.sum(0) * steps[1] / ellipsoid
        assert 0.05 < relative.std() < 0.5


def test_lesions_follow_the_seed_and_add_up(coarse: Anatomy) -> None:
    first, again, other = (drawn(coarse, "infarct", 2, seed) for seed in (0, 0, 1))
    assert np.array_equal(with_lesions(coarse, first).fractions, with_lesions(coarse, again).fractions)
    assert not np.array_equal(first[0].centre_mm, other[0].centre_mm)
    both = with_lesions(with_lesions(coarse, drawn(coarse, "wmh", 5)), first)
    assert both.tissues == (*TISSUES, *FURTHER, "wmh", "infarct")
    assert np.allclose(both.fractions.sum(0), coarse.fractions.sum(0), atol=1e-5)
    assert np.array_equal(with_lesions(coarse, ()).fractions, coarse.fractions)
    assert drawn(coarse, "wmh", 0) == ()


def test_lesions_come_through_slicing(coarse: Anatomy) -> None:
    shape = draw_shape(np.random.default_rng(0), 0.0)
    ill = with_lesions(coarse, drawn(coarse, "tumour", 1))
    seen = []
    for anatomy in (coarse, ill):
        scan = draw_geometry(np.random.default_rng(1), anatomy, shape, matrix=48, thickness_mm=5.0)
        seen.append(slice_head(anatomy, shape, scan).fractions)
    healthy, sliced = seen
    assert len(sliced) == len(healthy) + 2 and sliced[ill.is_lesion].max() > 0.5
    assert np.allclose(sliced.sum(0), healthy.sum(0), atol=1e-4)
    fine_ml = 5.0 * (240 / sliced.shape[-1]) ** 2 / 1e3
    assert sliced[ill.tissues.index("tumour")].sum() * fine_ml == pytest.approx(
        ill.fraction("tumour").sum() * 8 / 1e3, rel=0.1
    )


def test_refusals(coarse: Anatomy) -> None:
    with pytest.raises(UserError, match="unknown kind, choose from wmh, tumour, infarct"):
        drawn(coarse, "cyst", 1)
    for count in (-1, 1000):
        with pytest.raises(UserError, match="must be between 0 and"):
            drawn(coarse, "wmh", count)
    empty = coarse.changed(coarse.fractions * np.float32([1, 0, 1, 1, 1, 1, 1, 1]).reshape(8, 1, 1, 1))
    with pytest.raises(UserError, match="no possible position"):
        drawn(empty, "infarct", 1)


@pytest.mark.parametrize("b0", FIELDS_T)
def test_lesions_relax_between_white_matter_and_fluid(b0: float) -> None:
    assert tuple(tissues_at(b0)) == TISSUES
    found = tissues_at(b0, None, (*TISSUES, *LESIONS))
    for name in LESIONS:
        for parameter in ("t1_ms", "t2_ms", "t2star_ms", "pd"):
            low, value, high = (getattr(found[key], parameter) for key in ("wm", name, "csf"))
            assert low < value < high
    assert found["wmh"].t1_ms < found["oedema"].t1_ms < found["infarct"].t1_ms
    assert all(found[name] == tissue for name, tissue in tissues_at(b0).items())


def test_lesions_follow_the_subject() -> None:
    jitter = {"wm": {"t1_ms": 1.1}, "oedema": {"pd": 0.9}}
    usual, own = (tissues_at(3.0, factors, ("wmh", "oedema")) for factors in (None, jitter))
    assert usual["wmh"].t1_ms < own["wmh"].t1_ms < 1.1 * usual["wmh"].t1_ms
    assert own["oedema"].pd == pytest.approx(0.9 * usual["oedema"].pd)
