"""Atrophy of an anatomy: larger lateral ventricles and wider sulci, the two things in which old heads differ most.

Sources: docs/facts.md section 7.

Both act on the template, before any subject's shape: they change what the brain looks like, not where the skull is.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.anatomy import Anatomy
from util.errors import UserError

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

MAX_VENTRICLES = 4.0  # times their volume: about the range between young and old healthy adults [M]
MAX_SULCI_MM = 1.0  # from either bank: takes a quarter of the grey matter, more than age does [M]
DEPTH_MM = 22.0  # fluid this far within the cranium is ventricle, not sulcus
MIDLINE_MM = 2.0  # no ventricle so near to the midplane: septum, third ventricle and fissure are there
WALL_MM = 3.0  # Gaussian (std) within which a body of fluid is judged by its surroundings
THIN_MM = 1.2  # fluid less than twice this wide is a channel; at least as many voxels
REACH_MM = 20.0  # from the ventricles' new wall to where nothing moves any more
RIM_MM = 15.0  # nor does anything at the skull: displacement fades over this depth below it
SMOOTH_MM = 2.0  # the direction away from the wall is smoothed by a Gaussian of this std: no creases between horns
INNER_MM = 1.0  # "just inside": no deeper than the thinnest horn is half wide
DEEP_MM = 8.0  # grey matter so near to the ventricles is no cortex: it keeps its surface
STEP_MM = 0.25  # of the front between CSF and cortex


def widened(anatomy: Anatomy, *, ventricles: float = 1.0, sulci_mm: float = 0.0) -> Anatomy:
    """The same head with atrophy; equal to `anatomy` if both arguments are left out.

    Args:
        ventricles: volume of the lateral ventricles aimed at over what it was, 1 to 4; their surroundings are pushed
            away, less and less up to 20 mm off. Met to some 15 % in the embedded head; thin ventricles gain less, down
            to half of what was asked.
        sulci_mm: by how much CSF eats into the cortex next to it, from each bank of a sulcus, 0 to 1.

    Returns: an anatomy on the same voxels; every voxel's sum of fractions is that of where it came from.
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


def across_mm(anatomy: Anatomy) -> Volume:
    """Distance in mm (X, Y, Z) of every voxel from the midplane, the one through the centre; positive to the right."""
    place = np.indices(anatomy.brain.shape, np.float32, sparse=True)
    start = np.float32(anatomy.affine[0, 3] - anatomy.centre_mm[0])
    return np.asarray(start + sum(np.float32(anatomy.affine[0, axis]) * place[axis] for axis in range(3)))


@lru_cache(maxsize=1)
def cranial_depth(anatomy: Anatomy) -> Volume:
    """Distance in mm (X, Y, Z) of voxels with brain or CSF from the nearest that has neither, 0 there."""
    inside = anatomy.brain + anatomy.fraction("csf") > 0.5
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=anatomy.spacing_mm), np.float32)


@lru_cache(maxsize=1)
def lateral_ventricles(anatomy: Anatomy) -> Mask:
    """The lateral ventricles (X, Y, Z): on either side of the midplane, the body of fluid deep in the white matter.

    Cisterns and fissures may lie as deep and be larger, but cortex and stem surround them. Thin fluid does not connect,
    so neither sulci nor the foramina to the third ventricle do.

    Raises: UserError: no fluid lies that deep.
    """
    spacing, across = anatomy.spacing_mm, across_mm(anatomy)
    thin = THIN_MM * max(1.0, float(spacing.max()))
    fluid = (anatomy.fraction("csf") > 0.5) & (cranial_depth(anatomy) > DEPTH_MM) & (np.abs(across) > MIDLINE_MM)
    thick = fluid & (ndimage.distance_transform_edt(fluid, sampling=spacing) > thin)
    white = ndimage.gaussian_filter(anatomy.fraction("wm"), WALL_MM / spacing)
    around = ndimage.gaussian_filter(anatomy.brain, WALL_MM / spacing)
    white_walled = white**2 / np.maximum(around, 0.05) ** 2
    found = np.zeros_like(fluid)
    for side in (across < 0, across > 0):
        label, count = ndimage.label(thick & side)
        if not count:
            raise UserError(f"no CSF {DEPTH_MM:g} mm deep on both sides of this brain, so no lateral ventricles")
        found |= label == 1 + np.bincount(label.ravel(), white_walled.ravel())[1:].argmax()
    return np.asarray(fluid & (ndimage.distance_transform_edt(~found, sampling=spacing) <= thin + spacing.max()))


def _faded(share: Volume) -> Volume:
    """Smooth step from 0 at `share` <= 0 to 1 at `share` >= 1."""
    t = np.clip(share, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _enlarged(anatomy: Anatomy, ventricles: Mask, volume: float) -> Volume:
    """Fractions (T, X, Y, Z) with `volume` times the ventricles, by a pull-back along the distance from their wall.

    The wall moves to the distance within which `volume` times the voxels lie. What was within it stays, the new room
    is read just inside the old wall, and beyond the new wall the pull-back fades, slowly enough not to fold.
    """
    spacing = anatomy.spacing_mm
    margin = np.ceil((REACH_MM + 3 * SMOOTH_MM) / spacing).astype(int)
    voxels = np.argwhere(ventricles)
    ends = zip(voxels.min(0) - margin, voxels.max(0) + 1 + margin, strict=True)
    box = tuple(slice(max(first, 0), last) for first, last in ends)
    inside = ventricles[box]
    outward = ndimage.distance_transform_edt(~inside, sampling=spacing)
    distance = np.float32(outward - ndimage.distance_transform_edt(inside, sampling=spacing))
    distance = ndimage.gaussian_filter(distance, SMOOTH_MM / spacing)
    ranks = np.minimum([len(voxels), round(volume * len(voxels))], distance.size - 1)
    wall, moved = np.partition(distance, ranks, axis=None)[ranks]
    reach = float(moved - wall)
    fade = _faded(1 - (distance - moved) / REACH_MM) * _faded(cranial_depth(anatomy)[box] / RIM_MM)
    amount = np.clip(distance - wall + INNER_MM, 0, reach) * fade
    source = np.indices(inside.shape, np.float32)
    for axis, slope in enumerate(np.gradient(distance, *spacing)):
        source[axis] -= amount * slope / spacing[axis]
    fractions = anatomy.fractions.copy()
    for row in fractions:
        row[box] = ndimage.map_coordinates(row[box], source, order=1, mode="nearest")
    return fractions


def _widen_sulci(anatomy: Anatomy, fractions: Volume, ventricles: Mask, sulci_mm: float) -> None:
    """Move the border between CSF and cortex by `sulci_mm` into the cortex, in place.

    A front that advances at constant speed along its normal, by upwind differences (Osher & Sethian 1988): it moves
    partial volumes, so amounts far below a voxel count.
    """
    spacing = anatomy.spacing_mm
    csf, gm = (fractions[anatomy.tissues.index(name)] for name in ("csf", "gm"))
    from_ventricles = ndimage.distance_transform_edt(~ventricles, sampling=spacing)
    cortical = _faded(np.asarray(from_ventricles / DEEP_MM - 1, np.float32))
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
