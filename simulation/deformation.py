"""A subject's head shape: an affine and a smooth random displacement of the template head.

All maps are pull-backs: a point of the subject's head in mm maps to the template, where the tissue fractions are read.
Both are relative to the head's centre, so that a shape applies to any anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.limits import MAX_AMOUNT
from util.errors import UserError

CONTROL_MM = 40.0  # spacing of control points, wide enough to keep outlines smooth
REACH_MM = 200.0  # fields are defined within this distance of the centre and constant beyond
DISPLACEMENT_MM = 1.8  # standard deviation at the control points
SCALE_STD, SHEAR_STD = 0.05, 0.03

Points = NDArray[np.float64]


def transform(matrix: NDArray[np.float64], shift: NDArray[np.float64], points: Points) -> Points:
    """matrix (3, 3) times points (3, ...) plus shift (3,). einsum rounds the same with any number of threads."""
    return np.einsum("ij,j...->i...", matrix, points) + shift.reshape(3, *[1] * (points.ndim - 1))


@dataclass(frozen=True)
class SmoothField:
    """Cubic B-spline field with `coefficients` (C, n, n, n) on a lattice of `spacing_mm`, centred at the origin."""

    coefficients: NDArray[np.float64]
    spacing_mm: float

    def at(self, points_mm: Points) -> NDArray[np.float64]:
        """Values (C, ...) at `points_mm` (3, ...)."""
        index = points_mm / self.spacing_mm + (self.coefficients.shape[1] - 1) / 2
        return np.stack(
            [ndimage.map_coordinates(c, index, order=3, prefilter=False, mode="nearest") for c in self.coefficients]
        )


def draw_field(rng: np.random.Generator, channels: int, spacing_mm: float, std: float) -> SmoothField:
    """Gaussian random field with standard deviation `std` at the lattice points."""
    n = 2 * int(np.ceil(REACH_MM / spacing_mm)) + 1
    # A cubic B-spline weights lattice neighbours 1/6, 4/6, 1/6: compensate the loss of variance per axis.
    gain = (1 / np.sqrt((1 + 16 + 1) / 36)) ** 3
    return SmoothField(rng.normal(0, std * gain, (channels, n, n, n)), spacing_mm)


@dataclass(frozen=True)
class HeadShape:
    """Pull-back from subject to template, relative to the head's centre: x -> matrix (x + displacement(x))."""

    matrix: NDArray[np.float64]
    displacement: SmoothField

    def to_template(self, points_mm: Points) -> Points:
        """Template coordinates of the subject's `points_mm` (3, ...), in mm from the template's centre."""
        displaced = points_mm + self.displacement.at(points_mm)
        return transform(self.matrix, np.zeros(3), displaced)


def draw_shape(rng: np.random.Generator, amount: float = 1.0) -> HeadShape:
    """A random head shape: per-axis scale, slight shear and a smooth displacement.

    `amount` in [0, 2] multiplies all standard deviations: 0 gives the template, 1 the default variation. Every amount
    draws the same random numbers from `rng`, so later draws do not depend on it.

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
        single = np.eye(3)
        single[i, i] = single[j, j] = np.cos(angle)
        single[i, j], single[j, i] = -np.sin(angle), np.sin(angle)
        product = single @ product
    return product
