"""Tissue fractions of the Colin27 average head, without its face, for `derive_heads.py`.

Colin27 (Holmes et al., JCAT 1998;22:324) is the mean of 27 T1-weighted scans of one man at 1 mm, so its intensities
show partial volume with hardly any noise. Fractions are piecewise linear between neighbouring class intensities: CSF,
GM, WM inside the cranium; bone, soft tissue, fat outside; bone and fat (marrow) in the skull. There are no hard labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from scripts.head_classes import ALL_TISSUES, MIXTURES, NUMBER
from scripts.head_surface import BROW_BLEND_MM, BROW_MM, FAT_MM, SKIN_MM, largest, surface_depth
from simulation.anatomy import TISSUES

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Matrix = NDArray[np.float64]

BONE, SOFT, FAT = 14.0, 72.0, 150.0  # intensities measured in the head: cortical bone, neck muscle, scalp fat
AIR = 6.0  # sinuses and mastoid cells are darker than bone, which contains some marrow
FLUID = 24.0  # threshold between cortical bone and CSF
HEAD = 16.0
PLATEAU = 5.0  # intensities this close to a class mean are pure, so that noise does not become another tissue


def ball(radius_mm: float) -> Mask:
    """Structuring element of all voxels (1 mm) within `radius_mm` of the centre."""
    reach = int(radius_mm)
    grid = np.mgrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
    return np.asarray((grid**2).sum(0) <= radius_mm**2)


def grow(mask: Mask, radius_mm: float) -> Mask:
    """Dilation by a ball, by the distance transform, which is fast for large radii."""
    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius_mm)


def shrink(mask: Mask, radius_mm: float) -> Mask:
    """Erosion by a ball, but not from the volume's border."""
    return ~grow(~mask, radius_mm)


def closing(mask: Mask, radius_mm: float) -> Mask:
    """Dilation, then erosion, padded so that the border has no influence."""
    pad = int(radius_mm) + 2
    padded = np.pad(mask, pad)
    return shrink(grow(padded, radius_mm), radius_mm)[pad:-pad, pad:-pad, pad:-pad]


def head_region(head: Volume) -> Mask:
    """Everything inside the skin, with cavities that are closed in 3D or in a slice, without the ears.

    The source's field of view cuts through the ears and would leave flat faces, so only voxels that survive an opening
    are kept close to the lateral faces.
    """
    tissue = largest(ndimage.binary_opening(head > HEAD, ball(1)))
    region = closing(tissue, 4.0)
    for axis in (2, 1, 0):
        region = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(region, axis, 0)], axis)
    body = largest(shrink(np.pad(region, ((12, 12), (0, 0), (0, 0))), 9.0))
    body = grow(body, 9.5)[12:-12]
    lateral = np.abs(np.arange(head.shape[0]) - (head.shape[0] - 1) / 2) > head.shape[0] / 2 - 14
    region[lateral] &= body[lateral]
    return largest(region)


def flatten_bias(head: Volume, brain: Mask) -> Volume:
    """Correct the bias field, estimated from white matter (Gaussian of 25 mm over WM-like voxels of the brain)."""
    _, high = threshold_multiotsu(head[brain], 3)
    white = shrink(brain & (head > high), 1.0)
    target = float(np.median(head[white]))
    weight = ndimage.gaussian_filter(white.astype(np.float32), 25.0)
    drift = ndimage.gaussian_filter(np.where(white, head, 0).astype(np.float32), 25.0)
    field = (drift + 1e-3 * target) / (weight + 1e-3) / target
    return np.asarray(head / field, np.float32)


def class_intensities(values: Volume) -> tuple[float, float, float]:
    """Typical intensities of CSF, GM and WM: three-class Otsu, then the mode of each class (a percentile for CSF)."""
    low, high = threshold_multiotsu(values, 3)

    def mode(part: Volume) -> float:
        count, edge = np.histogram(part, bins=60)
        peak = int(ndimage.gaussian_filter1d(count.astype(float), 2.0).argmax())
        return float((edge[peak] + edge[peak + 1]) / 2)

    return (
        float(np.percentile(values[values < low], 35)),
        mode(values[(values >= low) & (values < high)]),
        mode(values[values >= high]),
    )


