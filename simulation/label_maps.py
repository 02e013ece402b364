"""A head provided by the user as an `Anatomy`: tissue fractions or FreeSurfer labels, in NIfTI of any orientation.

However it is deformed, the embedded head keeps one topology of sulci and ventricles. Segmentations of other heads are
common, but most contain only the brain. Skull and scalp are then grown around it, because they change the outline, the
histogram and the field of view.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.geometry import spacing_mm, to_ras
from preprocessing.nifti import NIFTI_SUFFIXES, affine_of
from preprocessing.nifti_file import open_nifti, read_voxels
from simulation.anatomy import FURTHER, LESIONS, TISSUES, Anatomy, by_voxel, load_anatomy
from util.errors import UserError

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Numbers of FreeSurferColorLUT.txt [V2, docs/facts.md section 7], left and right together; from 502 on those of CHARM,
# as in the training label maps of SynthSeg, where 136, 137, 163 and 164 are choroid plexus [I, by their neighbours].
# Nuclei are mixtures by their iron as in `heads.py`; perivascular spaces and choroid plexus count as fluid [I].
_FRACTIONS: dict[tuple[int, ...], dict[str, float]] = {
    (4, 5, 14, 15, 24, 43, 44, 72, 122, 257): {"csf": 1.0},  # ventricles, CSF
    (30, 31, 62, 63, 136, 137, 163, 164): {"csf": 1.0},  # vessel (perivascular space), choroid plexus
    (259, 506): {"csf": 1.0},  # eye fluid of samseg, eye
    (3, 42, 8, 47, 172, 183, 184): {"gm": 1.0},  # cortex of cerebrum and cerebellum, vermis
    (17, 18, 26, 53, 54, 58, 80, 81, 82): {"gm": 1.0},  # hippocampus, amygdala, accumbens, non-WM hypo
    (11, 50): {"gm": 0.625, "dgm": 0.375},  # caudate
    (12, 51): {"gm": 0.5, "dgm": 0.5},  # putamen
    (13, 52): {"dgm": 0.875, "wm": 0.125},  # pallidum
    (9, 10, 48, 49): {"gm": 0.625, "wm": 0.25, "dgm": 0.125},  # thalamus
    (28, 60): {"gm": 0.125, "wm": 0.625, "dgm": 0.25},  # ventral DC
    (16, 174, 267, 512): {"gm": 0.25, "wm": 0.75},  # brain stem, pons, spinal cord
    (2, 41, 7, 46, 34, 66, 85, 126, 192, 251, 252, 253, 254, 255): {"wm": 1.0},  # also chiasm, cord, corpus callosum
    (29, 61): {"gm": 0.5, "wm": 0.5},  # "undetermined", a few voxels
    (25, 57): {"wmh": 1.0},  # lesion, left and right
    (77, 78, 79): {"wmh": 1.0},  # WM hypointensities in T1w; the number of WMH in WMH-SynthSeg too
    (502, 514): {"blood": 1.0},  # artery, vein
    (530,): {"wm": 0.5, "csf": 0.5},  # optic nerve in its sheath
    (121, 129, 165, 515, 915): {"bone": 1.0},
    (516, 916): {"bone": 0.5, "fat": 0.5},  # cancellous bone
    (125, 131): {"fat": 1.0},
    (118, 119, 120, 123, 124, 127, 132, 258, 907, 908, 909, 911): {"soft": 1.0},  # skin, muscle, rest of the head
    (507, 508, 511): {"soft": 1.0},  # muscle and fat, eye muscle, skin
    (509,): {"soft": 0.625, "csf": 0.375},  # mucosa
    (130, 262): {},  # air, sinus
}
FLESH = 507  # muscle and fat in one: what lies close under the skin is fat
SKIN_MM, FAT_MM = 2.0, 4.0  # thickness of the skin, and of the fat under it [I]
BELOW_BRAIN_MM = 20.0  # a head ends this far below the grey matter, at the skull base: scans do not cover the neck
_RANGES = {  # parcellations: first and last number, inclusive
    (1000, 1035): "gm",
    (2000, 2035): "gm",
    (3000, 3035): "wm",
    (4000, 4035): "wm",
    (5001, 5002): "wm",
    (11100, 11175): "gm",
    (12100, 12175): "gm",
}
OUTSIDE = ("bone", "fat", "soft")

# Shells grown around a brain without a head: thickness in mm and tissue, from the inside out. Thicknesses [I]; mixtures
# near the embedded head's mean over the vault at each depth [C]; regional differences are not modelled. The skull, with
# marrow in its middle, follows the cranium; the scalp follows a smoother outline, and soft tissue fills the space
# between them under the skull base.
SKULL = ((2.0, {"csf": 1.0}), (2.0, {"bone": 1.0}), (2.0, {"bone": 0.75, "fat": 0.25}), (2.0, {"bone": 1.0}))
SCALP = ((2.0, {"soft": 1.0}), (3.0, {"fat": 0.65, "soft": 0.35}), (2.5, {"soft": 1.0}))
CRANIUM_MM = 12.0  # radius of the closing that makes the cranium from the brain; the rest of it is CSF [I]
OUTLINE_MM = 40.0  # radius of the closing that makes the outline of the head inside skull and scalp [I]
ROUND_MM = 2.5  # Gaussian (std) that removes the gyri from the cranium [I]
AIR_MM = 3.0  # empty margin of the grown map
EDGE_VOXELS = 0.5  # Gaussian (std, voxels) that gives hard labels partial volume at their borders [I]
TOLERANCE = 1e-3  # for fractions that were resampled or rounded
BRAIN_LITRES = (0.2, 3.0)  # range of grey and white matter, newborns included; others mean units other than mm
MAX_VOXELS = 60_000_000
MAX_VALUES = 2 * MAX_VOXELS  # of a map of fractions; bounds the memory


@cache
def read_anatomy(path: Path) -> Anatomy:
    """Read a head for the simulator; it is cached, so do not write to it.

    Three kinds of files: a fraction map of `save_anatomy` or a shipped head (.npz); a NIfTI of fractions (X, Y, Z, 6)
    in the order of `TISSUES`, each in [0, 1], the rest to 1 being air; a NIfTI of labels (X, Y, Z) from FreeSurfer,
    SynthSeg or SynthSR, whose skull and scalp are grown if missing and whose neck is cut off. Voxels of any size.

    Returns: the anatomy with axes closest to RAS, in the mm coordinates of the file.
    Raises: UserError naming the file: unreadable, no orientation, wrong dimensions, NaN, fractions below 0 or with a
        sum above 1, labels that are not whole numbers or unknown, no brain or one of impossible size.
    """
    name = path.name.lower()
    if name.endswith(".npz"):
        return _checked(load_anatomy(path), str(path))
    if not name.endswith(NIFTI_SUFFIXES):
        raise UserError(f"{path}: need a .npz, .nii or .nii.gz file")
    values, affine = _read(path)
    if values.ndim == 4:
        return _checked(Anatomy(by_voxel(_fractions(path, values)), affine), str(path))
    return from_labels(values, affine, str(path))


def from_labels(labels: NDArray, affine: NDArray[np.float64], source: str) -> Anatomy:
    """The anatomy of FreeSurfer `labels` (X, Y, Z) in RAS, whole numbers of any dtype; errors name `source`.

    Raises: UserError: a label that is not a whole number or unknown, no brain or one of impossible size.
    """
    present, where = np.unique(labels, return_inverse=True)
    not_whole = [value for value in present if value != np.rint(value)]
    if not_whole:
        raise UserError(f"{source}: labels {_listed(not_whole)}, need the whole numbers of FreeSurferColorLUT")
    mixtures = {int(value): _mixture(int(value)) for value in present}
    unknown = [value for value, mixture in mixtures.items() if mixture is None]
    if unknown:
        raise UserError(f"{source}: unknown labels {_listed(unknown)}, need those of FreeSurfer and SynthSeg")
    used = {name for mixture in mixtures.values() for name in mixture or {}}
    if not used & {"gm", "wm"}:
        raise UserError(f"{source}: no label of grey or white matter, need a brain")
    tissues = tuple(name for name in TISSUES + FURTHER + LESIONS if name in used or name in TISSUES)
    columns = [mixture or {} for mixture in mixtures.values()]
    table = np.array([[column.get(name, 0.0) for column in columns] for name in tissues], np.float32)
    codes = where.reshape(labels.shape)
    if used & set(OUTSIDE):
        grey = [number for number, column in enumerate(columns) if column.get("gm") == 1.0]
        codes, affine = _without_neck(codes, affine, grey, [*mixtures].index(0) if 0 in mixtures else None)
    fractions = table[:, codes]
    _checked(Anatomy(fractions, affine, tissues), source)
    if not used & set(OUTSIDE):
        fractions, affine = _with_head(fractions, affine)
    elif FLESH in mixtures:
        _add_fat(fractions, codes == [*mixtures].index(FLESH), np.array(spacing_mm(affine)))
    for fraction in fractions:
        ndimage.gaussian_filter(fraction, EDGE_VOXELS, output=fraction, mode="nearest")
    return Anatomy(by_voxel(fractions), affine, tissues)


def _without_neck(
    codes: NDArray, affine: NDArray[np.float64], grey: list[int], air: int | None
) -> tuple[NDArray, NDArray[np.float64]]:
    """Codes (X, Y, Z) and affine of the box around the head that ends at the skull base.

    `grey` are the codes of pure grey matter, `air` that of air.
    """
    head = codes != air if air is not None else np.ones(codes.shape, bool)
    ends = [np.flatnonzero(head.any(tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    low = np.array([max(int(first) - 2, 0) for first, _ in ends])
    planes = np.flatnonzero(np.isin(codes, grey).any((0, 1)))
    if len(planes):
        low[2] = max(low[2], int(planes[0] - np.ceil(BELOW_BRAIN_MM / spacing_mm(affine)[2])), 0)
    high = [int(last) + 3 for _, last in ends]
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ low
    return codes[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], shifted


def _add_fat(fractions: Volume, flesh: Mask, spacing: NDArray[np.float64]) -> None:
    """Turn flesh close under the skin into fat, in place."""
    around = np.pad(fractions.sum(0) > 0, ((1, 1), (1, 1), (0, 1)))
    around = np.pad(around, ((0, 0), (0, 0), (1, 0)), mode="edge")
    depth = ndimage.distance_transform_edt(around, sampling=spacing)[1:-1, 1:-1, 1:-1]
    fatty = flesh & (depth < SKIN_MM + FAT_MM) & (depth > SKIN_MM)
    fractions[TISSUES.index("fat")][fatty] = 1
    fractions[TISSUES.index("soft")][fatty] = 0


def _mixture(label: int) -> dict[str, float] | None:
    """Tissue fractions of one label number; empty for air, None if the number is unknown."""
    if label == 0:
        return {}
    for numbers, mixture in _FRACTIONS.items():
        if label in numbers:
            return mixture
    return next(({name: 1.0} for (first, last), name in _RANGES.items() if first <= label <= last), None)


def _listed(values: list) -> str:
    """The first few of `values` for a message."""
    return ", ".join(f"{value:g}" for value in values[:8]) + (" ..." if len(values) > 8 else "")


def _with_head(fractions: Volume, affine: NDArray[np.float64]) -> tuple[Volume, NDArray[np.float64]]:
    """Grow a head around a brain: fractions (T, X, Y, Z) and affine of a box large enough for it.

    The box is not extended below: as in the embedded map, the head is cut off at the lower end of the brain.
    """
    spacing = np.array(spacing_mm(affine))
    voxels = np.argwhere(fractions.any(0))
    margin = np.ceil((_thickness(SKULL) + _thickness(SCALP) + AIR_MM) / spacing).astype(int)
    low, high = voxels.min(0) - margin, voxels.max(0) + 1 + margin
    low[2] += margin[2]
    size = fractions.shape[1:]
    inside = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, size, strict=True))
    pad = [(max(-a, 0), max(b - n, 0)) for a, b, n in zip(low, high, size, strict=True)]
    padded = np.pad(fractions[:, *inside], [(0, 0), *pad])
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ low
    _grow_head(padded, spacing)
    return padded, shifted


def _thickness(shells: tuple[tuple[float, dict[str, float]], ...]) -> float:
    return sum(thickness for thickness, _ in shells)


def _closed(mask: Mask, radius_mm: float, spacing: NDArray[np.float64]) -> Mask:
    """`mask` closed by a ball, with the lowest plane extended downwards."""
    margin = np.ceil((radius_mm + AIR_MM) / spacing).astype(int)
    pad = [(margin[0], margin[0]), (margin[1], margin[1]), (0, margin[2])]
    dilated = ndimage.distance_transform_edt(~np.pad(mask, pad), sampling=spacing) <= radius_mm
    closed = ndimage.distance_transform_edt(dilated, sampling=spacing) > radius_mm
    return np.asarray(closed[tuple(slice(low, low + n) for (low, _), n in zip(pad, mask.shape, strict=True))])


def _grow_head(fractions: Volume, spacing: NDArray[np.float64]) -> None:
    """Fill the sulci with CSF and add skull and scalp to fractions (T, X, Y, Z), in place."""
    brain: Mask = np.asarray(fractions.any(0))
    closed = _closed(brain, CRANIUM_MM, spacing).astype(np.float32)
    cranium = np.asarray(brain | (ndimage.gaussian_filter(closed, ROUND_MM / spacing, mode="nearest") > 0.5))
    outline = _closed(cranium, OUTLINE_MM, spacing)
    fractions[TISSUES.index("csf")][cranium & ~brain] = 1
    voxel = float(np.cbrt(spacing.prod()))

    def around(mask: Mask) -> Volume:
        distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
        return np.asarray(np.where(mask, -voxel, distance - voxel / 2), np.float32)  # from its border

    def within(distance: Volume, radius: float) -> Volume:
        return np.clip((radius - distance) / voxel + 0.5, 0, 1)

    def add(part: Volume, mixture: dict[str, float]) -> None:
        for name, fraction in mixture.items():
            fractions[TISSUES.index(name)] += fraction * part

    from_cranium, from_outline = around(cranium), around(outline)
    filled, radius = cranium.astype(np.float32), 0.0
    for thickness, mixture in SKULL:
        radius += thickness
        grown = np.maximum(filled, within(from_cranium, radius))
        add(grown - filled, mixture)
        filled = grown
    for thickness, mixture in ((0.0, {"soft": 1.0}), *SCALP):
        radius += thickness
        grown = np.maximum(filled, within(from_outline, radius))
        add(grown - filled, mixture)
        filled = grown


def _read(path: Path) -> tuple[Volume, NDArray[np.float64]]:
    """The voxels of a NIfTI file, 3-D or 4-D, in RAS order, and their affine (4, 4)."""
    opened = open_nifti(path, MAX_VALUES)
    shape = opened.shape
    fractions = len(shape) == 4 and shape[-1] == len(TISSUES)
    if not fractions and len(shape) != 3:
        raise UserError(f"{path}: shape {shape}, need labels (X, Y, Z) or fractions (X, Y, Z, {len(TISSUES)})")
    if min(shape[:3]) < 2 or np.prod(shape[:3]) > MAX_VOXELS:
        raise UserError(f"{path}: shape {shape}, need at least 2 voxels per side and at most {MAX_VOXELS} voxels")
    affine = affine_of(opened)
    return to_ras(read_voxels(opened), affine)


def _fractions(path: Path, values: Volume) -> Volume:
    """Checked fractions (6, X, Y, Z) of a map (X, Y, Z, 6)."""
    total = values.sum(-1, dtype=np.float64).max()
    if values.min() < -TOLERANCE or total > 1 + TOLERANCE:
        raise UserError(
            f"{path}: smallest fraction {values.min():g}, largest sum in a voxel {total:g}; "
            f"need at least 0 and a sum of at most 1"
        )
    positive = np.clip(np.moveaxis(values, -1, 0), 0, None)
    return np.asarray(positive / np.maximum(positive.sum(0), 1))


def _checked(anatomy: Anatomy, source: str) -> Anatomy:
    """The anatomy itself. Raises UserError if its brain does not have the size of a brain."""
    voxel_mm3 = abs(float(np.linalg.det(anatomy.affine[:3, :3])))
    litres = float(anatomy.brain.sum(dtype=np.float64)) * voxel_mm3 / 1e6
    low, high = BRAIN_LITRES
    if not low <= litres <= high or not (anatomy.brain > 0.5).any():
        raise UserError(f"{source}: {litres:.3g} litres of grey and white matter, need {low:g} to {high:g}, in mm")
    return anatomy
