"""Lesions of an anatomy as additional tissues, visible at high field and possibly hidden at low field.

They test whether a network trained on healthy heads preserves what is rare. Lesions are drawn in template mm and added
to the anatomy as further tissue fractions, so shape, slicing and signal treat them like any tissue; their relaxation is
in `tissue.py`. White-matter hyperintensities have the shapes of real ones (`hyperintensities.py`), the others are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.anatomy import FURTHER, LESIONS, TISSUES, Anatomy
from simulation.atrophy import midplane_distance_mm
from simulation.deformation import SmoothField, rotation
from simulation.hyperintensities import Hyperintensity, draw_hyperintensity
from simulation.lesion_kinds import KINDS, Layer
from simulation.limits import MAX_COUNT
from util.errors import UserError

Volume = NDArray[np.float32]

BUMP_STD = 0.18  # of the outline's relative radius: lobed, but still one piece
BUMP_SPACING = 1.5  # of the bumps' control points, in mean radii
LARGEST = 1.8  # radii within which outlines end
LATERAL_MM = 18.0  # smallest distance of an infarct's centre from the midplane: an artery supplies one side
SOLID = 0.9  # smallest fraction of brain around a tumour's centre


@dataclass(frozen=True, eq=False)
class Lesion:
    """An ellipsoid at `centre_mm` (3,) template mm with semi-axes `radii_mm` (3,) along the columns of `turn` (3, 3).

    Its radius is scaled by 1 plus the smooth field `bumps`.
    """

    kind: str
    centre_mm: NDArray[np.float64]
    radii_mm: NDArray[np.float64]
    turn: NDArray[np.float64]
    bumps: SmoothField

    def radius_at(self, template_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of points (3, ...) from the centre in radii, (...): 0 at the centre, 1 on the outline."""
        offset = template_mm - self.centre_mm.reshape(3, *[1] * (template_mm.ndim - 1))
        along = np.einsum("ij,i...->j...", self.turn, offset)
        scaled = np.sqrt(((along / self.radii_mm.reshape(3, *[1] * (template_mm.ndim - 1))) ** 2).sum(0))
        return np.asarray(scaled / (1 + np.clip(self.bumps.at(offset)[0], -0.5, 0.6)))

    @property
    def reach_mm(self) -> float:
        """Distance from the centre beyond which there is nothing of the lesion."""
        layers = KINDS[self.kind].layers
        return float(LARGEST * layers[-1].extent * self.radii_mm.max() + max(layer.edge_mm for layer in layers))

    def parts_at(self, template_mm: NDArray[np.float64]) -> list[tuple[Layer, Volume]]:
        """Every layer, with its fraction (...) at points (3, ...)."""
        radius, mean = self.radius_at(template_mm), self.radii_mm.mean()
        layers = KINDS[self.kind].layers
        return [
            (each, np.clip(0.5 - (radius - each.extent) * mean / each.edge_mm, 0, 1).astype(np.float32))
            for each in layers
        ]


def draw_lesions(
    rng: np.random.Generator, anatomy: Anatomy, kind: str, count: int = 1
) -> tuple[Lesion | Hyperintensity, ...]:
    """Draw `count` lesions of one kind at positions where it occurs; lesions may overlap.

    `wmh` lie in white matter where real ones were, mostly near the lateral ventricles; `tumour` deep in the brain;
    `infarct` in grey matter away from the midplane.

    Raises: UserError: an unknown kind, a count out of range, or no possible position in this anatomy.
    """
    if kind not in KINDS:
        raise UserError(f"lesion {kind}: unknown kind, choose from {', '.join(KINDS)}")
    if not 0 <= count <= MAX_COUNT:
        raise UserError(f"{count} lesions of kind {kind}: must be between 0 and {MAX_COUNT}")
    if count == 0:
        return ()
    if KINDS[kind].radius_mm is None:
        return tuple(draw_hyperintensity(rng, anatomy) for _ in range(count))
    weight = _weight(anatomy, kind)
    voxels = np.flatnonzero(weight)
    if not len(voxels):
        raise UserError(f"lesion {kind}: this anatomy has no possible position for one")
    cumulative = np.cumsum(weight.ravel()[voxels], dtype=np.float64)
    return tuple(_draw_lesion(rng, anatomy, kind, voxels, cumulative) for _ in range(count))


