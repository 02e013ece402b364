"""The people whose heads are shipped: label maps at 1 mm that become tissue fractions when they are loaded.

NOTICE says whose work the files rest on. Labels are hard, so partial volume is
made here, as a scan would show it: see `partial_volume`.
"""

from __future__ import annotations

import lzma
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from simulation.anatomy import FURTHER, TISSUES, Anatomy, load_anatomy
from util.errors import UserError

PEOPLE: tuple[str, ...] = ("colin27", *(f"head_{number:02d}" for number in range(1, 17)))
FOLDER = Path(__file__).with_name("maps")
ALL_TISSUES = TISSUES + FURTHER

# Classes of the label maps, numbered in this order, and the tissues that they consist of (the rest to 1 is air).
# Mixtures in sixteenths, so that sums are exact. Nuclei by their iron (docs/facts.md section 7): pallidum 1, putamen
# 0.55, caudate 0.4, dentate 0.45 of the pallidum's surplus over cortex.
CLASSES: dict[str, dict[str, float]] = {
    "air": {},
    "csf": {"csf": 1},
    "gm": {"gm": 1},
    "wm": {"wm": 1},
    "fat": {"fat": 1},
    "bone": {"bone": 1},
    "soft": {"soft": 1},
    "marrow": {"bone": 0.5, "fat": 0.5},
    "caudate": {"gm": 0.625, "dgm": 0.375},
    "putamen": {"gm": 0.4375, "dgm": 0.5625},
    "pallidum": {"dgm": 0.75, "wm": 0.25},
    "thalamus": {"gm": 0.625, "wm": 0.25, "dgm": 0.125},
    "brain_stem": {"gm": 0.25, "wm": 0.75},
    "ventral_dc": {"gm": 0.125, "wm": 0.625, "dgm": 0.25},
    "dentate": {"gm": 0.375, "dgm": 0.375, "wm": 0.25},
    "choroid_plexus": {"csf": 0.625, "gm": 0.375},
    "pale_white": {"wm": 0.8125, "csf": 0.1875},
    "artery": {"blood": 1},
    "vein": {"blood": 1},
    "lens": {"soft": 1},
    "optic_nerve": {"wm": 0.5, "csf": 0.5},
    "mucosa": {"soft": 0.625, "csf": 0.375},
}

Labels = NDArray[np.uint8]


@lru_cache(maxsize=2)
def load_person(name: str) -> Anatomy:
    """The head of one of `PEOPLE`, with `to_template` and `level_error_mm`; cached, so do not write to it.

    Raises:
        UserError: an unknown name, or a file that is missing or damaged.
    """
    if name not in PEOPLE:
        raise UserError(f"person {name}: unknown, choose from {', '.join(PEOPLE)}")
    if name == "colin27":
        return load_anatomy()
    path = FOLDER / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as content:
            shape = tuple(int(side) for side in content["shape"])
            labels = np.frombuffer(lzma.decompress(content["packed"].tobytes()), np.uint8).reshape(shape)
            affine, to_template, centre = (content[key] for key in ("affine", "to_template", "centre_mm"))
            error_mm = float(content["level_error_mm"])
    except (OSError, EOFError, KeyError, ValueError, BadZipFile, lzma.LZMAError) as error:
        raise UserError(f"{path}: not a head's label map ({error})") from error
    if labels.max() >= len(CLASSES):
        raise UserError(f"{path}: label {labels.max()}, need at most {len(CLASSES) - 1}")
    return Anatomy(partial_volume(labels), affine, ALL_TISSUES, centre, to_template, error_mm)


def save_person(
    path: Path, labels: Labels, affine: NDArray, *, to_template: NDArray, centre_mm: NDArray, level_error_mm: float
) -> None:
    """Write labels (Z, Y, X) of `CLASSES` and what `load_person` needs with them; equal content gives equal bytes."""
    packed = lzma.compress(np.ascontiguousarray(labels).tobytes(), preset=9 | lzma.PRESET_EXTREME)
    np.savez(
        path,
        packed=np.frombuffer(packed, np.uint8),
        shape=np.array(labels.shape, np.int32),
        affine=affine,
        to_template=to_template,
        centre_mm=centre_mm,
        level_error_mm=np.float64(level_error_mm),
    )


