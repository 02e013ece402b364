"""A head as tissue fractions per voxel, and the files that hold one.

`label_maps.py` reads other heads; `atrophy.py` and `lesions.py` modify any head.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from util.errors import UserError

TISSUES = ("csf", "gm", "wm", "fat", "bone", "soft")  # the rest to 1 is air
FURTHER = ("dgm", "blood")  # may follow the six: deep grey matter full of iron, flowing blood
LESIONS = ("wmh", "tumour", "oedema", "infarct")  # may follow the tissues, see `lesions.py`
LABELS = {
    "air": 0,
    **{name: number for number, name in enumerate(TISSUES + LESIONS, start=1)},
    "dgm": 2,  # grey matter
    "blood": 6,  # soft tissue
}
HEAD_CENTRE_MM = np.array([0.0, -17.0, 12.0])  # of the embedded head, in template mm
CENTRE_ABOVE_BRAIN_MM = 4.0  # height of HEAD_CENTRE_MM above the centre of the embedded brain's bounding box
MAPS = Path(__file__).with_name("maps")  # of the people that are shipped, see `heads.py`
EMBEDDED = MAPS / "colin27.npz"
STEPS = 24  # a fraction map's fractions are multiples of 1/24: exact for halves and thirds, compresses well
PACKED_STEPS = 4  # a shipped head's are multiples of 1/4
PACKING = [{"id": lzma.FILTER_LZMA2, "preset": 6, "nice_len": 24, "mf": lzma.MF_BT4, "depth": 6, "lc": 4, "pb": 0}]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Tissue fractions (T, X, Y, Z) float32 in [0, 1], sum <= 1, in RAS; `affine` (4, 4) maps voxel indices to mm.

    `tissues` names the T maps: the six, then any of `FURTHER` and `LESIONS`. `known_centre_mm` (3,) overrides the
    computed centre. `to_template` (4, 4) maps the anatomy's mm to those of the template (None: unknown), with a root
    mean square error of `level_error_mm` in height. Memory order is (Z, Y, X, T), so resampling reads a voxel's
    fractions from adjacent addresses. Compared and hashed by identity.
    """

    fractions: NDArray[np.float32]
    affine: NDArray[np.float64]
    tissues: tuple[str, ...] = TISSUES
    known_centre_mm: NDArray[np.float64] | None = None
    to_template: NDArray[np.float64] | None = None
    level_error_mm: float | None = None

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel sides (3,) in mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def label_numbers(self) -> NDArray[np.uint8]:
        """The number in `LABELS` of air and then of every tissue, (1 + T,)."""
        return np.array([LABELS[name] for name in ("air", *self.tissues)], np.uint8)

    @property
    def is_lesion(self) -> NDArray[np.bool_]:
        """Which of the T tissues are lesions, (T,)."""
        return np.array([name in LESIONS for name in self.tissues])

    @cached_property
    def brain(self) -> NDArray[np.float32]:
        """Fraction of brain in each voxel, lesions included, (X, Y, Z) in [0, 1]."""
        indices = [i for i, name in enumerate(self.tissues) if name in ("gm", "wm", "dgm", *LESIONS)]
        return np.asarray(self.fractions[indices].sum(0))

    @cached_property
    def centre_mm(self) -> NDArray[np.float64]:
        """Centre (3,) of scaling and rotation: a point slightly above the centre of the brain's bounding box.

        The brain's box, not the head's: every map contains the whole brain but a different part of the neck.

        Raises:
            UserError: no voxel is mostly brain.
        """
        if self.known_centre_mm is not None:
            return self.known_centre_mm
        inside = self.brain > 0.5
        if not inside.any():
            raise UserError(
                "no voxel of this anatomy is mostly grey or white matter, so the centre of its head is unknown"
            )
        ends = [np.flatnonzero(inside.any(tuple({0, 1, 2} - {axis})))[[0, -1]].mean() for axis in range(3)]
        return np.asarray(self.affine[:3, :3] @ ends + self.affine[:3, 3] + [0, 0, CENTRE_ABOVE_BRAIN_MM])

    def fraction(self, name: str) -> NDArray[np.float32]:
        """The fractions (X, Y, Z) of one tissue, a view."""
        return self.fractions[self.tissues.index(name)]

    def changed(self, fractions: NDArray[np.float32], tissues: tuple[str, ...] | None = None) -> Anatomy:
        """The same head with other fractions; voxels and centre stay, so a subject's shape still applies."""
        return replace(
            self,
            fractions=by_voxel(fractions),
            tissues=self.tissues if tissues is None else tissues,
            known_centre_mm=self.centre_mm,
        )


