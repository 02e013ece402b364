"""White-matter hyperintensities with the shapes, sizes and places of real ones (see NOTICE).

`lesion_shapes.npz` holds the connected lesions of six patients, drawn by consensus of raters, at 1 mm in MNI space;
`scripts/derive_lesions.py` makes it. A lesion is put where it was in the brain it comes from: at the same place
relative to the head's centre, and at the same distance from the lateral ventricles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.anatomy import HEAD_CENTRE_MM, Anatomy
from simulation.atrophy import lateral_ventricles
from simulation.deformation import rotation
from util.errors import UserError

Volume = NDArray[np.float32]

SHAPES = Path(__file__).with_name("lesion_shapes.npz")
EDGE_MM = 0.5  # Gaussian (std) on the binary shapes, whose voxels are 1 mm: their outline is not that sharp [I]
PLACE_MM = 8.0  # how far a lesion may move from its place (Gaussian's std),
DISTANCE_MM = 2.0  # and from its distance to the ventricles
SEARCH_MM = 24.0  # farthest move along each axis
TURN_DEG = 10.0  # of a small lesion, at most; one of LARGE_ML keeps the ventricles' shape and is not turned
LARGE_ML = 1.0
WHITE = 0.9  # least white matter at a lesion's anchor
COARSE_MM = 1.5  # anatomies finer than that are halved to find the ventricles


@dataclass(frozen=True, eq=False)
class Shape:
    """One real lesion: `inside` (X, Y, Z) voxels of 1 mm in RAS; `anchor` (3,), its voxel nearest to the centroid.

    `place_mm` (3,): the anchor relative to the embedded head's centre; `distance_mm`: from there to its ventricles.
    """

    inside: NDArray[np.bool_]
    anchor: NDArray[np.int64]
    place_mm: NDArray[np.float64]
    distance_mm: float

    @property
    def ml(self) -> float:
        """Volume in millilitres."""
        return float(self.inside.sum()) / 1e3

    @cached_property
    def soft(self) -> Volume:
        """`inside` with soft edges, padded by `margin` voxels."""
        padded = np.pad(self.inside, self.margin).astype(np.float32)
        return np.asarray(ndimage.gaussian_filter(padded, EDGE_MM))

    @property
    def margin(self) -> int:
        """Voxels around the shape in which its soft edge ends."""
        return int(np.ceil(3 * EDGE_MM))


@dataclass(frozen=True, eq=False)
class Hyperintensity:
    """A real lesion's shape with its anchor at `centre_mm` (3,), turned by `turn` (3, 3) and perhaps `mirrored`."""

    shape: Shape
    centre_mm: NDArray[np.float64]
    turn: NDArray[np.float64]
    mirrored: bool
    kind: str = "wmh"

    @property
    def reach_mm(self) -> float:
        """Distance from `centre_mm` beyond which there is nothing of the lesion."""
        size = np.array(self.shape.inside.shape)
        farthest = np.maximum(self.shape.anchor, size - 1 - self.shape.anchor)
        return float(np.linalg.norm(farthest + self.shape.margin))

    def inside_at(self, template_mm: NDArray[np.float64]) -> Volume:
        """Fraction of lesion (...) at points (3, ...) in mm."""
        offset = template_mm - self.centre_mm.reshape(3, *[1] * (template_mm.ndim - 1))
        along = np.einsum("ij,i...->j...", self.turn, offset)
        if self.mirrored:
            along[0] = -along[0]
        index = along + (self.shape.anchor + self.shape.margin).reshape(3, *[1] * (template_mm.ndim - 1))
        return np.asarray(ndimage.map_coordinates(self.shape.soft, index, order=1), np.float32)


@cache
def load_shapes(path: Path = SHAPES) -> tuple[Shape, ...]:
    """The real lesions, largest first."""
    with np.load(path, allow_pickle=False) as content:
        sizes, bits = content["sizes"].astype(int), np.unpackbits(content["bits"])
        anchors, places, distances = content["anchors"].astype(int), content["places_mm"], content["distances_mm"]
    ends = np.cumsum(sizes.prod(1))
    return tuple(
        Shape(bits[end - size.prod() : end].reshape(size) > 0, anchor, place.astype(float), float(distance))
        for size, end, anchor, place, distance in zip(sizes, ends, anchors, places, distances, strict=True)
    )