# --- partial volume ----------------------------------------------------------------------------------------------

FULL = 64  # of a binomial mean over 3 x 3 x 3 voxels, weights 1 2 1 along every axis
OWN = 8  # extra weight of the voxel itself, so that a sulcus or vessel one voxel wide keeps more of its volume
RAMP = 1.7  # fraction per unit of the smoothed mean's lead: about the slope of a box over a smoothed edge [C]


def partial_volume(labels: Labels) -> NDArray[np.float32]:
    """Tissue fractions (T, X, Y, Z) of labels (Z, Y, X) of `CLASSES`, in the order of `ALL_TISSUES`.

    Around a border, the mean of a class over the neighbours tells how far inside or outside of it a voxel's centre is,
    by less than a voxel. The fraction is a ramp of the lead over the strongest other class, one voxel wide: what the
    voxel's box holds of either side of a smooth surface, so edges stay sharp while the steps of the labels vanish.
    """
    table = np.array([[mix.get(tissue, 0) for tissue in ALL_TISSUES] for mix in CLASSES.values()], np.float32)
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=len(CLASSES)))
    boxes = {int(number): _box(labels == number) for number in present}
    means, first, second = {}, np.zeros(labels.shape, np.uint8), np.zeros(labels.shape, np.uint8)
    for number, box in boxes.items():
        mean = means[number] = _neighbourhood(labels[box] == number)
        np.maximum(second[box], np.minimum(first[box], mean), out=second[box])
        np.maximum(first[box], mean, out=first[box])
    mixed = np.flatnonzero(first < FULL + OWN)
    weights = np.zeros((len(mixed), len(ALL_TISSUES)), np.float32)
    total = np.zeros(len(mixed), np.float32)
    lead_of = np.clip(0.5 + RAMP / 2 * np.arange(-FULL - OWN, FULL + OWN + 1) / (FULL + OWN), 0, 1)
    ramp = np.rint(lead_of * 64).astype(np.float32)
    flat_first, flat_second = first.ravel()[mixed], second.ravel()[mixed]
    whole = np.zeros(labels.shape, np.uint8)
    for number, box in boxes.items():
        whole[box] = means.pop(number)
        mean = whole.ravel()[mixed]
        whole[box] = 0
        where = np.flatnonzero(mean)
        mean = mean[where]
        other = np.where(mean == flat_first[where], flat_second[where], flat_first[where])
        part = ramp[mean.astype(np.int16) - other + (FULL + OWN)]
        total[where] += part
        for tissue in np.flatnonzero(table[number]):
            weights[where, tissue] += table[number, tissue] * part
    weights /= total[:, None]
    fractions = table[labels.ravel()]
    fractions[mixed] = weights
    return fractions.reshape(*labels.shape, len(ALL_TISSUES)).transpose(3, 2, 1, 0)


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The bounding box of a mask, two voxels wider."""
    ends = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    return tuple(slice(max(int(low) - 2, 0), int(high) + 3) for low, high in ends)


def _neighbourhood(mask: NDArray[np.bool_]) -> Labels:
    """`FULL` times the binomial mean of a mask over 3 x 3 x 3 voxels, plus `OWN` inside it."""
    mean = mask.view(np.uint8) * np.uint8(1)
    for axis in range(3):
        along = np.moveaxis(mean, axis, 0)
        blurred = np.moveaxis(2 * mean, axis, 0)
        blurred[1:] += along[:-1]
        blurred[:-1] += along[1:]
        blurred[0] += along[0]
        blurred[-1] += along[-1]
        mean = np.moveaxis(blurred, 0, axis)
    return mean + np.uint8(OWN) * mask.view(np.uint8)
