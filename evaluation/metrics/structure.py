"""What intensities alone do not tell: edges, the fit of neighbouring slices, and signal where there is air.

As in `image`, a prediction, a truth and a head mask are (S, H, W), in the order of the volume, with intensities in
[0, 1]. None means that the number does not exist for this input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

# Of the longer side, beyond the truth's head: neither head nor air, for noise hides the dim scalp
RIM = 0.02


def gradient(stack: Floats) -> Floats:
    """Magnitude of the in-plane gradient by central differences, per pixel: (S, H, W) float64."""
    rows, columns = np.gradient(stack.astype(np.float64), axis=(1, 2))
    return np.hypot(rows, columns)


def _correlation(x: Floats, y: Floats) -> float | None:
    """Pearson's correlation of two samples; None if there are fewer than two numbers, or one of them is constant."""
    if x.size < 2:
        return None
    x, y = x - x.mean(), y - y.mean()
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size > 0 else None


def edge_corr(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """Correlation between the strengths of edges in prediction and truth over the head's voxels of the volume."""
    return _correlation(gradient(prediction)[mask], gradient(truth)[mask])


def slice_consistency(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """Correlation between the changes from a slice to the next one in prediction and truth, where both show the head.

    Slices that are translated one by one may not fit together: a change of brightness or of an outline that the truth
    does not have lowers it.
    """
    both = mask[1:] & mask[:-1]
    changes = (np.diff(stack.astype(np.float64), axis=0)[both] for stack in (prediction, truth))
    return _correlation(*changes)


def air_leak(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """Mean of the prediction's intensities in the air, as a part of their mean in the head; 0 is none.

    Air begins `RIM` of the slice's longer side beyond the truth's head mask, and is all of a slice without head.
    """
    air = air_of(mask)
    if not air.any() or not mask.any():
        return None
    head = float(prediction[mask].astype(np.float64).mean())
    return float(np.abs(prediction[air].astype(np.float64)).mean()) / head if head > 0 else None


def air_of(mask: Mask) -> Mask:
    """The air beside heads (S, H, W): from `RIM` of the longer side beyond the mask on; all of a slice without head."""
    reach = RIM * max(mask.shape[1:])
    return np.stack([distance_transform_edt(~plane) > reach if plane.any() else ~plane for plane in mask])
