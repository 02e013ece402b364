"""A head as fractions of its tissues in every voxel, and the embedded one (Colin27, see NOTICE).

Other heads are read by `label_maps.py`; `atrophy.py` and `lesions.py` make new heads out of any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from util.errors import UserError

TISSUES = ("csf", "gm", "wm", "fat", "bone", "soft")  # what is left to 1 is air
LESIONS = ("wmh", "tumour", "oedema", "infarct")  # rows that may follow the six: see `lesions.py`
LABELS = {"air": 0, **{name: number for number, name in enumerate(TISSUES + LESIONS, start=1)}}
HEAD_CENTRE_MM = np.array([0.0, -17.0, 12.0])  # of the embedded head, in template mm
CENTRE_ABOVE_BRAIN_MM = 4.0  # where HEAD_CENTRE_MM lies above the middle of the embedded brain's box
EMBEDDED = Path(__file__).with_name("colin27.npz")
LEVELS = 24  # fractions are stored as multiples of 1/24: exact for halves and thirds, small when compressed


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Tissue fractions (T, X, Y, Z) float32 in [0, 1], sum <= 1, in RAS; `affine` (4, 4) maps voxel indices to mm.

    `tissues` names the T rows: the six, then any of `LESIONS`. `known_centre_mm` (3,) overrules the box's `centre_mm`.
    Maps are laid out in memory as (Z, Y, X, T), so that resampling finds a voxel's fractions side by side. Compared and
    hashed by identity.
    """

    fractions: NDArray[np.float32]
    affine: NDArray[np.float64]
    tissues: tuple[str, ...] = TISSUES
    known_centre_mm: NDArray[np.float64] | None = None

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel sides (3,) in mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def label_numbers(self) -> NDArray[np.uint8]:
        """The number in `LABELS` of air and then of every row, (1 + T,)."""
        return np.array([LABELS[name] for name in ("air", *self.tissues)], np.uint8)

    @cached_property
    def brain(self) -> NDArray[np.float32]:
        """Share of a voxel that is brain, lesions included, (X, Y, Z) in [0, 1]."""
        rows = [row for row, name in enumerate(self.tissues) if name in ("gm", "wm", *LESIONS)]
        return np.asarray(self.fractions[rows].sum(0))

    @cached_property
    def centre_mm(self) -> NDArray[np.float64]:
        """The point (3,) about which heads are scaled and turned: a little above the middle of the brain's box.

        The brain's box and not the head's, since every map holds the whole brain but more or less of the neck.

        Raises:
            UserError: no voxel is mostly brain.
        """
        if self.known_centre_mm is not None:
            return self.known_centre_mm
        inside = self.brain > 0.5
        if not inside.any():
            raise UserError("no voxel of this anatomy is mostly grey or white matter, so its head has no known centre")
        ends = [np.flatnonzero(inside.any(tuple({0, 1, 2} - {axis})))[[0, -1]].mean() for axis in range(3)]
        return np.asarray(self.affine[:3, :3] @ ends + self.affine[:3, 3] + [0, 0, CENTRE_ABOVE_BRAIN_MM])

    def fraction(self, name: str) -> NDArray[np.float32]:
        """One tissue's fractions (X, Y, Z), a view."""
        return self.fractions[self.tissues.index(name)]

    def changed(self, fractions: NDArray[np.float32], tissues: tuple[str, ...] | None = None) -> Anatomy:
        """The same head with other fractions: voxels and centre stay, so a subject's shape fits it as before."""
        return replace(
            self,
            fractions=by_voxel(fractions),
            tissues=self.tissues if tissues is None else tissues,
            known_centre_mm=self.centre_mm,
        )


def by_voxel(fractions: NDArray) -> NDArray[np.float32]:
    """The same (T, X, Y, Z) as float32, laid out in memory as (Z, Y, X, T)."""
    return np.ascontiguousarray(fractions.transpose(3, 2, 1, 0), np.float32).transpose(3, 2, 1, 0)


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
    except (OSError, EOFError, KeyError, ValueError, TypeError, BadZipFile) as error:
        raise UserError(f"{path}: not a tissue-fraction map ({error})") from error
    if steps.ndim != 4 or len(steps) != len(TISSUES) or steps.sum(0, dtype=np.uint16).max() > levels:
        raise UserError(f"{path}: expected {len(TISSUES)} tissue fractions (6, X, Y, Z) that sum to at most 1")
    laid_out = np.ascontiguousarray(steps.transpose(3, 2, 1, 0))
    fractions = np.divide(laid_out, np.float32(levels), dtype=np.float32).transpose(3, 2, 1, 0)
    return Anatomy(fractions, affine, known_centre_mm=HEAD_CENTRE_MM if path == EMBEDDED else None)
