"""One subject's head shape: an affine and a smooth random displacement of the template head.

All maps pull back: a point of the subject's head in mm goes to the template's, where the tissue fractions are read.
Both count from the head's centre, so that one shape fits any anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from util.errors import UserError

CONTROL_MM = 40.0  # distance of control points: nothing sharper can bend, so outlines stay smooth
REACH_MM = 200.0  # fields are defined within this distance of the centre, constant beyond
DISPLACEMENT_MM = 1.8  # standard deviation at the control points
SCALE_STD, SHEAR_STD = 0.05, 0.03
MAX_AMOUNT = 2.0  # heads up to 20 % longer or shorter a side; beyond, outlines dent and the field of view cuts them

Points = NDArray[np.float64]


def transform(matrix: NDArray[np.float64], shift: NDArray[np.float64], points: Points) -> Points:
    """matrix (3, 3) times points (3, ...) plus shift (3,), by plain loops: rounding as on any number of threads."""
    return np.einsum("ij,j...->i...", matrix, points) + shift.reshape(3, *[1] * (points.ndim - 1))


@dataclass(frozen=True)
class SmoothField:
    """Cubic B-spline field with `coefficients` (C, n, n, n) on a lattice `spacing_mm` apart, centred at the origin."""

    coefficients: NDArray[np.float64]
    spacing_mm: float

    def at(self, points_mm: Points) -> NDArray[np.float64]:
        """Values (C, ...) at `points_mm` (3, ...)."""
        index = points_mm / self.spacing_mm + (self.coefficients.shape[1] - 1) / 2
        return np.stack(
            [ndimage.map_coordinates(c, index, order=3, prefilter=False, mode="nearest") for c in self.coefficients]
        )


def draw_field(rng: np.random.Generator, channels: int, spacing_mm: float, std: float) -> SmoothField:
    """Gaussian random field whose values have standard deviation `std` at the lattice points."""
    n = 2 * int(np.ceil(REACH_MM / spacing_mm)) + 1
    # A cubic B-spline weighs its neighbours 1/6, 4/6, 1/6 at a lattice point: undo the loss of variance, axis by axis.
    gain = (1 / np.sqrt((1 + 16 + 1) / 36)) ** 3
    return SmoothField(rng.normal(0, std * gain, (channels, n, n, n)), spacing_mm)


@dataclass(frozen=True)
class HeadShape:
    """Pull-back from subject to template, both from the head's centre: x -> matrix (x + displacement(x))."""

    matrix: NDArray[np.float64]
    displacement: SmoothField

    def to_template(self, points_mm: Points) -> Points:
        """Where `points_mm` (3, ...) of the subject lie in the template, in mm from its centre."""
        moved = points_mm + self.displacement.at(points_mm)
        return transform(self.matrix, np.zeros(3), moved)


def draw_shape(rng: np.random.Generator, amount: float = 1.0) -> HeadShape:
    """A random head: overall and per-axis scale, a little shear, a smooth displacement.

    `amount` in [0, 2] multiplies every spread: 0 is the template itself, 1 the usual variety. Any amount draws the same
    numbers from `rng`, so whatever is drawn next does not depend on it.

    Raises:
        UserError: an amount out of range.
    """
    if not 0 <= amount <= MAX_AMOUNT:
        raise UserError(f"amount of deformation {amount}: must be between 0 (the template) and {MAX_AMOUNT:g}")
    reach = 2 * SCALE_STD * amount
    scale = np.clip(rng.normal(1, SCALE_STD * amount, 3), 1 - reach, 1 + reach)
    matrix = np.diag(1 / scale)
    matrix[np.triu_indices(3, 1)] = rng.normal(0, SHEAR_STD * amount, 3)
    return HeadShape(matrix, draw_field(rng, 3, CONTROL_MM, DISPLACEMENT_MM * amount))


def rotation(angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix (3, 3): about x (pitch), then y (roll), then z (yaw)."""
    product = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        product = turn @ product
    return product
