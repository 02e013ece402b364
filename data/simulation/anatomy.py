"""The embedded anatomy: fractions of six tissues in every voxel of one head (Colin27, see NOTICE)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from util.errors import UserError

TISSUES = ("csf", "gm", "wm", "fat", "bone", "soft")  # what is left to 1 is air
LABELS = {"air": 0, **{name: number for number, name in enumerate(TISSUES, start=1)}}
EMBEDDED = Path(__file__).with_name("colin27.npz")
LEVELS = 24  # fractions are stored as multiples of 1/24: exact for halves and thirds, small when compressed


@dataclass(frozen=True)
class Anatomy:
    """Tissue fractions (6, X, Y, Z) float32 in [0, 1], sum <= 1, in RAS; `affine` (4, 4) maps voxel indices to mm.

    The embedded map is laid out in memory as (Z, Y, X, 6), so that resampling finds a voxel's fractions side by side.
    """

    fractions: NDArray[np.float32]
    affine: NDArray[np.float64]


def save_anatomy(path: Path, anatomy: Anatomy) -> None:
    """Write the fractions as small integers, zip-compressed; equal content gives equal bytes."""
    total = anatomy.fractions.sum(0)
    steps = np.floor(anatomy.fractions * LEVELS + 0.5)
    excess = np.clip(steps.sum(0) - LEVELS, 0, None)  # rounding may overshoot by one step: take it off the largest
    np.put_along_axis(steps, steps.argmax(0)[None], steps.max(0)[None] - excess, 0)
    if not np.isfinite(total).all() or total.max() > 1 + 1e-4:
        raise UserError(f"{path}: tissue fractions must be finite and sum to at most 1, here {total.max():.3f}")
    np.savez_compressed(path, steps=steps.astype(np.uint8), levels=np.uint8(LEVELS), affine=anatomy.affine)


@cache
def load_anatomy(path: Path = EMBEDDED) -> Anatomy:
    """Read a fraction map; kept for the life of the process, so do not write into it.

    Raises:
        UserError: not a readable map, or fractions that sum to more than 1.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            steps, levels = content["steps"], int(content["levels"])
            affine = content["affine"].astype(np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a tissue-fraction map ({error})") from error
    if steps.ndim != 4 or len(steps) != len(TISSUES) or steps.sum(0, dtype=np.uint16).max() > levels:
        raise UserError(f"{path}: expected {len(TISSUES)} tissue fractions (6, X, Y, Z) that sum to at most 1")
    by_voxel = np.ascontiguousarray(steps.transpose(3, 2, 1, 0))
    return Anatomy(np.divide(by_voxel, np.float32(levels), dtype=np.float32).transpose(3, 2, 1, 0), affine)
