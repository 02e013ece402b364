"""Atrophy of an anatomy: larger lateral ventricles and wider sulci, the most visible changes of an ageing brain.

Both are applied to the template before a subject's deformation: the brain changes, the skull stays in place.
Sources: docs/facts.md section 7.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.anatomy import Anatomy
from simulation.limits import MAX_SULCI_MM, MAX_VENTRICLES
from util.errors import UserError

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

DEPTH_MM = 22.0  # CSF this deep in the cranium is ventricle, not sulcus
MIDLINE_MM = 2.0  # no lateral ventricle this close to the midplane: septum, third ventricle and fissure lie there
WALL_MM = 3.0  # Gaussian (std) that averages the tissue around a CSF component
GAUSSIAN_REACH = 4.0  # stds at which a Gaussian filter is cut off
THIN_MM = 1.2  # half width below which CSF is a channel, in mm or voxels, whichever is larger
REACH_MM = 20.0  # distance from the new ventricle wall at which the displacement vanishes
RIM_MM = 15.0  # depth below the skull over which the displacement fades to zero
SMOOTH_MM = 2.0  # Gaussian (std) that smooths the wall distance, so that no creases form between the horns
INNER_MM = 1.0  # depth inside the old wall where new CSF is sampled, at most half the thinnest horn
DEEP_MM = 8.0  # grey matter this close to the ventricles is not cortex and keeps its surface
STEP_MM = 0.25  # largest step of the front between CSF and cortex


def with_atrophy(anatomy: Anatomy, *, ventricles: float = 1.0, sulci_mm: float = 0.0) -> Anatomy:
    """The same head with atrophy; `anatomy` itself with the default arguments.

    Args:
        ventricles: ratio of new to old volume of the lateral ventricles, 1 to 4. The surrounding tissue is displaced,
            fading over 20 mm. The ratio is met within about 15 % in the embedded head; thin ventricles gain less, down
            to half of the requested gain.
        sulci_mm: thickness of cortex that CSF replaces on each bank of a sulcus, 0 to 1.

    Returns: an anatomy on the same voxels; a displaced voxel keeps its sum of fractions.
    Raises: UserError: an argument out of range, or no ventricle to enlarge.
    """
    if not 1 <= ventricles <= MAX_VENTRICLES:
        raise UserError(f"ventricles {ventricles}: must be between 1 and {MAX_VENTRICLES:g} times their volume")
    if not 0 <= sulci_mm <= MAX_SULCI_MM:
        raise UserError(f"sulci_mm {sulci_mm}: must be between 0 and {MAX_SULCI_MM:g} mm")
    if ventricles == 1 and sulci_mm == 0:
        return anatomy
    fluid = lateral_ventricles(anatomy)
    fractions = _enlarged(anatomy, fluid, ventricles) if ventricles > 1 else anatomy.fractions.copy()
    if sulci_mm > 0:
        _widen_sulci(anatomy, fractions, fluid, sulci_mm)
    return anatomy.changed(fractions)


def midplane_distance_mm(anatomy: Anatomy) -> Volume:
    """Signed distance in mm (X, Y, Z) from the sagittal plane through the centre; positive to the right."""
    index = np.indices(anatomy.brain.shape, np.float32, sparse=True)
    start = np.float32(anatomy.affine[0, 3] - anatomy.centre_mm[0])
    return np.asarray(start + sum(np.float32(anatomy.affine[0, axis]) * index[axis] for axis in range(3)))


@lru_cache(maxsize=1)
def cranial_depth(anatomy: Anatomy) -> Volume:
    """Distance in mm (X, Y, Z) from voxels of brain or CSF to the nearest voxel of neither; 0 outside."""
    inside = anatomy.brain + anatomy.fraction("csf") > 0.5
    box = _box(inside, np.ones(3, int))  # with a layer of the voxels around, nearer ones than any beyond
    depth = np.zeros(inside.shape, np.float32)
    depth[box] = ndimage.distance_transform_edt(inside[box], sampling=anatomy.spacing_mm)
    return depth


@lru_cache(maxsize=1)
def lateral_ventricles(anatomy: Anatomy) -> Mask:
    """Mask of the lateral ventricles (X, Y, Z): on each side, the component of CSF deep in the white matter.

    Cisterns and fissures may be as deep and larger, but are surrounded by cortex and brain stem. Thin CSF does not
    connect components, so sulci and the foramina to the third ventricle do not either.

    Raises: UserError: no CSF is that deep.
    """
    spacing, across = anatomy.spacing_mm, midplane_distance_mm(anatomy)
    thin, blur = THIN_MM * max(1.0, float(spacing.max())), WALL_MM / spacing
    fluid = (anatomy.fraction("csf") > 0.5) & (cranial_depth(anatomy) > DEPTH_MM) & (np.abs(across) > MIDLINE_MM)
    box = _box(fluid, np.ceil(GAUSSIAN_REACH * blur).astype(int))
    deep, across = fluid[box], across[box]
    thick = deep & (ndimage.distance_transform_edt(deep, sampling=spacing) > thin)
    white = ndimage.gaussian_filter(anatomy.fraction("wm")[box], blur, truncate=GAUSSIAN_REACH)
    around = ndimage.gaussian_filter(anatomy.brain[box], blur, truncate=GAUSSIAN_REACH)
    white_walled = white**2 / np.maximum(around, 0.05) ** 2
    found = np.zeros_like(deep)
    for side in (across < 0, across > 0):
        label, count = ndimage.label(thick & side)
        if not count:
            raise UserError(f"no CSF {DEPTH_MM:g} mm deep on both sides of this brain, so no lateral ventricles")
        found |= label == 1 + np.bincount(label.ravel(), white_walled.ravel())[1:].argmax()
    ventricles = np.zeros_like(fluid)
    ventricles[box] = deep & (ndimage.distance_transform_edt(~found, sampling=spacing) <= thin + spacing.max())
    return ventricles


def _box(mask: Mask, margin: NDArray[np.intp]) -> tuple[slice, ...]:
    """The voxels of a mask and `margin` (3) more on every side, as far as the volume goes; all if the mask is empty."""
    voxels = np.argwhere(mask)
    if not len(voxels):
        return np.s_[:, :, :]
    ends = zip(voxels.min(0) - margin, voxels.max(0) + 1 + margin, strict=True)
    return tuple(slice(max(first, 0), last) for first, last in ends)


def _smoothstep(x: Volume) -> Volume:
    """Smooth step from 0 at x <= 0 to 1 at x >= 1."""
    t = np.clip(x, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _enlarged(anatomy: Anatomy, ventricles: Mask, volume: float) -> Volume:
    """Fractions (T, X, Y, Z) with `volume` times the ventricles, by a pull-back along the distance from their wall.

    The wall moves to the distance that encloses `volume` times the voxels. The inside of the old wall is kept, the new
    inside is sampled just within the old wall, and the pull-back fades beyond the new wall, slowly enough not to fold.
    """
    spacing = anatomy.spacing_mm
    box = _box(ventricles, np.ceil((REACH_MM + 3 * SMOOTH_MM) / spacing).astype(int))
    inside = ventricles[box]
    outward = ndimage.distance_transform_edt(~inside, sampling=spacing)
    distance = np.float32(outward - ndimage.distance_transform_edt(inside, sampling=spacing))
    distance = ndimage.gaussian_filter(distance, SMOOTH_MM / spacing)
    voxels = int(np.count_nonzero(ventricles))
    ranks = np.minimum([voxels, round(volume * voxels)], distance.size - 1)
    old_wall, new_wall = np.partition(distance, ranks, axis=None)[ranks]
    reach = float(new_wall - old_wall)
    fade = _smoothstep(1 - (distance - new_wall) / REACH_MM) * _smoothstep(cranial_depth(anatomy)[box] / RIM_MM)
    amount = np.clip(distance - old_wall + INNER_MM, 0, reach) * fade
    source = np.indices(inside.shape, np.float32)
    for axis, slope in enumerate(np.gradient(distance, *spacing)):
        source[axis] -= amount * slope / spacing[axis]
    fractions = anatomy.fractions.copy()
    for fraction in fractions:
        fraction[box] = ndimage.map_coordinates(fraction[box], source, order=1, mode="nearest")
    return fractions


def _widen_sulci(anatomy: Anatomy, fractions: Volume, ventricles: Mask, sulci_mm: float) -> None:
    """Move the border between CSF and cortex by `sulci_mm` into the cortex, in place.

    The front advances at constant speed along its normal, by upwind differences (Osher & Sethian 1988). It moves
    partial volumes, so distances far below a voxel work.
    """
    spacing = anatomy.spacing_mm
    csf, gm = (fractions[anatomy.tissues.index(name)] for name in ("csf", "gm"))
    from_ventricles = ndimage.distance_transform_edt(~ventricles, sampling=spacing)
    cortical = _smoothstep(np.asarray(from_ventricles / DEEP_MM - 1, np.float32))
    steps = int(np.ceil(sulci_mm / min(STEP_MM, spacing.min() / 4)))
    for _ in range(steps):
        squared = np.zeros_like(csf)
        for axis in range(3):
            rise = np.diff(csf, axis=axis) / np.float32(spacing[axis])
            ahead = np.pad(rise, [(0, int(k == axis)) for k in range(3)])
            behind = np.pad(-rise, [(int(k == axis), 0) for k in range(3)])
            squared += np.maximum(np.maximum(ahead, behind), 0) ** 2
        gain = np.minimum(np.float32(sulci_mm / steps) * np.sqrt(squared) * cortical, gm)
        csf += gain
        gm -= gain
