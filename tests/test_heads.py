"""The shipped heads: what their files hold, that they have no face, and levels that count alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from scripts.derive_heads import NUMBER, quantised, smoothed_classes
from scripts.head_mending import LARGEST_ML, lost_part, mend
from scripts.head_registration import level_errors, register, rigid_part
from scripts.head_surface import surface_depth
from simulation import heads
from simulation.anatomy import FURTHER, HEAD_CENTRE_MM, LABELS, MAPS, TISSUES, Anatomy, HeadFile, save_head
from simulation.atrophy import lateral_ventricles, with_atrophy
from simulation.deformation import draw_shape, rotation
from simulation.geometry import draw_geometry, slice_head
from simulation.heads import PEOPLE, load_person
from simulation.lesions import KINDS, draw_lesions
from util.errors import UserError

MEGABYTE = 1e6
Volume = NDArray[np.float32]


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEOPLE)
def test_every_head_is_a_head(name: str) -> None:
    anatomy = load_person(name)
    fractions = anatomy.fractions
    assert anatomy.tissues == TISSUES + FURTHER and fractions.dtype == np.float32 and fractions.min() >= 0
    assert anatomy.spacing_mm == pytest.approx([1, 1, 1])
    assert fractions[:, ::2, ::2, ::2].sum(0).max() <= 1 + 1e-5
    litres = {tissue: float(anatomy.fraction(tissue).sum()) / 1e6 for tissue in anatomy.tissues}
    assert 0.4 < litres["gm"] < 1.0 and 0.3 < litres["wm"] < 0.85 and 0.15 < litres["csf"] < 0.7
    assert 0.005 < litres["dgm"] < 0.03 and (litres["blood"] > 0.005 or name == "colin27")
    assert 0.1 < litres["fat"] < 0.9 and 0.1 < litres["soft"] < 1.2 and 0.25 < litres["bone"] < 1.2
    cortex = (anatomy.fraction("gm") > 0.05) & (fractions[:3].sum(0) > 0.99)
    assert (anatomy.fraction("gm")[cortex] < 0.95).mean() > 0.3, "a hard label map has no mixed voxels"


@pytest.mark.parametrize("name", PEOPLE)
def test_every_head_is_small_and_lies_in_the_template(name: str) -> None:
    assert (MAPS / f"{name}.npz").stat().st_size < MEGABYTE
    anatomy = load_person(name)
    assert anatomy.to_template is not None and anatomy.level_error_mm is not None
    centre = anatomy.to_template @ [*anatomy.centre_mm, 1]
    assert centre[:3] == pytest.approx(HEAD_CENTRE_MM, abs=1e-6)
    assert 0 <= anatomy.level_error_mm < 5 and (anatomy.level_error_mm > 0) == (name != "colin27")
    unscaled = Anatomy(anatomy.fractions, anatomy.affine, anatomy.tissues).centre_mm
    assert np.abs((anatomy.to_template @ [*unscaled, 1])[:3] - HEAD_CENTRE_MM).max() < 8


def test_all_heads_together_are_small() -> None:
    assert sum(path.stat().st_size for path in MAPS.iterdir()) < 15 * MEGABYTE


@pytest.mark.parametrize("name", ["head_08", "head_09"])  # wide and narrow ventricles
def test_other_heads_can_age_and_be_ill(name: str) -> None:
    anatomy = load_person(name)
    for kind in KINDS:
        assert draw_lesions(np.random.default_rng(0), anatomy, kind, 1)
    before, after = (lateral_ventricles(head).sum() for head in (anatomy, with_atrophy(anatomy, ventricles=2.0)))
    assert 3 < before / 1e3 < 80, "millilitres"
    assert after / before > 1.4


def test_names_and_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="person nobody: unknown, choose from colin27, head_01"):
        load_person("nobody")
    monkeypatch.setattr(heads, "MAPS", tmp_path)
    path = tmp_path / "head_03.npz"

    def refused() -> None:
        with pytest.raises(UserError, match=r"head_03.npz: not a tissue-fraction map"):
            load_person("head_03")

    refused()
    path.write_text("no map")
    refused()
    table = np.zeros((2, 8), np.uint8)
    for codes, wrong in (
        (np.full((3, 3, 3), 2, np.uint8), table),
        (np.zeros((3, 3, 3), np.uint8), table + 1),
        (np.zeros((3, 3, 3), np.uint8), table[:, :5]),
    ):
        save_head(path, HeadFile(codes, wrong, np.eye(4), np.eye(4), np.zeros(3), 1.0))
        refused()


def test_equal_heads_are_equal_bytes_and_come_back(tmp_path: Path) -> None:
    fractions = np.random.default_rng(0).dirichlet(np.ones(9), (4, 5, 6)).transpose(3, 0, 1, 2)[:8].astype(np.float32)
    codes, table = quantised(fractions)
    for name in ("a.npz", "b.npz"):
        save_head(tmp_path / name, HeadFile(codes, table, np.eye(4), np.eye(4), np.zeros(3), 1.5))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = heads.load_anatomy(tmp_path / "a.npz")
    assert again.fractions.shape == fractions.shape and again.level_error_mm == 1.5
    assert np.abs(again.fractions - fractions).max() < 0.25 and again.fractions.sum(0).max() <= 1


def test_further_tissues_have_labels_of_old_ones() -> None:
    assert LABELS["dgm"] == LABELS["gm"] and LABELS["blood"] == LABELS["soft"]


# --- no face -----------------------------------------------------------------------------------------------------


def outline(anatomy: Anatomy) -> tuple[Volume, NDArray[np.float64]]:
    """Distance in mm of the front surface from the middle of the head (Z, X), and the z in mm of its rows."""
    head = ndimage.gaussian_filter(anatomy.fractions.sum(0), 1.0) > 0.5
    y = anatomy.affine[1, 3] + np.arange(head.shape[1])
    front = np.where(head.any(1), y[head.shape[1] - 1 - head[:, ::-1].argmax(1)], np.nan)
    return front.T.astype(np.float32), anatomy.affine[2, 3] + np.arange(head.shape[2])


@pytest.mark.parametrize("name", PEOPLE)
def test_no_head_has_a_nose_or_lips(name: str) -> None:
    """Across the face, the front is a smooth arch: nothing stands out at the nose, nothing falls in beside it."""
    front, z = outline(load_person(name))
    middle = front.shape[1] // 2
    for row in np.flatnonzero(z < 0)[::4]:
        arch = front[row, middle - 36 : middle + 37]
        assert np.isfinite(arch).all(), "no hole"
        x = np.arange(-36, 37)
        away = arch - np.polyval(np.polyfit(x, arch, 4), x)
        assert np.abs(away).max() < 2.5, f"{name}: {z[row]:.0f} mm"
    down = front[z < 20, middle - 6 : middle + 7].mean(1)
    assert np.abs(np.diff(down, 2)).max() < 2, "no step from forehead to cheeks"


def test_a_nose_is_cut_off_and_sockets_are_filled() -> None:
    x, y, z = np.indices((90, 110, 90))
    head = ((x - 45) / 36) ** 2 + ((y - 50) / 44) ** 2 + ((z - 20) / 62) ** 2 < 1
    nose = ((x - 45) ** 2 + (z - 14) ** 2 < 36) & (y > 50) & (y < 104)
    socket = (np.abs(np.abs(x - 45) - 16) < 7) & (np.abs(z - 26) < 6) & (y > 82)
    eyes = (np.abs(x - 45) - 16) ** 2 + (y - 76.0) ** 2 + (z - 26) ** 2 < 25
    depth = surface_depth((head | nose) & ~socket, eyes, (45.0, 50.0), 2.0)
    assert depth[45, 101, 14] < 0, "no nose"
    assert depth[45, 70, 14] > 0 and depth[eyes].min() > 1, "eyes lie under the surface"
    far = (y < 40) & (z > 5) & (z < 70)
    assert ((depth > 0) == head)[far].mean() > 0.98, "the back of the head is kept"


# --- making them -------------------------------------------------------------------------------------------------


def test_edges_of_turned_labels_are_smooth() -> None:
    z, y, x = np.indices((24, 32, 32))
    below = (0.2 * x + 0.3 * y - z + 4) / np.sqrt(1 + 0.2**2 + 0.3**2)
    native = np.where(below > 0, NUMBER["wm"], NUMBER["csf"]).astype(np.uint8).transpose(2, 1, 0)
    found = smoothed_classes(native, np.eye(4), native.shape)
    lead = found["wm"][1][3:-3, 3:-3, 3:-3] - 0.5
    near = np.abs(below.transpose(2, 1, 0)[3:-3, 3:-3, 3:-3]) < 0.5
    assert np.corrcoef(lead[near], below.transpose(2, 1, 0)[3:-3, 3:-3, 3:-3][near])[0, 1] > 0.97


def test_registration_finds_a_turned_and_scaled_head() -> None:
    template = load_person("colin27")
    affine = template.affine
    maps = np.stack([template.brain, template.fraction("wm")])
    moved = np.eye(4)
    moved[:3, :3] = rotation(np.array([-14.0, 3.0, 2.0])) @ np.diag([0.95, 0.92, 0.88])
    moved[:3, 3] = [20, -30, 10]
    found = register(maps, moved @ affine, maps, affine)
    points = np.random.default_rng(0).uniform(-60, 60, (50, 3))
    back = (found @ moved @ np.column_stack([points, np.ones(50)]).T)[:3].T
    assert np.abs(back - points).max() < 1.0, "mm"
    rigid = rigid_part(found, HEAD_CENTRE_MM)
    assert np.allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3))
    assert (rigid @ np.linalg.inv(found) @ [*HEAD_CENTRE_MM, 1])[:3] == pytest.approx(HEAD_CENTRE_MM)


def test_level_error_is_the_distance_from_the_others() -> None:
    place = {"a": np.zeros(3), "b": np.array([10.0, 0, 0])}
    people = {name: {key: at.copy() for key, at in place.items()} for name in ("x", "y", "z")}
    people["z"] = {key: at + np.array([0.0, 3.0, 4.0]) for key, at in place.items()}
    errors = level_errors(people)
    assert errors["z"] == pytest.approx((4, 5)) and errors["x"] == pytest.approx((2, 2.5))


# --- levels ------------------------------------------------------------------------------------------------------


def test_levels_of_all_people_count_in_template_mm() -> None:
    """The level with most white matter is the same in all people's scans, whatever the size of their heads."""
    found = []
    for name in ("colin27", "head_04", "head_09"):
        anatomy = load_person(name)
        shape = draw_shape(np.random.default_rng(1), 0.0)
        scan = draw_geometry(np.random.default_rng(2), anatomy, shape, matrix=48, thickness_mm=5.0)
        sliced = slice_head(anatomy, shape, scan)
        assert (np.diff(sliced.level_mm) > 2).all()
        white = sliced.fractions[anatomy.tissues.index("wm")].sum((1, 2))
        found.append(float((white * sliced.level_mm).sum() / white.sum()))
    assert np.ptp(found) < 8, found


