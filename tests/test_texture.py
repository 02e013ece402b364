"""Variation inside tissues: its strength and scales, that it belongs to the person, that signals follow physics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from simulation.anatomy import LESIONS, TISSUES, Anatomy, by_voxel
from simulation.deformation import HeadShape, SmoothField
from simulation.geometry import Pose, ScanGeometry
from simulation.presets import HIGH_T1W, HIGH_T2W, LOW_T1W, LOW_T2W, PROTOCOLS
from simulation.subject import Head, Scanner, draw_head
from simulation.texture import (
    CORRELATION,
    MAPS,
    OCTAVE_STD,
    TILE,
    WATER_PER_T2,
    WAVELENGTHS_MM,
    Texture,
    draw_texture,
    responses,
)
from simulation.tissue import tissues_at

WM = TISSUES.index("wm")


@pytest.fixture(scope="module")
def texture() -> Texture:
    return draw_texture(np.random.default_rng(0))


@pytest.fixture(scope="module")
def white_block() -> Anatomy:
    """A cube of white matter, so that all that varies is its texture."""
    fractions = np.zeros((len(TISSUES), 90, 90, 60), np.float32)
    fractions[WM] = 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -90, -60)
    return Anatomy(by_voxel(fractions), affine, known_centre_mm=np.zeros(3))


def scanner(anatomy: Anatomy, texture: Texture, *, matrix: int = 192, thickness_mm: float = 4.0) -> Scanner:
    unchanged = HeadShape(np.eye(3), SmoothField(np.zeros((3, 9, 9, 9)), 60.0))
    z_mm = np.arange(-20.0, 21.0, thickness_mm)
    pose = Pose(np.zeros(3), np.zeros(3))
    return Scanner(Head(unchanged, {}, texture), ScanGeometry(pose, matrix, thickness_mm, z_mm, (0.0, 0.0)), anatomy)


def test_every_octave_has_its_strength(texture: Texture) -> None:
    tile = texture.tile(0.0)
    assert tile.shape == (2, TILE, TILE, TILE) and abs(tile.mean()) < 1e-4
    power = (np.abs(np.fft.fftn(tile, axes=(1, 2, 3))) ** 2).mean(0) / tile[0].size ** 2
    k = np.fft.fftfreq(TILE)
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k**2)
    for wavelength, std in list(zip(WAVELENGTHS_MM, OCTAVE_STD, strict=True))[1:]:
        octave = (radius > 1 / wavelength / np.sqrt(2)) & (radius <= np.sqrt(2) / wavelength)
        assert np.sqrt(power[octave].sum()) == pytest.approx(std, rel=0.15)


def test_thick_slices_average_it_and_it_repeats_beyond_the_tile(texture: Texture) -> None:
    thin, thick = texture.tile(0.0), texture.tile(4.0)
    averaged = ndimage.uniform_filter1d(thin, 5, axis=1, mode="wrap")
    assert thick.std() < 0.9 * thin.std() and np.corrcoef(thick.ravel(), averaged.ravel())[0, 1] > 0.97
    sample = texture.fine_sampler(4.0)
    points = np.random.default_rng(0).uniform(-80, 80, (3, 1, 20, 20)).astype(np.float32)
    assert np.allclose(sample(points), sample(points + TILE), atol=1e-4)
    water, t2 = sample(np.random.default_rng(1).uniform(-80, 80, (3, 1, 90, 90)).astype(np.float32))
    assert water.std() / t2.std() == pytest.approx(WATER_PER_T2, rel=0.1)
    assert np.corrcoef(water.ravel(), t2.ravel())[0, 1] == pytest.approx(CORRELATION, abs=0.1)


def test_it_belongs_to_the_person() -> None:
    first, again, other = (draw_head(0, subject).texture for subject in (3, 3, 4))
    assert np.array_equal(first.noise, again.noise) and not np.array_equal(first.noise, other.noise)
    assert np.array_equal(first.smooth.coefficients, again.smooth.coefficients)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_slopes_are_those_of_the_sequence(protocol) -> None:  # type: ignore[no-untyped-def]
    usual = tissues_at(protocol.b0_t)
    white, step = usual["wm"], 0.05
    towards_grey = {key: (getattr(usual["gm"], key) / getattr(white, key)) ** step for key in ("t1_ms", "pd")}
    for name, factors in (("water", towards_grey), ("t2", {"t2_ms": np.exp(step), "t2star_ms": np.exp(step)})):
        changed = replace(white, **{key: getattr(white, key) * factor for key, factor in factors.items()})
        exact = protocol.sequence.signal(changed)[0] - protocol.sequence.signal(white)[0]
        linear = responses(protocol.sequence, protocol.b0_t, "wm")[name][0] * step
        assert linear == pytest.approx(exact, rel=0.1, abs=1e-3 * abs(protocol.sequence.signal(white)[0]))


def test_contrast_of_the_same_variation_differs_by_field_and_sequence() -> None:
    def relative(protocol, name: str) -> float:  # type: ignore[no-untyped-def]
        signal = protocol.sequence.signal(tissues_at(protocol.b0_t)["wm"])[0]
        return float(responses(protocol.sequence, protocol.b0_t, "wm")[name][0] / signal)

    assert relative(HIGH_T1W, "water") < 0 < relative(HIGH_T2W, "water")
    assert abs(relative(HIGH_T1W, "water")) > 1.3 * abs(relative(LOW_T1W, "water")), "less T1 contrast at 64 mT"
    assert relative(HIGH_T2W, "t2") > 10 * abs(relative(HIGH_T1W, "t2"))


def test_every_tissue_has_slopes() -> None:
    for name in (*TISSUES, *LESIONS):
        found = responses(HIGH_T2W.sequence, 3.0, name)
        assert {"water", "t2"} <= set(found) <= set(MAPS) and all(np.isfinite(slope).all() for slope in found.values())


def test_the_truth_has_it_and_both_fields_show_the_same(white_block: Anatomy, texture: Texture) -> None:
    def varied(protocol, of: Texture) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
        plane = scanner(white_block, of).ideal(protocol)[5][40:-40, 40:-40].astype(np.float64)
        return plane / plane.mean() - 1

    low, high, other = (varied(LOW_T2W, texture), varied(HIGH_T2W, texture), draw_texture(np.random.default_rng(1)))
    assert 0.02 < high.std() < 0.09
    smooth = [ndimage.gaussian_filter(field, 2.0).ravel() for field in (low, high, varied(HIGH_T2W, other))]
    assert np.corrcoef(smooth[0], smooth[1])[0, 1] > 0.8
    assert abs(np.corrcoef(smooth[1], smooth[2])[0, 1]) < 0.6, "another person's"
    assert varied(HIGH_T2W, replace(texture, strength=0.0)).std() < 1e-3


def test_contrast_loss_takes_its_part(white_block: Anatomy, texture: Texture) -> None:
    clean = scanner(white_block, texture)
    faded = Scanner(clean.head, clean.geometry, white_block, replace(clean.faults, severities={"contrast": 1.0}))
    varied = [each.signal(HIGH_T2W)[5][60:-60, 60:-60] for each in (clean, faded)]
    assert varied[1].std() < varied[0].std()
