"""The surface of a head without a face, and what lies under the skin, for `derive_heads.py`.

Nobody must be recognised from a shipped map. Ears are removed by an opening. From the brow down and from cheek to cheek
the surface is not the person's: it is the smoothest continuation of forehead and temples, moved forward as far as the
eyes need. What protrudes (nose, lips, brow, chin) is cut off, hollows are filled, and skin and fat lie on the result,
so no boundary inside the map shows the old surface either. Volumes (X, Y, Z) are in RAS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

GAP_MM = 4.0  # narrower gaps in the surface are closed
EAR_MM = 9.0  # what a ball of this radius does not fit into is cut off
ANGLES = np.radians(np.arange(-180, 180, 2.0))  # from straight ahead, to the left and right
FACE_DEG, BLEND_DEG = 78.0, 16.0  # half width of the replaced sector, and of the transition at its sides
BROW_MM, BROW_BLEND_MM = 26.0, 28.0  # height above the eyes from which the forehead is kept, and of the transition
LID_MM = 4.0  # in front of the eyes
SWEEPS = 1500  # of the relaxation that continues the forehead
SMOOTH_MM = 3.0  # Gaussian (std) of the final surface
SKIN_MM, FAT_MM = 1.8, 1.6  # least thickness of skin and of the fat under it, where the surface is a new one


@dataclass(frozen=True)
class Skin:
    """Thickness in mm of a person's skin and of the fat under it: mean, and relative variation over the head."""

    skin_mm: float
    fat_mm: float
    variation: float


def largest(mask: Mask) -> Mask:
    """Largest connected component (6-neighbourhood)."""
    label, _ = ndimage.label(mask)
    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    return np.asarray(label == sizes.argmax())


def extended(volume: NDArray, voxels: int) -> NDArray:
    """Empty margins around, and the lowest plane repeated downwards."""
    around = np.pad(volume, ((voxels, voxels), (voxels, voxels), (0, voxels)))
    return np.pad(around, ((0, 0), (0, 0), (voxels, 0)), mode="edge")


def filled(head: Mask, voxel_mm: float) -> Mask:
    """The head with its cavities, without ears and islands."""
    ear, gap = EAR_MM / voxel_mm, GAP_MM / voxel_mm
    pad = int(ear) + 3
    solid = extended(largest(head), pad)
    solid = ndimage.distance_transform_edt(~solid) <= gap
    solid = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(solid, 2, 0)], 2)
    solid = ndimage.distance_transform_edt(solid) > gap
    core = ndimage.distance_transform_edt(solid) > ear
    opened = ndimage.distance_transform_edt(~largest(core)) <= ear
    return np.asarray((opened & solid)[pad:-pad, pad:-pad, pad:-pad])


def surface_depth(head: Mask, eyes: Mask, axis: tuple[float, float], voxel_mm: float) -> Volume:
    """Depth in voxels (X, Y, Z) under the new surface, negative outside.

    `axis` are the voxel indices x, y of a vertical line through the middle of the head.
    """
    solid = filled(head, voxel_mm)
    radii = _radii(solid, axis)
    known = _kept(eyes, solid.shape[2], voxel_mm)
    new = _continued(radii, known)
    new = known * radii + (1 - known) * np.maximum(new, 0)
    new += _clearance(new, eyes, axis, voxel_mm)
    x, y = np.indices(solid.shape[:2])
    ahead, aside = np.asarray(y - axis[1]), np.asarray(x - axis[0])
    reach = np.hypot(ahead, aside)
    column = _column(ahead, aside)
    inside = np.empty(solid.shape, np.float32)
    share = np.empty(solid.shape, np.float32)
    for z in range(solid.shape[2]):
        inside[:, :, z] = _at(new[z], column) - reach
        share[:, :, z] = _at(known[z], column)
    kept = _signed(solid)
    mixed = np.where(share > 0.999, kept, np.where(share < 0.001, inside, share * kept + (1 - share) * inside))
    pad = 8
    rough = extended(mixed > 0, pad)
    depth = ndimage.gaussian_filter(_signed(rough), SMOOTH_MM / voxel_mm)
    return np.asarray(depth[pad:-pad, pad:-pad, pad:-pad], np.float32)


def _signed(mask: Mask) -> Volume:
    """Signed distance in voxels from the surface of a mask, positive inside."""
    padded = extended(mask, 4)
    inside = ndimage.distance_transform_edt(padded) - ndimage.distance_transform_edt(~padded)
    return np.asarray((inside - 0.5 * np.sign(inside))[4:-4, 4:-4, 4:-4], np.float32)


def _column(ahead: NDArray, aside: NDArray) -> NDArray:
    """Fractional index into `ANGLES` of directions, in [0, angles)."""
    return np.asarray((np.arctan2(aside, ahead) + np.pi) / (2 * np.pi) * len(ANGLES) % len(ANGLES))


