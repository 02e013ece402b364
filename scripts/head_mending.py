"""Mending of label maps whose source has lost a part of the brain, for `derive_heads.py`.

A label map says CSF where its source scan showed nothing, for example where air in the sinuses cancelled the signal.
Around a healthy brain CSF is a layer: in fifteen of the sixteen heads no part of it further than `DEEP_MM` from its
border is larger than 13 ml with its surroundings. head_14 has one of 69 ml, under the frontal lobes. Such a part gets
the structures that another head has in the same place of its skull.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
Classes = NDArray[np.uint8]

DEEP_MM = 5.0  # from the border of CSF
GROWN_MM = 6  # what is deep, and so much around it, is the part
LARGEST_ML = 25.0  # twice the largest part of the other heads
AROUND_MM = 12  # width of the shell in which a donor has to agree with the head


def lost_part(fluid: Mask) -> Mask:
    """The voxels (1 mm) of CSF around the brain where the brain is missing; empty if none is."""
    deep = ndimage.distance_transform_edt(fluid) > DEEP_MM
    label, count = ndimage.label(deep)
    lost = np.zeros_like(fluid)
    for number in range(1, count + 1):
        part = ndimage.binary_dilation(label == number, iterations=GROWN_MM) & fluid
        if part.sum() / 1000 > LARGEST_ML:
            lost |= part
    return lost


def mend(
    classes: Classes, lost: Mask, affine: Matrix, donors: Sequence[tuple[Classes, Matrix]], brain: Classes
) -> tuple[Classes, int]:
    """The classes with the best donor's in the lost part, where it has brain; the rest of the part stays CSF.

    Args:
        classes: (X, Y, Z) numbers of classes, 1 mm.
        lost: (X, Y, Z), from `lost_part`.
        affine: (4, 4), from voxels to this head's mm.
        donors: classes of other heads, and matrices from this head's mm to their voxels. The best is the one whose
            brain agrees most with this one's around the lost part.
        brain: the numbers of the classes that are brain.

    Returns: the mended classes, and which donor it was.
    """
    shell = ndimage.binary_dilation(lost, iterations=AROUND_MM) & ~lost
    box = tuple(slice(int(k.min()), int(k.max()) + 1) for k in np.nonzero(shell))
    own = np.isin(classes[box], brain)
    placed = []
    for other, to_other in donors:
        index = to_other @ affine
        offset = index[:3, :3] @ [part.start for part in box] + index[:3, 3]
        placed.append(ndimage.affine_transform(other, index[:3, :3], offset, own.shape, order=0))
    agreement = [float((np.isin(other, brain) == own)[shell[box]].mean()) for other in placed]
    best = int(np.argmax(agreement))
    mended = classes.copy()
    filled = lost[box] & np.isin(placed[best], brain)
    mended[box][filled] = placed[best][filled]
    return mended, best
