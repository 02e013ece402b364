"""Head masks on phantoms: bright scalp, dark skull, brain, dark ventricles, in haze and shading of a low-field scan."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from data.folder import masks
from data.folder.masks import head_mask_slice, head_mask_volume

SCALP, SKULL, BRAIN, CSF = 1.4, 0.05, 1.0, 0.1


def head(shape: tuple[int, int, int], rounded: bool) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """An ellipsoid head (an elliptic cylinder in every slice unless `rounded`) and the voxels it fills."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    radius = np.sqrt((x / 0.62) ** 2 + (y / 0.78) ** 2 + (z / 0.8) ** 2 * rounded)
    volume = np.zeros(shape, dtype=np.float32)
    for limit, value in ((1.0, SCALP), (0.93, SKULL), (0.85, BRAIN), (0.25, CSF)):
        volume[radius <= limit] = value
    return volume, radius <= 1


def scanned(volume: NDArray[np.float32], snr: float, shading: float, seed: int = 0) -> NDArray[np.float32]:
    """Magnitude of a volume in complex noise, gain falling to 1/shading across the first axis, brain / sigma = snr."""
    rng = np.random.default_rng(seed)
    gain = shading ** -np.linspace(0, 1, volume.shape[0], dtype=np.float32)[:, None, None]
    real, imaginary = rng.standard_normal((2, *volume.shape), dtype=np.float32) * np.float32(BRAIN / snr)
    return np.hypot(volume * gain + real, imaginary)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def assert_solid(mask: NDArray[np.bool_]) -> None:
    """One piece without holes in every slice."""
    for plane in np.moveaxis(mask, 2, 0):
        assert (ndimage.binary_fill_holes(plane) == plane).all()
        assert ndimage.label(plane)[1] <= 1


@pytest.mark.parametrize(("snr", "shading", "least"), [(100, 1, 0.98), (10, 2, 0.975), (5, 2, 0.97), (4, 3, 0.94)])
def test_thick_slices_at_any_noise(snr: float, shading: float, least: float) -> None:
    volume, truth = head((160, 160, 8), rounded=False)
    mask = head_mask_volume(scanned(volume, snr, shading))
    assert dice(mask, truth) > least
    assert_solid(mask)


@pytest.mark.parametrize("shape", [(256, 256, 4), (64, 64, 5), (97, 131, 6)])
def test_sizes_of_grid(shape: tuple[int, int, int]) -> None:
    volume, truth = head(shape, rounded=False)
    mask = head_mask_volume(scanned(volume, 12, 1.5))
    assert mask.shape == shape and mask.dtype == np.bool_
    assert dice(mask, truth) > 0.965
    assert_solid(mask)


def test_equal_voxels_and_empty_slices_at_the_ends() -> None:
    volume, truth = head((72, 72, 72), rounded=True)
    mask = head_mask_volume(scanned(volume, 5, 2))
    assert dice(mask, truth) > 0.95
    assert_solid(mask)
    assert not mask[:, :, 0].any() and not mask[:, :, -1].any()


def test_slice_alone_and_scale_do_not_matter() -> None:
    volume, truth = head((128, 128, 1), rounded=False)
    image = scanned(volume, 8, 2)[:, :, 0]
    mask = head_mask_slice(image)
    assert dice(mask, truth[:, :, 0]) > 0.955
    assert (head_mask_slice(image * 3000 - 500) == mask).mean() > 0.999


def test_bright_specks_outside_the_head_are_left_out() -> None:
    volume, truth = head((128, 128, 4), rounded=False)
    noisy = scanned(volume, 20, 1)
    noisy[4:8, 4:8] = 3.0
    noisy[100:, 2] = 1.5  # a zipper
    mask = head_mask_volume(noisy)
    assert not mask[:12, :12].any() and not mask[100:, :4].any()
    assert dice(mask, truth) > 0.97


def test_head_cut_by_the_field_of_view_reaches_the_border() -> None:
    volume, truth = head((128, 128, 4), rounded=False)
    cut, cut_truth = volume[:, 40:], truth[:, 40:]
    mask = head_mask_volume(scanned(cut, 20, 1))
    assert mask[64, 0].all()
    assert dice(mask, cut_truth) > 0.97


def test_head_close_to_the_border_does_not_grow_to_it() -> None:
    volume, _ = head((128, 128, 4), rounded=False)
    first = int(np.flatnonzero(volume.any(axis=(0, 2)))[0])
    mask = head_mask_volume(scanned(volume[:, first - 5 :], 50, 1))
    assert not mask[:, :3].any()


def test_constant_volumes_and_tiny_ones_have_no_head_but_do_not_fail() -> None:
    assert not head_mask_volume(np.full((16, 16, 3), 7, dtype=np.float32)).any()
    for shape in ((1, 1, 5), (3, 3, 1), (2, 1, 1)):
        tiny = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        assert head_mask_volume(tiny).shape == shape


@pytest.mark.parametrize("fine", [[True, True, True], [True, True, False], [False, True, True]])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_shifts_are_the_morphology_of_ndimage(fine: list[bool], steps: int) -> None:
    rng = np.random.default_rng(steps)
    for density in (0.02, 0.5, 0.98):
        mask = rng.random((9, 13, 7)) < density
        ball, padded = masks._ball(fine), np.pad(mask, steps)
        for _ in range(steps):
            mask = ndimage.binary_dilation(mask, ball)
        inner = tuple(slice(steps, steps + n) for n in mask.shape)
        np.testing.assert_array_equal(masks._dilated(padded[inner], steps, fine), mask)
        for outside in (True, False):
            wanted = padded[inner]
            for _ in range(steps):
                wanted = ndimage.binary_erosion(wanted, ball, border_value=outside)
            np.testing.assert_array_equal(masks._eroded(padded[inner], steps, fine, outside=outside), wanted)


def test_holes_are_filled_plane_by_plane_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for fine in ([True, True, True], [True, True, False]):
        mask = np.zeros((20, 22, 8), dtype=bool)
        mask[3:17, 4:19, 1:7] = rng.random((14, 15, 6)) < 0.6
        wanted = mask
        for axis in range(3):
            if all(is_fine for other, is_fine in enumerate(fine) if other != axis):
                planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(wanted, axis, 0)]
                wanted = np.moveaxis(np.stack(planes), 0, axis)
        np.testing.assert_array_equal(masks._fill_planes(mask, fine), wanted)
    nothing = np.zeros((4, 4, 4), bool)
    assert not masks._fill_planes(nothing, [True] * 3).any()