@lru_cache(maxsize=1)
def ventricle_distance(anatomy: Anatomy) -> tuple[Volume, NDArray[np.float64]]:
    """Distance (X, Y, Z) in mm to the lateral ventricles, on voxels of at most twice the side, and their affine.

    Raises: UserError: no ventricles.
    """
    coarse = _halved(anatomy) if anatomy.spacing_mm.max() < COARSE_MM else anatomy
    ventricles = lateral_ventricles(coarse)
    distance = ndimage.distance_transform_edt(~ventricles, sampling=coarse.spacing_mm)
    return np.asarray(distance, np.float32), coarse.affine


def _halved(anatomy: Anatomy) -> Anatomy:
    """The anatomy on voxels of twice the side."""
    pairs = [n // 2 for n in anatomy.fractions.shape[1:]]
    even = anatomy.fractions[:, : 2 * pairs[0], : 2 * pairs[1], : 2 * pairs[2]]
    mean = even.reshape(len(even), pairs[0], 2, pairs[1], 2, pairs[2], 2).mean((2, 4, 6), dtype=np.float32)
    affine = anatomy.affine.copy()
    affine[:3, 3] += affine[:3, :3].sum(1) / 2
    affine[:3, :3] *= 2
    return Anatomy(mean, affine, anatomy.tissues, anatomy.centre_mm)


def draw_hyperintensity(rng: np.random.Generator, anatomy: Anatomy, most_ml: float = np.inf) -> Hyperintensity:
    """One real lesion of at most `most_ml`, drawn from all with equal probability, at its place in this head.

    Raises: UserError: no white matter or no ventricles in this anatomy.
    """
    shapes = [shape for shape in load_shapes() if shape.ml <= most_ml]
    shape, mirrored = shapes[int(rng.integers(len(shapes)))], bool(rng.integers(2))
    turn = rotation(rng.uniform(-TURN_DEG, TURN_DEG, 3) * (shape.ml < LARGE_ML))
    place = HEAD_CENTRE_MM + shape.place_mm * np.array([-1.0 if mirrored else 1.0, 1.0, 1.0])
    wanted = place - HEAD_CENTRE_MM + anatomy.centre_mm
    if anatomy.to_template is not None:
        wanted = np.linalg.solve(anatomy.to_template, [*place, 1.0])[:3]
    return Hyperintensity(shape, _placed(rng, anatomy, wanted, shape.distance_mm), turn, mirrored)


def _placed(
    rng: np.random.Generator, anatomy: Anatomy, wanted_mm: NDArray[np.float64], distance_mm: float
) -> NDArray[np.float64]:
    """A point (3,) of white matter near `wanted_mm` and about as far from the ventricles as `distance_mm`."""
    distance, affine = ventricle_distance(anatomy)
    for search_mm in (SEARCH_MM, np.inf):
        points, log_weight = _candidates(anatomy, wanted_mm, search_mm)
        if len(log_weight):
            break
    else:
        raise UserError("lesion wmh: this anatomy has no possible position for one")
    inverse = np.linalg.inv(affine)
    index = np.rint(np.einsum("ij,j...->i...", inverse[:3, :3], points) + inverse[:3, 3:]).astype(int)
    index = np.clip(index, 0, np.array(distance.shape)[:, None] - 1)
    log_weight = log_weight - ((distance[tuple(index)] - distance_mm) / DISTANCE_MM) ** 2 / 2
    cumulative = np.cumsum(np.exp(log_weight - log_weight.max()))
    chosen = int(np.searchsorted(cumulative, rng.uniform(0, cumulative[-1]), "right"))
    return np.asarray(points[:, min(chosen, len(cumulative) - 1)])


def _candidates(
    anatomy: Anatomy, wanted_mm: NDArray[np.float64], search_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (3, n) of white matter within `search_mm` of `wanted_mm` along each axis, and log weights (n,)."""
    inverse, size = np.linalg.inv(anatomy.affine), np.array(anatomy.fractions.shape[1:])
    middle = inverse[:3, :3] @ wanted_mm + inverse[:3, 3]
    margin = np.minimum(search_mm * np.linalg.norm(inverse[:3, :3], axis=1), size.max())
    first = np.clip(np.floor(middle - margin), 0, size - 1).astype(int)
    last = np.clip(np.ceil(middle + margin) + 1, 1, size).astype(int)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    voxels = np.argwhere(anatomy.fraction("wm")[box] > WHITE).T + first[:, None]
    points = np.einsum("ij,jn->in", anatomy.affine[:3, :3], voxels) + anatomy.affine[:3, 3:]
    return points, -((points - wanted_mm[:, None]) ** 2).sum(0) / (2 * PLACE_MM**2)