# --- mending -----------------------------------------------------------------------------------------------------


def brain_with(hole: bool, shift: int = 0) -> NDArray[np.uint8]:
    """Classes (X, Y, Z) of a ball of grey matter in fluid; with `hole`, its front is fluid too."""
    x, y, z = np.indices((96, 96, 96)) - np.array([48 + shift, 48, 48]).reshape(3, 1, 1, 1)
    radius = np.sqrt(x**2 + y**2 + z**2)
    classes = np.where(radius < 40, NUMBER["gm"], np.where(radius < 43, NUMBER["csf"], NUMBER["bone"])).astype(np.uint8)
    if hole:
        classes[(radius < 40) & (y > 10)] = NUMBER["csf"]
    return classes


def test_a_lost_part_of_the_brain_is_filled_from_the_head_that_fits_best() -> None:
    classes, whole = brain_with(hole=True), brain_with(hole=False)
    lost = lost_part(classes == NUMBER["csf"])
    assert lost.sum() > 1000 * LARGEST_ML and not lost_part(whole == NUMBER["csf"]).any()
    moved = np.eye(4)
    moved[0, 3] = -7  # x mm are at its voxel x - 7, and its ball is 7 voxels off: in place after all
    donors = [(brain_with(hole=False, shift=9), np.eye(4)), (brain_with(hole=False, shift=-7), moved)]
    mended, donor = mend(classes, lost, np.eye(4), donors, np.array([NUMBER["gm"]], np.uint8))
    assert donor == 1
    assert (mended[~lost] == classes[~lost]).all()
    assert (mended == whole)[lost].mean() > 0.99
    assert (classes == brain_with(hole=True)).all(), "the argument is not changed"


@pytest.mark.parametrize("name", PEOPLE)
def test_no_shipped_head_lacks_the_base_of_its_frontal_lobes(name: str) -> None:
    """One source has fluid there: 81 ml in its map before it was mended, 2 to 17 ml in the others."""
    anatomy = load_person(name)
    brain = anatomy.fraction("gm") + anatomy.fraction("wm") > 0.5
    _, y, z = (int(place) for place in np.argwhere(brain).mean(0))
    assert not lost_part(anatomy.fraction("csf")[:, y + 10 :, : z - 5] > 0.75).any()
