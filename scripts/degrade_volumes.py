"""Real high-field volumes as a low-field scanner would show them, with the originals as truth.

python -m scripts.degrade_volumes --high HIGH --out OUT --voxel_mm 2 --snr 12
python preprocessing_images.py --input_A OUT/low --truth_A OUT/high --all_test --like DATA --out OUT/data

For real anatomy and real lesions there is hardly a low-field scan with truth to test a model with. Here each volume of
HIGH loses the outer k-space of its slices, gets a receive field and white noise in the k-space that is left, and its
magnitude is taken, by the code of the simulated scanner. Contrast stays that of the high field, and so do the slices'
positions and thickness. The signal that `--snr` speaks of is the median inside the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data.folder.masks import head_mask_volume
from preprocessing.geometry import from_ras, spacing_mm
from preprocessing.nifti import choose_slice_axis, find_volumes, read_nifti
from simulation.scanner import Sampling, band_limit, noise, receive_field, to_image
from util.errors import UserError, run_cli
from util.schema import CommandLine

Volume = NDArray[np.float32]
FIELD_POINTS = 24  # a side, at which the smooth receive field is computed


@dataclass(frozen=True)
class LowField:
    """A scan: voxel side in the plane in mm, signal over noise of one channel, deviation of the log receive field."""

    voxel_mm: float
    snr: float
    bias: float


def degraded(volume: Volume, affine: NDArray[np.float64], low: LowField, rng: np.random.Generator) -> Volume:
    """A volume (X, Y, Z) in RAS order as `low` shows it, on the same grid and scale."""
    spacing = spacing_mm(affine)
    axis = choose_slice_axis(volume.shape, spacing)
    level = float(np.median(volume[head_mask_volume(volume)]))
    slices = np.moveaxis(volume, axis, 0)
    rows_mm, columns_mm = (spacing[i] for i in range(3) if i != axis)
    shaded = slices * _field(slices.shape, (spacing[axis], rows_mm, columns_mm), low.bias, rng)
    side = 2 * (-(-max(slices.shape[1:]) // 2))
    before = [(side - length) // 2 for length in slices.shape[1:]]
    square = np.zeros((len(slices), side, side), np.float32)
    inside = (
        slice(None),
        *(slice(first, first + length) for first, length in zip(before, slices.shape[1:], strict=True)),
    )
    square[inside] = shaded
    measured = Sampling(*(side * min(1.0, pixel / low.voxel_mm) for pixel in (rows_mm, columns_mm)))
    kspace = band_limit(square, side, measured) + noise(rng, square.shape, measured, level / low.snr)
    return np.moveaxis(np.abs(to_image(kspace))[inside], 0, axis).astype(np.float32)


def _field(
    shape: tuple[int, ...], spacing: tuple[float, float, float], deviation: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The receive field of slices (n, Y, X), smooth in mm, about the volume's middle."""
    z_mm = np.arange(shape[0], dtype=np.float64) * spacing[0]
    reach = max(length * mm for length, mm in zip(shape[1:], spacing[1:], strict=True)) / 2
    coarse = receive_field(rng, deviation, z_mm, np.linspace(-reach, reach, FIELD_POINTS))
    places = [
        ((np.arange(length) - (length - 1) / 2) * mm / reach + 1) / 2 * (FIELD_POINTS - 1)
        for length, mm in zip(shape[1:], spacing[1:], strict=True)
    ]
    at = np.stack(np.meshgrid(*places, indexing="ij"))
    return np.stack([ndimage.map_coordinates(plane, at, order=1, mode="nearest") for plane in coarse])


def write(path: Path, volume: Volume, affine: NDArray[np.float64]) -> None:
    """Write a volume in RAS order with the orientation of `affine`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(from_ras(volume, affine), np.float32), affine), path)


def main(argv: Sequence[str]) -> int:
    """Read the command line, degrade every volume, and write both."""
    parser = CommandLine(prog="degrade_volumes", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--high", required=True, type=Path, help="high-field NIfTI volumes: a folder or one file")
    parser.add_argument("--out", required=True, type=Path, help="folder to write low/ and high/ to; must be empty")
    parser.add_argument("--voxel_mm", type=float, default=2.0, help="side of the low field's voxels in the plane")
    parser.add_argument("--snr", type=float, default=12.0, help="median of the head over the noise of one channel")
    parser.add_argument("--bias", type=float, default=0.1, help="deviation of the logarithm of the receive field")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same files")
    options = parser.parse_args(argv)
    if not (0 < options.voxel_mm <= 20 and 0 < options.snr < np.inf and 0 <= options.bias <= 1 and options.seed >= 0):
        raise UserError("--voxel_mm (up to 20) and --snr must be above 0, --bias from 0 to 1, --seed at least 0")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"--out {options.out}: is not an empty folder")
    volumes, problems, _ = find_volumes(options.high, "--high")
    if problems:
        raise UserError(f"--high {options.high}: {problems[0]}")
    low = LowField(options.voxel_mm, options.snr, options.bias)
    for number, (subject, path) in enumerate(sorted(volumes.items())):
        volume, affine, geometry = read_nifti(path)
        made = degraded(volume, affine, low, np.random.default_rng([options.seed, number]))
        for name, each in (("low", made), ("high", volume)):
            write(options.out / name / f"{subject}.nii.gz", each, geometry.affine)
        print(f"{subject}: {' x '.join(map(str, volume.shape))} voxels", flush=True)
    return 0


if __name__ == "__main__":
    run_cli(main, "degrade_volumes")
