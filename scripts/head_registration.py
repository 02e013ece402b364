"""Registration of heads to the template, for `derive_heads.py`: an affine that brings brain and white matter together.

The sum of squared differences of smoothed tissue maps is minimised over twelve parameters, coarse to fine, from several
pitches of the head. No single structure takes part in it, so the places of structures say how far off it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from simulation.deformation import rotation

Volume = NDArray[np.float32]
Matrix = NDArray[np.float64]

GRID_MM = 6.0  # of the template's points
STAGES_MM = (8.0, 4.0)  # Gaussian (std) of the maps, coarse to fine
PITCHES_DEG = (-25.0, -10.0, 5.0, 20.0)
MARGIN_MM = 12.0
UNITS = np.array([0.05] * 9 + [5.0] * 3)  # typical sizes of the parameters: matrix, shift in mm


def register(maps: Volume, affine: Matrix, template: Volume, template_affine: Matrix) -> Matrix:
    """The affine (4, 4) from the head's mm to the template's mm, of tissue maps (C, X, Y, Z) in [0, 1] of both."""
    (maps, affine), (template, template_affine) = _halved(maps, affine), _halved(template, template_affine)
    best: tuple[float, Matrix] | None = None
    for stage, sigma in enumerate(STAGES_MM):
        moving = np.stack([ndimage.gaussian_filter(part, sigma / _spacing(affine)) for part in maps])
        fixed = np.stack([ndimage.gaussian_filter(part, sigma / _spacing(template_affine)) for part in template])
        points = _points(template[0], template_affine)
        wanted = _sampled(fixed, template_affine, points)
        starts = [_start(maps[0], affine, template[0], template_affine, pitch) for pitch in PITCHES_DEG]
        for start in starts if stage == 0 else [best[1]] if best else []:
            cost, found = _fit(moving, affine, points, wanted, start)
            if best is None or stage > 0 or cost < best[0]:
                best = cost, found
    assert best is not None
    return np.asarray(np.linalg.inv(best[1]), np.float64)


def rigid_part(to_template: Matrix, centre_mm: Matrix) -> Matrix:
    """The rotation and shift (4, 4) nearest to `to_template` that agree with it at the template's `centre_mm`."""
    left, _, right = np.linalg.svd(to_template[:3, :3])
    rigid = np.eye(4)
    rigid[:3, :3] = left @ right
    rigid[:3, 3] = centre_mm - rigid[:3, :3] @ (np.linalg.inv(to_template) @ [*centre_mm, 1])[:3]
    return rigid


def level_errors(centroids: Mapping[str, Mapping[str, Matrix]]) -> dict[str, tuple[float, float]]:
    """Root mean square in mm of each person's structures from the mean of the others': in height, and in space.

    `centroids[person][structure]` are in template mm. The registration has used neither, so this is its error and the
    difference between people that no affine removes.
    """
    errors = {}
    for person, own in centroids.items():
        off = []
        for structure, place in own.items():
            others = [place_of[structure] for name, place_of in centroids.items() if name != person]
            off.append(place - np.mean(others, 0))
        squares = np.mean(np.square(off), 0)
        errors[person] = float(np.sqrt(squares[2])), float(np.sqrt(squares.sum()))
    return errors


def _halved(maps: Volume, affine: Matrix) -> tuple[Volume, Matrix]:
    """Maps (C, X, Y, Z) averaged over 2 x 2 x 2 voxels, and their affine."""
    size = [side // 2 for side in maps.shape[1:]]
    even = maps[:, : 2 * size[0], : 2 * size[1], : 2 * size[2]]
    coarser = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    coarser[:3, 3] += affine[:3, :3] @ [0.5, 0.5, 0.5]
    return even.reshape(-1, size[0], 2, size[1], 2, size[2], 2).mean((2, 4, 6)), coarser


def _spacing(affine: Matrix) -> Matrix:
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _points(brain: Volume, affine: Matrix) -> Matrix:
    """Template points (3, N) in mm on a grid around the brain."""
    voxels = np.argwhere(brain > 0.5)
    ends = np.stack([voxels.min(0), voxels.max(0)]) @ affine[:3, :3].T + affine[:3, 3]
    axes = [np.arange(low - MARGIN_MM, high + MARGIN_MM, GRID_MM) for low, high in ends.T]
    return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)


def _sampled(maps: Volume, affine: Matrix, points: Matrix) -> Matrix:
    """Values (C, N) of maps at points (3, N) in mm."""
    inverse = np.linalg.inv(affine)
    index = inverse[:3, :3] @ points + inverse[:3, 3:]
    return np.stack([ndimage.map_coordinates(part, index, order=1) for part in maps])


def _start(brain: Volume, affine: Matrix, template: Volume, template_affine: Matrix, pitch_deg: float) -> Matrix:
    """Template to head: the brains' centres of mass coincide, turned by a pitch."""
    centres = []
    for part, place in ((brain, affine), (template, template_affine)):
        centres.append(place[:3, :3] @ ndimage.center_of_mass(part) + place[:3, 3])
    start = np.eye(4)
    start[:3, :3] = rotation(np.array([pitch_deg, 0.0, 0.0]))
    start[:3, 3] = centres[0] - start[:3, :3] @ centres[1]
    return start


def _fit(moving: Volume, affine: Matrix, points: Matrix, wanted: Matrix, start: Matrix) -> tuple[float, Matrix]:
    """Least squares over the twelve parameters; returns the cost and the affine from template to head."""
    centre = points.mean(1, keepdims=True)

    def moved(parameters: Matrix) -> Matrix:
        change = parameters * UNITS
        return (start[:3, :3] + change[:9].reshape(3, 3)) @ (points - centre) + change[9:, None] + middle

    def difference(parameters: Matrix) -> Matrix:
        return (_sampled(moving, affine, moved(parameters)) - wanted).ravel()

    middle = start[:3, :3] @ centre + start[:3, 3:]
    solution = optimize.least_squares(difference, np.zeros(12), diff_step=1e-2, max_nfev=15, xtol=1e-4, ftol=1e-4)
    change = solution.x * UNITS
    found = np.eye(4)
    found[:3, :3] = start[:3, :3] + change[:9].reshape(3, 3)
    found[:3, 3] = (middle + change[9:, None] - found[:3, :3] @ centre)[:, 0]
    return float(solution.cost), found
