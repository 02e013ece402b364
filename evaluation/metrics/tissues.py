"""What tissues and lesions tell of a prediction: Dice, order of brightness, lesions lost, invented, their contrast.

Classes are (S, H, W) of whole numbers, as `classes_of` makes them from the simulator's labels. None means that the
number does not exist for this input.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.metrics.image import affine_fit

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]
Classes = NDArray[np.uint8]

TISSUES = {"csf": 1, "gm": 2, "wm": 3}  # numbers in the labels, and of the classes
LESION = 4  # class of all lesions, whose labels begin with FIRST_LESION
FIRST_LESION = 7
LEAST_VOXELS = 4  # of a lesion that counts as invented: smaller ones are a matter of chance
LOST_VOXELS = 16  # of one that can be lost: what is smaller, or faint, is missed in the truth too
FOUND = 0.25  # part of a lesion's voxels that makes it found
CONNECTED = np.ones((3, 3, 3), bool)  # corners join voxels to one lesion
AROUND = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), 3)[None]  # (1, 7, 7): 3 px, in the slice
SURROUNDINGS = ("gm", "wm")  # what a lesion's brightness is compared with


def classes_of(labels: NDArray[np.uint8]) -> Classes:
    """Classes of the simulator's labels: 0 all else, 1 CSF, 2 grey matter, 3 white matter, 4 lesion."""
    tissue = np.where(labels <= max(TISSUES.values()), labels, 0)
    return np.where(labels >= FIRST_LESION, LESION, tissue).astype(np.uint8)


def dice(found: Classes, true: Classes) -> float | None:
    """Mean Dice coefficient of CSF, grey and white matter over a volume; None where the truth lacks one of them."""
    scores = []
    for number in TISSUES.values():
        a, b = found == number, true == number
        if not b.any():
            return None
        scores.append(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
    return float(np.mean(scores))


def volume_error(found: Classes, true: Classes) -> float | None:
    """Mean of |volume found - true volume| / true volume over CSF, grey and white matter of a volume."""
    errors = []
    for number in TISSUES.values():
        a, b = np.count_nonzero(found == number), np.count_nonzero(true == number)
        if b == 0:
            return None
        errors.append(abs(a - b) / b)
    return float(np.mean(errors))


def contrast_ranks(prediction: Floats, truth: Floats, true: Classes) -> float | None:
    """Part of the three pairs of CSF, grey and white matter whose medians are in the truth's order of brightness."""
    inside = [true == number for number in TISSUES.values()]
    if not all(part.any() for part in inside):
        return None
    medians = [(float(np.median(prediction[part])), float(np.median(truth[part]))) for part in inside]
    right = [np.sign(p - q) == np.sign(t - u) for (p, t), (q, u) in combinations(medians, 2)]
    return float(np.mean(right))


def lesions_of(classes: Classes, least: int = LEAST_VOXELS) -> list[NDArray[np.intp]]:
    """The lesions of a volume, as the flat positions of their voxels: connected ones of at least so many voxels."""
    parts, count = ndimage.label(classes == LESION, CONNECTED)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    return [np.flatnonzero(parts == number) for number in range(1, count + 1) if sizes[number] >= least]


def lesions_lost(found: Classes, in_truth: Classes, true: Classes) -> tuple[int, int]:
    """Lesions of the head found in the truth's image but not in the prediction's, and how many the former are.

    Only lesions of at least `LOST_VOXELS` are looked for.

    Args: found, in_truth: segmentation of the prediction and of the truth's image. true: the simulator's classes.
    """
    seen, kept = (
        [float(np.mean(classes.ravel()[lesion] == LESION)) >= FOUND for lesion in lesions_of(true, LOST_VOXELS)]
        for classes in (in_truth, found)
    )
    return sum(there and not here for there, here in zip(seen, kept, strict=True)), sum(seen)


def lesions_invented(found: Classes, in_truth: Classes, true: Classes) -> int:
    """Lesions found in the prediction that touch neither a lesion of the head nor one found in the truth's image."""
    known = ndimage.binary_dilation((true == LESION) | (in_truth == LESION), CONNECTED).ravel()
    return sum(not known[lesion].any() for lesion in lesions_of(found))


def lesion_contrasts(image: Floats, true: Classes) -> NDArray[np.float64]:
    """Mean of each lesion of `LOST_VOXELS` and more less that of the grey and white matter within 3 px, slice by slice.

    Returns: (L,), in units of the image. A lesion that has no such surroundings is left out.
    """
    tissue = np.isin(true, [TISSUES[name] for name in SURROUNDINGS])
    found = []
    for lesion in lesions_of(true, LOST_VOXELS):
        inside = np.zeros(true.shape, bool)
        inside.ravel()[lesion] = True
        around = ndimage.binary_dilation(inside, AROUND) & tissue
        if around.any():
            found.append(image[inside].mean(dtype=np.float64) - image[around].mean(dtype=np.float64))
    return np.array(found, np.float64)


def lesion_contrast(prediction: Floats, truth: Floats, true: Classes, head: Mask) -> tuple[float | None, float | None]:
    """How strongly a prediction shows the lesions of a head, and how far it is off; (1, 0) is the truth.

    Both after the affine fit of `psnr_fit`, since contrast depends on the window of intensities. With c the contrasts
    of the lesions: sum(c c_truth) / sum(c_truth^2), and mean |c - c_truth| / mean |c_truth|. None without a lesion.
    """
    in_truth = lesion_contrasts(truth, true)
    if not in_truth.any():
        return None, None
    scale, _ = affine_fit(prediction, truth, head)
    seen = scale * lesion_contrasts(prediction, true)
    error = np.abs(seen - in_truth).mean() / np.abs(in_truth).mean()
    return float(seen @ in_truth / (in_truth @ in_truth)), float(error)