def intracranial(head: Volume, brain: Mask) -> Mask:
    """Brain, sulci, cisterns and subarachnoid space up to the dark inner table of the skull."""
    smooth = ndimage.gaussian_filter(head, 0.7)
    region = closing(brain, 7.0)
    dark = (smooth < FLUID) & ~brain
    region &= ~ndimage.binary_propagation(~region, mask=~region | dark)  # bone between brain and skull base
    for _ in range(3):
        region = region | (ndimage.binary_dilation(region) & ~dark)
    region = largest(ndimage.binary_opening(region, ball(4)) | brain)
    return closing(region, 2.0)


def eyeballs(head: Volume, cranium: Mask) -> Volume:
    """Vitreous bodies with soft edges, in [0, 1]: two smooth dark-grey balls in the front half, fluid like CSF."""
    grey = (head > 22) & (head < 62) & ~grow(cranium, 3.0)
    grey[:, : head.shape[1] // 2] = False
    balls = ndimage.binary_opening(grey, ball(6))
    label, count = ndimage.label(balls)
    sizes = np.bincount(label.ravel(), minlength=count + 1)
    keep = [k for k in range(1, count + 1) if 2000 < sizes[k] < 9000]
    return ndimage.gaussian_filter(closing(np.isin(label, keep), 4.0).astype(np.float32), 0.7)


def ramp(value: Volume, low: float, high: float) -> Volume:
    """0 at `low`, 1 at `high`, linear between."""
    return np.clip((value - low) / (high - low), 0, 1).astype(np.float32)


def brain_fractions(head: Volume, cranium: Mask, intensities: tuple[float, float, float]) -> dict[str, Volume]:
    """CSF, GM and WM inside the cranium, bone at its rim; volumes with values in [0, 1]."""
    csf, gm, wm = intensities
    csf_up = ramp(head, csf + PLATEAU, gm - PLATEAU)
    gm_up = ramp(head, gm + PLATEAU, wm - PLATEAU)
    white = gm_up
    # CSF borders on WM without cortex at the ventricles' walls: mix only these two, or a false grey line appears.
    depth = ndimage.distance_transform_edt(cranium)
    fluid = largest((head < (csf + gm) / 2) & (depth > 22))
    wall = grow(fluid, 2.5) & (ndimage.maximum_filter(head, size=5) > wm - PLATEAU)
    direct = ramp(head, csf + PLATEAU, wm - PLATEAU)
    white = np.where(wall, direct, white)
    csf_up = np.where(wall, np.maximum(direct, 0), csf_up)
    bone = np.where(depth < 4, 1 - ramp(head, BONE, 28.0), 0)
    parts = {"csf": (1 - csf_up) * (1 - bone), "gm": np.clip(csf_up - white, 0, 1), "wm": white, "bone": bone}
    return {name: np.where(cranium, part, 0).astype(np.float32) for name, part in parts.items()}


def outer_fractions(head: Volume, region: Mask, cranium: Mask) -> dict[str, Volume]:
    """Bone, soft tissue and fat between cranium and skin; dark voxels that are not bone stay air."""
    outside = region & ~cranium
    distance = ndimage.distance_transform_edt(~cranium)
    dark = outside & (head < 34) & (distance < 16)
    skull = closing(dark | cranium, 5.0) & outside & (distance < 18) & shrink(region, 4.0)
    soft_up, fat_up = ramp(head, BONE, SOFT - PLATEAU), ramp(head, SOFT + 20, FAT)
    marrow = ramp(head, BONE + PLATEAU, FAT)
    fat = np.where(skull, marrow, fat_up)
    soft = np.where(skull, 0, soft_up - fat_up)
    cavity = ndimage.gaussian_filter(head, 1.0) < AIR
    solid = shrink(region, 3.0) & ~cavity
    bone = np.where(solid, 1 - fat - soft, 0)
    parts = {"fat": fat, "soft": soft, "bone": bone}
    return {name: np.where(outside, part, 0).astype(np.float32) for name, part in parts.items()}


def derive(head: Volume, brain: Volume) -> NDArray[np.float32]:
    """Tissue fractions (6, X, Y, Z) in [0, 1], in the order of `TISSUES`, from the head and its extracted brain."""
    brain_mask = largest(ndimage.binary_opening(np.pad(brain > 0, 4), ball(3)))[4:-4, 4:-4, 4:-4]
    flat = np.where(grow(brain_mask, 6.0), flatten_bias(head, brain_mask), head).astype(np.float32)
    region = head_region(head)
    cranium = intracranial(head, brain_mask) & region
    parts = brain_fractions(flat, cranium, class_intensities(flat[brain_mask]))
    for name, part in outer_fractions(head, region, cranium).items():
        parts[name] = parts.get(name, 0) + part
    eyes = eyeballs(head, cranium)
    for name in parts:
        parts[name] = parts[name] * (1 - eyes) + eyes * float(name == "csf")
    return np.stack([parts[name] for name in TISSUES]).astype(np.float32)


# --- as it is shipped --------------------------------------------------------------------------------------------


def colin_fractions(head: Path, brain: Path) -> tuple[Volume, Matrix]:
    """The six tissue fractions of Colin27, from intensities that show its partial volume themselves."""
    image = nibabel.Nifti1Image.from_filename(head)
    values = image.get_fdata(dtype=np.float32)
    return derive(values, nibabel.Nifti1Image.from_filename(brain).get_fdata(dtype=np.float32)), np.asarray(
        image.affine
    )


def colin_without_face(
    six: Volume, affine: Matrix, nuclei: Sequence[tuple[NDArray[np.uint8], Matrix]]
) -> tuple[Volume, Matrix]:
    """Colin27's eight fractions (8, X, Y, Z) without a face and with iron, where most others have their nuclei."""
    fractions = np.zeros((len(ALL_TISSUES), *six.shape[1:]), np.float32)
    fractions[: len(TISSUES)] = six
    gm, wm, dgm = (fractions[ALL_TISSUES.index(name)] for name in ("gm", "wm", "dgm"))
    for name in ("caudate", "putamen", "pallidum", "thalamus", "ventral_dc", "dentate"):
        votes = np.zeros(gm.shape, np.float32)
        for classes, to_template in nuclei:
            index = np.linalg.inv(to_template) @ affine
            votes += ndimage.affine_transform(
                (classes == NUMBER[name]).astype(np.float32), index[:3, :3], index[:3, 3], gm.shape, order=1
            )
        iron = np.clip(2 * votes / len(nuclei), 0, 1) * MIXTURES[name]["dgm"] * (gm + wm)
        from_grey = np.minimum(iron, gm)
        dgm += iron
        gm -= from_grey
        wm -= np.minimum(iron - from_grey, wm)
    fractions /= np.maximum(fractions.sum(0), 1)
    eyes = colin_eyes(fractions, affine)
    axis = (float(-affine[0, 3]), float(np.argwhere(gm + wm > 0.5)[:, 1].mean()))
    depth = surface_depth(fractions.sum(0) > 0.5, eyes, axis, 1.0)
    outside = fractions.sum(0) < 0.5
    front = changed_face(eyes, depth)
    new = (depth > 0) & open_air(outside)
    rim = (depth < SKIN_MM + FAT_MM) & front & ~new
    for where, tissue in (
        (new, "fat"),
        (rim & (fractions[ALL_TISSUES.index("bone")] > 0), "fat"),
        ((new | rim) & (depth < SKIN_MM), "soft"),
    ):
        fractions[:, where] = 0
        fractions[ALL_TISSUES.index(tissue), where] = 1
    fractions *= np.clip(depth + 0.5, 0, 1)
    return fractions, affine


def colin_eyes(fractions: Volume, affine: Matrix) -> Mask:
    """The eyes of Colin27: the two components of fluid that lie furthest in front."""
    fluid = fractions[ALL_TISSUES.index("csf")] > 0.5
    label, _ = ndimage.label(ndimage.binary_erosion(fluid, iterations=2))
    sizes = np.bincount(label.ravel())
    front = ndimage.mean(np.indices(fluid.shape)[1], label, np.arange(len(sizes)))
    order = [k for k in np.argsort(-front) if k and sizes[k] > 400][:2]
    return np.asarray(ndimage.binary_dilation(np.isin(label, order), iterations=3))


def open_air(outside: Mask) -> Mask:
    """Air that is connected with the outermost air, cavities excluded."""
    label, _ = ndimage.label(np.pad(outside, ((1, 1), (1, 1), (0, 1)), constant_values=True))
    return np.asarray((label == label[0, 0, -1])[1:-1, 1:-1, :-1])


def changed_face(eyes: Mask, depth: Volume) -> Mask:
    """Where the new surface is not the person's: in front, below the forehead."""
    middle = np.argwhere(eyes).mean(0)
    y, z = np.arange(depth.shape[1]), np.arange(depth.shape[2])
    return np.asarray(
        np.broadcast_to(
            (y[:, None] > middle[1] - 25) & (z[None] < middle[2] + BROW_MM + BROW_BLEND_MM + 4), depth.shape
        )
    )