def with_lesions(anatomy: Anatomy, lesions: Sequence[Lesion | Hyperintensity]) -> Anatomy:
    """The anatomy with further fractions for the lesions' tissues, in the order of `LESIONS`.

    Lesions replace other tissues, so the sum in every voxel is unchanged. Where two overlap, the first one wins.
    """
    used = {layer.tissue for lesion in lesions for layer in KINDS[lesion.kind].layers} | set(anatomy.tissues)
    tissues = tuple(name for name in TISSUES + FURTHER + LESIONS if name in used or name in TISSUES)
    fractions = np.zeros((*anatomy.fractions.shape[:0:-1], len(tissues)), np.float32).transpose(3, 2, 1, 0)
    if tissues[: len(anatomy.tissues)] == anatomy.tissues:
        fractions[: len(anatomy.tissues)] = anatomy.fractions  # at once, which is much faster than one by one
    else:
        for name in anatomy.tissues:
            fractions[tissues.index(name)] = anatomy.fraction(name)
    for lesion in lesions:
        _insert(anatomy, lesion, fractions, tissues)
    return anatomy.changed(fractions, tissues)


def _weight(anatomy: Anatomy, kind: str) -> Volume:
    """Relative probability (X, Y, Z) of a lesion's centre in each voxel."""
    if kind == "infarct":
        return np.asarray(
            (anatomy.fraction("gm") > 0.7) & (np.abs(midplane_distance_mm(anatomy)) > LATERAL_MM), np.float32
        )
    middle = np.mean(_radius_mm(kind)) / 2
    around = ndimage.gaussian_filter(anatomy.brain, middle / anatomy.spacing_mm)
    return np.asarray((anatomy.fraction("wm") > 0.7) & (around > SOLID), np.float32)


def _radius_mm(kind: str) -> tuple[float, float]:
    radius = KINDS[kind].radius_mm
    assert radius is not None, "real shapes are not drawn by radius"
    return radius


def _draw_lesion(
    rng: np.random.Generator,
    anatomy: Anatomy,
    kind: str,
    voxels: NDArray[np.int64],
    cumulative: NDArray[np.float64],
) -> Lesion:
    """One lesion centred on one of `voxels`, flat indices with these cumulative weights."""
    i = min(int(np.searchsorted(cumulative, rng.uniform(0, cumulative[-1]), "right")), len(voxels) - 1)
    voxel = np.array(np.unravel_index(voxels[i], anatomy.fractions.shape[1:]))
    centre = anatomy.affine[:3, :3] @ voxel + anatomy.affine[:3, 3]
    radii = rng.uniform(*_radius_mm(kind)) * rng.uniform(0.75, 1.25, 3)
    turn = rotation(rng.uniform(-180, 180, 3))
    spacing = float(BUMP_SPACING * radii.mean() / 2)
    n = 2 * int(np.ceil(LARGEST * radii.max() * KINDS[kind].layers[-1].extent / spacing)) + 3
    return Lesion(kind, centre, radii, turn, SmoothField(rng.normal(0, BUMP_STD * 2, (1, n, n, n)), spacing))


def _insert(anatomy: Anatomy, lesion: Lesion | Hyperintensity, fractions: Volume, tissues: tuple[str, ...]) -> None:
    """Add one lesion to `fractions` (T, X, Y, Z) of `tissues`, in place."""
    inverse = np.linalg.inv(anatomy.affine)
    middle = inverse[:3, :3] @ lesion.centre_mm + inverse[:3, 3]
    margin = lesion.reach_mm * np.linalg.norm(inverse[:3, :3], axis=1)
    size = np.array(fractions.shape[1:])
    first = np.clip(np.floor(middle - margin), 0, size - 1).astype(int)
    last = np.clip(np.ceil(middle + margin) + 1, 1, size).astype(int)
    index = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(first, last, strict=True)], indexing="ij"))
    points = np.einsum("ij,j...->i...", anatomy.affine[:3, :3], index) + anatomy.affine[:3, 3].reshape(3, 1, 1, 1)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    if isinstance(lesion, Hyperintensity):
        parts = [(KINDS[lesion.kind].layers[0], lesion.inside_at(points))]
    else:
        parts = lesion.parts_at(points)
    for layer, inside in parts:
        diseased = fractions[tissues.index(layer.tissue)][box]
        for name in (name for name in layer.replaces if name in tissues):
            healthy = fractions[tissues.index(name)][box]
            replaced = inside * healthy
            diseased += replaced
            healthy -= replaced