def _at(values: NDArray, column: NDArray) -> NDArray:
    """Linear interpolation of a ring of values (angles,) at fractional columns."""
    low = column.astype(int)
    part = column - low
    return np.asarray((1 - part) * values[low % len(values)] + part * values[(low + 1) % len(values)])


def _radii(solid: Mask, axis: tuple[float, float]) -> NDArray[np.float64]:
    """Distance in voxels from the axis to the outermost one (Z, angles)."""
    steps = np.arange(0, 160, 0.5)
    x = axis[0] + np.outer(np.sin(ANGLES), steps)
    y = axis[1] + np.outer(np.cos(ANGLES), steps)
    radii = np.zeros((solid.shape[2], len(ANGLES)))
    for z in range(solid.shape[2]):
        hit = ndimage.map_coordinates(solid[:, :, z].astype(np.float32), (x, y), order=1) > 0.5
        radii[z] = np.where(hit.any(1), steps[len(steps) - 1 - hit[:, ::-1].argmax(1)], 0)
    return radii


def _smoothstep(x: NDArray) -> NDArray:
    t = np.clip(x, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _kept(eyes: Mask, planes: int, voxel_mm: float) -> NDArray[np.float64]:
    """1 where the person's own surface is kept, 0 in the face, (Z, angles)."""
    middle = np.argwhere(eyes)[:, 2].mean()
    beside = _smoothstep((np.degrees(np.abs(ANGLES)) - FACE_DEG) / BLEND_DEG)
    above = _smoothstep(((np.arange(planes) - middle) * voxel_mm - BROW_MM) / BROW_BLEND_MM)
    return np.maximum(beside[None], above[:, None])


def _continued(radii: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radii where they are not known: the thin plate through the known ones, level below the lowest plane."""
    free = known < 0.999
    smooth = ndimage.gaussian_filter(radii, (3, 2), mode=("nearest", "wrap"))
    weight = ndimage.gaussian_filter((~free).astype(float), (12, 6), mode=("nearest", "wrap"))
    start = ndimage.gaussian_filter(np.where(free, 0, smooth), (12, 6), mode=("nearest", "wrap"))
    values = np.where(free, start / np.maximum(weight, 1e-3), smooth)
    mean = smooth[~free].mean()
    values = np.where(free & (weight < 1e-3), mean, values)
    for _ in range(SWEEPS):
        padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
        around = padded[2:] + padded[:-2] + np.roll(values, 1, 1) + np.roll(values, -1, 1)
        values = np.where(free, around / 4, smooth)
    return np.where(free, ndimage.gaussian_filter(values, (4, 3), mode=("nearest", "wrap")), values)


def _clearance(new: NDArray[np.float64], eyes: Mask, axis: tuple[float, float], voxel_mm: float) -> NDArray[np.float64]:
    """A broad, featureless addition (Z, angles) to the radii that keeps both eyes under the surface."""
    place = np.argwhere(eyes & ~ndimage.binary_erosion(eyes))
    ahead, aside = place[:, 1] - axis[1], place[:, 0] - axis[0]
    column = _column(ahead, aside)
    missing = np.hypot(ahead, aside) + LID_MM / voxel_mm - new[place[:, 2], np.rint(column).astype(int) % len(ANGLES)]
    middle = place[:, 2].mean()
    width = np.exp(-0.5 * (np.degrees(ANGLES) / 45) ** 4)
    height = np.exp(-0.5 * ((np.arange(len(new)) - middle) * voxel_mm / 26) ** 2)
    return np.asarray(max(float(missing.max()), 0.0) * height[:, None] * width[None])


def fat_thickness(shape: tuple[int, ...], rng: np.random.Generator, skin: Skin, eyes_z: float) -> Volume:
    """Thickness in mm (X, Y, Z) of the fat under the skin: a smooth random field, thicker below the eyes."""
    varied = _random_field(shape, rng, 8, 2.4)
    below = _smoothstep((eyes_z + 10 - np.arange(shape[2])) / 50).astype(np.float32)
    return np.asarray(skin.fat_mm * np.exp(skin.variation * varied) * (1 + 0.8 * below), np.float32)


def fat_between(shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """Fat between muscles: thin sheets around the zero of a random field."""
    return np.asarray(np.abs(_random_field(shape, rng, 4, 1.6)) < 0.22)


def _random_field(shape: tuple[int, ...], rng: np.random.Generator, spacing: int, smooth: float) -> Volume:
    """A random field (X, Y, Z) of deviation 1: noise on a lattice of `spacing` voxels, smoothed, interpolated."""
    field = ndimage.gaussian_filter(rng.normal(0, 1, [-(-side // spacing) + 2 for side in shape]), smooth)
    field /= field.std()
    return ndimage.affine_transform(field, np.full(3, 1 / spacing), 0, shape, np.float32, order=1)
