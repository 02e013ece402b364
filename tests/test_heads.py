"""The shipped heads: what their files hold, the partial volume made of them, and levels that count alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulation import heads
from simulation.anatomy import LABELS
from simulation.deformation import draw_shape
from simulation.geometry import draw_geometry, slice_head
from simulation.heads import ALL_TISSUES, CLASSES, PEOPLE, load_person, partial_volume, save_person
from util.errors import UserError

CLASS = {name: number for number, name in enumerate(CLASSES)}


@pytest.mark.parametrize("name", PEOPLE)
def test_every_head_is_a_head(name: str) -> None:
    anatomy = load_person(name)
    assert anatomy.fractions.dtype == np.float32 and anatomy.fractions.min() >= 0
    assert anatomy.fractions[:, ::2, ::2, ::2].sum(0).max() <= 1 + 1e-5
    litres = {t: float(anatomy.fraction(t).sum()) * anatomy.spacing_mm.prod() / 1e6 for t in anatomy.tissues}
    assert 0.4 < litres["gm"] < 1.0 and 0.35 < litres["wm"] < 0.85 and 0.15 < litres["csf"] < 0.65
    assert anatomy.to_template is not None and anatomy.level_error_mm is not None
    centre = anatomy.to_template @ [*anatomy.centre_mm, 1]
    assert np.abs(centre[:3] - [0, -17, 12]).max() < 8, "the middle of every brain lies there in the template"


def test_names_and_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="person nobody: unknown, choose from colin27, head_01"):
        load_person("nobody")
    monkeypatch.setattr(heads, "FOLDER", tmp_path)
    load_person.cache_clear()
    with pytest.raises(UserError, match=r"head_03.npz: not a head's label map"):
        load_person("head_03")
    (tmp_path / "head_03.npz").write_text("no map")
    with pytest.raises(UserError, match=r"head_03.npz: not a head's label map"):
        load_person("head_03")
    save_person(
        tmp_path / "head_03.npz",
        np.full((3, 3, 3), 99, np.uint8),
        np.eye(4),
        to_template=np.eye(4),
        centre_mm=np.zeros(3),
        level_error_mm=1.0,
    )
    with pytest.raises(UserError, match="label 99"):
        load_person("head_03")
    load_person.cache_clear()


# --- partial volume ----------------------------------------------------------------------------------------------


def test_edges_are_one_voxel_wide_and_follow_a_tilted_plane() -> None:
    z, y, x = np.indices((24, 32, 32))
    below = (0.2 * x + 0.3 * y - z + 4).astype(float) / np.sqrt(1 + 0.2**2 + 0.3**2)
    labels = np.where(below > 0, CLASS["wm"], CLASS["csf"]).astype(np.uint8)
    white = partial_volume(labels)[ALL_TISSUES.index("wm")].transpose(2, 1, 0)
    inner = (slice(3, -3),) * 3
    true = np.clip(0.5 + below, 0, 1)[inner]
    hard = (labels == CLASS["wm"])[inner]
    edge = np.abs(below[inner]) < 1.2
    made = np.sqrt(np.mean((white[inner] - true)[edge] ** 2))
    steps = np.sqrt(np.mean((hard - true)[edge] ** 2))
    assert made < 0.1 and made < 0.5 * steps
    assert not ((white > 0) & (white < 1))[inner][np.abs(below[inner]) > 1.6].any(), "no blur beyond the edge"


def test_a_sulcus_one_voxel_wide_keeps_most_of_its_volume() -> None:
    labels = np.full((20, 20, 20), CLASS["gm"], np.uint8)
    labels[:, 10] = CLASS["csf"]
    fluid = partial_volume(labels)[ALL_TISSUES.index("csf"), 5:-5, :, 5:-5]
    assert 0.6 < fluid.sum(1).mean() < 1.1


def test_fractions_are_pure_inside_and_sum_to_one() -> None:
    labels = np.random.default_rng(0).integers(0, len(CLASSES), (6, 6, 6)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    fractions = partial_volume(labels.astype(np.uint8))
    assert fractions.shape == (len(ALL_TISSUES), 24, 24, 24) and fractions.min() >= 0
    assert fractions.sum(0).max() <= 1 + 1e-5
    assert np.allclose(partial_volume(np.full((4, 4, 4), CLASS["pallidum"], np.uint8)).sum(0), 1)


# --- levels ------------------------------------------------------------------------------------------------------


def test_levels_of_all_people_count_in_template_mm() -> None:
    """Where white matter begins and ends in a scan, in template mm."""
    for name in ("colin27", "head_04", "head_09"):
        anatomy = load_person(name)
        shape = draw_shape(np.random.default_rng(1), 0.0)
        scan = draw_geometry(np.random.default_rng(2), anatomy, shape, matrix=48, thickness_mm=5.0)
        sliced = slice_head(anatomy, shape, scan)
        assert (np.diff(sliced.level_mm) > 2).all()
        white = sliced.fractions[anatomy.tissues.index("wm")].sum((1, 2))
        largest = sliced.level_mm[white.argmax()]
        assert 15 < largest < 45, name


def test_further_tissues_have_labels_of_old_ones() -> None:
    assert LABELS["dgm"] == LABELS["gm"] and LABELS["blood"] == LABELS["soft"]