def by_voxel(fractions: NDArray) -> NDArray[np.float32]:
    """The same array (T, X, Y, Z) as float32 with memory order (Z, Y, X, T)."""
    return np.ascontiguousarray(fractions.transpose(3, 2, 1, 0), np.float32).transpose(3, 2, 1, 0)


def save_anatomy(path: Path, anatomy: Anatomy) -> None:
    """Write the fractions as small integers, zip-compressed; equal content gives equal bytes."""
    total = anatomy.fractions.sum(0)
    steps = np.floor(anatomy.fractions * STEPS + 0.5)
    excess = np.clip(steps.sum(0) - STEPS, 0, None)  # rounding may overshoot: subtract the excess from the largest
    np.put_along_axis(steps, steps.argmax(0)[None], steps.max(0)[None] - excess, 0)
    if not np.isfinite(total).all() or total.max() > 1 + 1e-4:
        raise UserError(f"{path}: tissue fractions must be finite and sum to at most 1, here {total.max():.3f}")
    np.savez_compressed(path, steps=steps.astype(np.uint8), levels=np.uint8(STEPS), affine=anatomy.affine)


@dataclass(frozen=True, eq=False)
class HeadFile:
    """What a shipped head's file holds: the number of every voxel's row (Z, Y, X) in `table`, and where the head lies.

    `table` (rows, 8) has the fractions of `TISSUES + FURTHER` in units of 1 / `PACKED_STEPS`; `affine`, `to_template`,
    `centre_mm` and `level_error_mm` are those of the `Anatomy`.
    """

    codes: NDArray[np.uint8]
    table: NDArray[np.uint8]
    affine: NDArray[np.float64]
    to_template: NDArray[np.float64]
    centre_mm: NDArray[np.float64]
    level_error_mm: float

    def anatomy(self) -> Anatomy:
        """The head.

        Raises:
            ValueError: the parts do not fit together.
        """
        tissues = TISSUES + FURTHER
        if self.table.ndim != 2 or self.table.shape[1] != len(tissues):
            raise ValueError(f"its table is {self.table.shape}")
        if self.table.sum(1, dtype=int).max() > PACKED_STEPS or self.codes.max() >= len(self.table):
            raise ValueError("its fractions sum to more than 1, or voxels have no row")
        rows = np.divide(self.table, np.float32(PACKED_STEPS), dtype=np.float32)
        fractions = rows[self.codes.ravel()].reshape(*self.codes.shape, len(tissues)).transpose(3, 2, 1, 0)
        return Anatomy(fractions, self.affine, tissues, self.centre_mm, self.to_template, self.level_error_mm)


def save_head(path: Path, head: HeadFile) -> None:
    """Write a head; equal content gives equal bytes."""
    packed = lzma.compress(np.ascontiguousarray(head.codes).tobytes(), filters=PACKING)
    others = {field.name: getattr(head, field.name) for field in fields(head) if field.name != "codes"}
    shape = np.array(head.codes.shape, np.int32)
    np.savez(path, packed=np.frombuffer(packed, np.uint8), shape=shape, **others)


def load_anatomy(path: Path = EMBEDDED) -> Anatomy:
    """Read a shipped head or a fraction map; the last two are cached, so do not write to them.

    Raises:
        UserError: not a readable map, or fractions that sum to more than 1.
    """
    return _loaded(path)


@lru_cache(maxsize=2)
def _loaded(path: Path) -> Anatomy:
    try:
        with np.load(path, allow_pickle=False) as content:
            if "packed" in content:
                return _head_file(content).anatomy()
            steps, per_unit = content["steps"], int(content["levels"])
            affine = content["affine"].astype(np.float64)
    except (OSError, EOFError, KeyError, ValueError, TypeError, BadZipFile, lzma.LZMAError) as error:
        raise UserError(f"{path}: not a tissue-fraction map ({error})") from error
    if steps.ndim != 4 or len(steps) != len(TISSUES) or steps.sum(0, dtype=np.uint16).max() > per_unit:
        raise UserError(f"{path}: expected {len(TISSUES)} tissue fractions (6, X, Y, Z) that sum to at most 1")
    by_voxel_steps = np.ascontiguousarray(steps.transpose(3, 2, 1, 0))
    fractions = np.divide(by_voxel_steps, np.float32(per_unit), dtype=np.float32).transpose(3, 2, 1, 0)
    return Anatomy(fractions, affine)


def _head_file(content: Mapping[str, NDArray]) -> HeadFile:
    """The arrays of `save_head`."""
    codes = np.frombuffer(lzma.decompress(content["packed"].tobytes()), np.uint8)
    table, affine, to_template, centre = (content[key] for key in ("table", "affine", "to_template", "centre_mm"))
    error_mm = float(content["level_error_mm"])
    return HeadFile(codes.reshape(content["shape"]), table, affine, to_template, centre, error_mm)
