"""What is seen in fake_B alone: its brightness, its edges, how deep a pixel lies. Bright places and edges hold larger
errors in any synthesis, so a signal of the model is worth something where it tells more than they do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from evaluation.metrics.structure import gradient
from evaluation.trust.signals import smooth, unit_of

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

APPEARANCE = ("brightness", "edges", "border")
SIGMA = 1.0  # units, of the smoothing of brightness and edges, as of the disagreement


def find_appearance(fake_B: Floats, mask: Mask) -> dict[str, Floats]:
    """Features of fake_B (S, H, W) in [0, 1] of the same shape, 0 outside the head.

    brightness: local mean. edges: local mean of the gradient's magnitude, per unit of length. border: nearness to the
    head's border, 1 at it, 0 in the deepest place of the volume.
    """
    unit = unit_of(fake_B.shape)
    depth = np.stack([distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1] for plane in mask]).astype(np.float32)
    return {
        "brightness": smooth(fake_B, mask, SIGMA * unit),
        "edges": smooth((gradient(fake_B) * unit).astype(np.float32), mask, SIGMA * unit),
        "border": np.where(mask, 1 - depth / max(1.0, float(depth.max())), np.float32(0)),
    }
