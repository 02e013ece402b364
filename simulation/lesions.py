"""Lesions of an anatomy, as tissues of their own: what the high field shows and the low field may hide.

A network trained on healthy heads only has never been asked to keep what is rare. Lesions are drawn in template mm and
turned into further rows of the anatomy, so that shape, slicing and signal treat them as any tissue; relaxation is in
`tissue.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.anatomy import LESIONS, TISSUES, Anatomy
from simulation.atrophy import across_mm, lateral_ventricles
from simulation.deformation import SmoothField, rotation
from util.errors import UserError

Volume = NDArray[np.float32]

MAX_COUNT = 100
BUMP_STD = 0.18  # of the outline's relative radius: lobed, still one piece
BUMPS_PER_RADIUS = 1.5  # distance of the bumps' control points, in mean radii: one and a half
LARGEST = 1.8  # outlines end within so many radii of the centre
PERIVENTRICULAR_MM = 8.0  # WMH thin out by 1/e over this distance from the lateral ventricles [I]
LATERAL_MM = 18.0  # infarcts are centred so far from the midplane: an artery's territory has one side
SOLID = 0.9  # a tumour's centre has at least so much brain around it


@dataclass(frozen=True)
class Layer:
    """One tissue of a lesion: out to `extent` radii, in place of the tissues `replaces`, `edge_mm` from 0 to 1."""

    tissue: str
    extent: float
    replaces: tuple[str, ...]
    edge_mm: float


@dataclass(frozen=True)
class Kind:
    """Semi-axes in mm (lowest, highest) and layers from the inside out."""

    radius_mm: tuple[float, float]
    layers: tuple[Layer, ...]


# docs/facts.md section 7.
# Sizes as remembered from radiology [M]: WMH from dots to confluent caps, gliomas of 2 to 4 cm with oedema that spares
# the cortex, infarcts of a small branch's territory. Edges [I].
KINDS = {
    "wmh": Kind((1.5, 5.0), (Layer("wmh", 1.0, ("wm",), 2.0),)),
    "tumour": Kind((9.0, 18.0), (Layer("tumour", 1.0, ("gm", "wm", "csf"), 1.5), Layer("oedema", 1.6, ("wm",), 4.0))),
    "infarct": Kind((7.0, 16.0), (Layer("infarct", 1.0, ("gm", "wm"), 2.0),)),
}


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion: an ellipsoid about `centre_mm` (3,) template mm with semi-axes `radii_mm` (3,) along `turn` (3, 3).

    `bumps` scales its radius by 1 plus a smooth field of the place.
    """

    kind: str
    centre_mm: NDArray[np.float64]
    radii_mm: NDArray[np.float64]
    turn: NDArray[np.float64]
    bumps: SmoothField

    def radius_at(self, template_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many radii from the centre points (3, ...) lie, (...): 0 there, 1 on the outline."""
        offset = template_mm - self.centre_mm.reshape(3, *[1] * (template_mm.ndim - 1))
        along = np.einsum("ij,i...->j...", self.turn, offset)
        scaled = np.sqrt(((along / self.radii_mm.reshape(3, *[1] * (template_mm.ndim - 1))) ** 2).sum(0))
        return np.asarray(scaled / (1 + np.clip(self.bumps.at(offset)[0], -0.5, 0.6)))


def draw_lesions(rng: np.random.Generator, anatomy: Anatomy, kind: str, count: int = 1) -> tuple[Lesion, ...]:
    """`count` lesions of one kind, in the tissue it occurs in; they may run together.

    `wmh` lie in white matter, more of them near the lateral ventricles; `tumour` deep in the brain's substance;
    `infarct` in grey matter to one side.

    Raises: UserError: an unknown kind, a count out of range, or no place for it in this anatomy.
    """
    if kind not in KINDS:
        raise UserError(f"lesion {kind}: unknown kind, choose from {', '.join(KINDS)}")
    if not 0 <= count <= MAX_COUNT:
        raise UserError(f"{count} lesions of kind {kind}: must be between 0 and {MAX_COUNT}")
    if count == 0:
        return ()
    likely = _likely(anatomy, kind)
    places = np.flatnonzero(likely)
    if not len(places):
        raise UserError(f"lesion {kind}: this anatomy has no place for one")
    cumulative = np.cumsum(likely.ravel()[places], dtype=np.float64)
    return tuple(_draw_lesion(rng, anatomy, kind, places, cumulative) for _ in range(count))


def with_lesions(anatomy: Anatomy, lesions: Sequence[Lesion]) -> Anatomy:
    """The anatomy with a further row of fractions for every lesion tissue, in the order of `LESIONS`.

    What a lesion takes, the tissue it replaces loses: every voxel's sum stays. Where two overlap, the first has it.
    """
    used = {layer.tissue for lesion in lesions for layer in KINDS[lesion.kind].layers} | set(anatomy.tissues)
    tissues = (*TISSUES, *(name for name in LESIONS if name in used))
    fractions = np.zeros((len(tissues), *anatomy.fractions.shape[1:]), np.float32)
    for name in anatomy.tissues:
        fractions[tissues.index(name)] = anatomy.fraction(name)
    for lesion in lesions:
        _place(anatomy, lesion, fractions, tissues)
    return anatomy.changed(fractions, tissues)


def _likely(anatomy: Anatomy, kind: str) -> Volume:
    """Relative probability (X, Y, Z) that a lesion's centre lies in a voxel."""
    white = anatomy.fraction("wm")
    if kind == "wmh":
        away = ndimage.distance_transform_edt(~lateral_ventricles(anatomy), sampling=anatomy.spacing_mm)
        return np.asarray(np.where(white > 0.9, np.exp(-away / PERIVENTRICULAR_MM), 0), np.float32)
    if kind == "infarct":
        return np.asarray((anatomy.fraction("gm") > 0.7) & (np.abs(across_mm(anatomy)) > LATERAL_MM), np.float32)
    middle = np.mean(KINDS[kind].radius_mm) / 2
    around = ndimage.gaussian_filter(anatomy.brain, middle / anatomy.spacing_mm)
    return np.asarray((white > 0.7) & (around > SOLID), np.float32)


def _draw_lesion(
    rng: np.random.Generator,
    anatomy: Anatomy,
    kind: str,
    places: NDArray[np.int64],
    cumulative: NDArray[np.float64],
) -> Lesion:
    """One lesion centred on one of `places`, flat voxel numbers with these cumulative weights."""
    place = min(int(np.searchsorted(cumulative, rng.uniform(0, cumulative[-1]), "right")), len(places) - 1)
    voxel = np.array(np.unravel_index(places[place], anatomy.fractions.shape[1:]))
    centre = anatomy.affine[:3, :3] @ voxel + anatomy.affine[:3, 3]
    radii = rng.uniform(*KINDS[kind].radius_mm) * rng.uniform(0.75, 1.25, 3)
    turn = rotation(rng.uniform(-180, 180, 3))
    spacing = float(BUMPS_PER_RADIUS * radii.mean() / 2)
    n = 2 * int(np.ceil(LARGEST * radii.max() * KINDS[kind].layers[-1].extent / spacing)) + 3
    return Lesion(kind, centre, radii, turn, SmoothField(rng.normal(0, BUMP_STD * 2, (1, n, n, n)), spacing))


def _place(anatomy: Anatomy, lesion: Lesion, fractions: Volume, tissues: tuple[str, ...]) -> None:
    """Write one lesion into `fractions` (T, X, Y, Z), rows named `tissues`."""
    layers = KINDS[lesion.kind].layers
    reach = LARGEST * layers[-1].extent * lesion.radii_mm.max() + max(layer.edge_mm for layer in layers)
    inverse = np.linalg.inv(anatomy.affine)
    middle = inverse[:3, :3] @ lesion.centre_mm + inverse[:3, 3]
    margin = reach * np.linalg.norm(inverse[:3, :3], axis=1)
    size = np.array(fractions.shape[1:])
    first = np.clip(np.floor(middle - margin), 0, size - 1).astype(int)
    last = np.clip(np.ceil(middle + margin) + 1, 1, size).astype(int)
    index = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(first, last, strict=True)], indexing="ij"))
    points = np.einsum("ij,j...->i...", anatomy.affine[:3, :3], index) + anatomy.affine[:3, 3].reshape(3, 1, 1, 1)
    radius = lesion.radius_at(points)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    for layer in layers:
        beyond_mm = (radius - layer.extent) * lesion.radii_mm.mean()
        share = np.clip(0.5 - beyond_mm / layer.edge_mm, 0, 1).astype(np.float32)
        row = fractions[tissues.index(layer.tissue)][box]
        for name in layer.replaces:
            healthy = fractions[tissues.index(name)][box]
            taken = share * healthy
            row += taken
            healthy -= taken
