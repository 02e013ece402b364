"""How much tissue varies inside white matter, real T2w volumes beside simulated ones, and a figure of both.

python -m scripts.measure_texture --real FOLDER --out docs/simulator

FOLDER holds clinical T2w volumes, `*_T2W.nii.gz`, thick axial slices with pixels of at most 0.65 mm. Writes
`real_hf.png` and `real_hf.json`.

White matter is found in the slices from the ventricles' bodies upwards: the mode of the brain's histogram, after the
bias, a polynomial of degree 3 of the logarithm, is divided out; eroded by 1.5 mm. What varies there is split into bands
by differences of Gaussians inside the mask, each falling to a half at the band's edges. Noise is what is left of the
power spectrum at 0.6 to 0.72 cycles/mm along the better resolved axis; its share of every band is subtracted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data.folder.masks import head_mask_volume
from simulation.geometry import draw_geometry
from simulation.heads import load_person
from simulation.presets import HIGH_T2W, Protocol
from simulation.subject import Scanner, draw_head
from util.errors import UserError, run_cli
from util.schema import CommandLine

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Pixel = tuple[float, float]

CLINICAL = replace(HIGH_T2W, thickness_mm=4.0, resolution_mm=0.6, phase_mm=0.8, snr_wm=18.0)
SEED, MATRIX = 0, 400
SIMULATED = ("colin27", "head_06", "head_09")  # three people with ventricles of different size
SLICES = (0.56, 0.77)  # of a real volume, counted from below: from the ventricles' bodies to above them
LEVELS_MM = (16.0, 44.0)  # the same in the template
SCALP_MM, ERODED_MM, LEAST_MM2 = 16.0, 1.5, 100.0
RANGE = (0.75, 1.15)  # of white matter's smoothed intensity, relative to its mode
EDGES_MM = (2, 4, 8, 16, 32)
NOISE_BAND, NOISE_ANGLE = (0.60, 0.72), 0.35  # cycles per mm; radians off the axis


@dataclass(frozen=True)
class Measured:
    """White matter of some slices: `flat` (X, Y, Z) without bias, 1 in white matter; its `mask`; standard deviations.

    `noise`: density of the power spectrum in mm^2; `bands`: standard deviations between the `EDGES_MM`, over noise.
    """

    flat: Volume
    head: Mask
    mask: Mask
    pixel_mm: Pixel
    noise: float
    bands: tuple[float, ...]


def main(argv: Sequence[str]) -> None:
    """Read the command line, measure, draw."""
    parser = CommandLine(prog="measure_texture", description=__doc__)
    parser.add_argument("--real", required=True, help="folder of real T2w volumes")
    parser.add_argument("--out", required=True, help="folder for the figure and the numbers")
    options = parser.parse_args(argv)
    mpl.use("Agg")
    real = dict(real_volumes(Path(options.real)))
    simulated = dict(simulated_volumes(CLINICAL))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    table = {name: figures(found) for name, found in (real | simulated).items()}
    (out / "real_hf.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for name, row in table.items():
        print(name, *row.values(), sep=" | ")
    draw(out / "real_hf.png", real, simulated)


def figures(found: Measured) -> dict[str, float]:
    """The numbers of one volume: noise in a voxel of 1 mm^2, and percents in every band."""
    bands = {
        f"{low} to {high} mm": round(100 * std, 2)
        for (low, high), std in zip(pairwise(EDGES_MM), found.bands, strict=True)
    }
    return {"noise, % in 1 mm2": round(100 * math.sqrt(found.noise), 1), **bands}


def real_volumes(folder: Path) -> Iterator[tuple[str, Measured]]:
    """Every T2w volume of a folder, measured."""
    files = sorted(folder.glob("*_T2W.nii.gz"))
    if not files:
        raise UserError(f"--real {folder}: no *_T2W.nii.gz there")
    for file in files:
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_filename(file))
        volume, (x, y, _) = image.get_fdata(dtype=np.float32), image.header.get_zooms()
        first, last = (int(part * volume.shape[2]) for part in SLICES)
        yield file.name.split("_")[0], measure(volume[:, :, first:last], (float(x), float(y)))


def simulated_volumes(protocol: Protocol) -> Iterator[tuple[str, Measured]]:
    """Three people, measured in the same part of the head."""
    for subject, person in enumerate(SIMULATED):
        anatomy = load_person(person)
        head, rng = draw_head(SEED, subject), np.random.default_rng(SEED)
        geometry = draw_geometry(rng, anatomy, head.shape, matrix=48, thickness_mm=protocol.thickness_mm)
        level_mm = Scanner(head, geometry, anatomy).sliced.level_mm
        kept = (level_mm > LEVELS_MM[0]) & (level_mm < LEVELS_MM[1])
        scanner = Scanner(head, replace(geometry, matrix=MATRIX, z_mm=geometry.z_mm[kept]), anatomy)
        image, _ = scanner.image(protocol, rng)
        pixel = scanner.geometry.pixel_mm
        yield person, measure(np.ascontiguousarray(image.transpose(2, 1, 0)), (pixel, pixel))


def measure(volume: Volume, pixel_mm: Pixel) -> Measured:
    """White matter of axial T2w slices (X, Y, Z): where it is, and how it varies."""
    head = head_mask_volume(volume)
    filled = [ndimage.binary_fill_holes(plane) for plane in head.transpose(2, 0, 1)]
    depth = np.stack([ndimage.distance_transform_edt(plane, sampling=pixel_mm) for plane in filled], -1)
    flat, mask = white_matter(volume, depth > SCALP_MM, pixel_mm)
    noise = noise_density(flat, mask, pixel_mm)
    bands = []
    for low, high in pairwise(EDGES_MM):
        std = (smoothed(flat, mask, low, pixel_mm) - smoothed(flat, mask, high, pixel_mm))[mask].std()
        share = 1 / (2 * low**2) + 1 / (2 * high**2) - 2 / (low**2 + high**2)  # of white noise, times pi / ln 2
        bands.append(math.sqrt(max(float(std) ** 2 - noise * math.pi / math.log(2) * share, 0)))
    return Measured(flat, head, mask, pixel_mm, noise, tuple(bands))


def white_matter(volume: Volume, inside: Mask, pixel_mm: Pixel) -> tuple[Volume, Mask]:
    """The slices without bias and relative to white matter's mode, and where that is."""
    smooth = np.maximum(ndimage.gaussian_filter(volume, (1 / pixel_mm[0], 1 / pixel_mm[1], 0)), 1e-6)
    terms = polynomials(volume.shape)
    low, high = np.percentile(smooth[inside], (5, 50))
    mask, bias, mode = inside & (smooth > low) & (smooth < high), np.ones_like(volume), 1.0
    for _ in range(6):
        rows = np.stack([term[mask] for term in terms], 1)
        step = max(1, len(rows) // 40_000)
        fitted = np.linalg.lstsq(rows[::step], np.log(smooth[mask][::step]), rcond=None)[0]
        bias = np.exp(sum(weight * term for weight, term in zip(fitted, terms, strict=True)))
        count, edges = np.histogram((smooth / bias)[inside], bins=200, range=(0.4, 2))
        mode = float(edges[ndimage.gaussian_filter1d(count.astype(float), 3).argmax()]) + 0.004
        relative = smooth / bias / mode
        mask = inside & (relative > RANGE[0]) & (relative < RANGE[1])
    planes = [core(plane, pixel_mm) for plane in mask.transpose(2, 0, 1)]
    return np.asarray(volume / bias / mode, np.float32), np.stack(planes, -1)


def polynomials(shape: tuple[int, ...]) -> list[Volume]:
    """All monomials up to degree 3, linear at most across slices, (X, Y, Z) each."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    return [x**i * y**j * z**k for i in range(4) for j in range(4 - i) for k in range(min(2, 4 - i - j))]


def core(plane: Mask, pixel_mm: Pixel) -> Mask:
    """The eroded mask (X, Y), without small pieces."""
    eroded = ndimage.distance_transform_edt(plane, sampling=pixel_mm) > ERODED_MM
    labels, _ = ndimage.label(eroded)
    large = np.bincount(labels.ravel()) * pixel_mm[0] * pixel_mm[1] > LEAST_MM2
    large[0] = False
    return np.asarray(large[labels])


def smoothed(flat: Volume, mask: Mask, edge_mm: float, pixel_mm: Pixel) -> Volume:
    """A Gaussian inside the mask that halves the amplitude of wavelength `edge_mm`."""
    sigma_mm = math.sqrt(2 * math.log(2)) / (2 * math.pi) * edge_mm
    sigma = (sigma_mm / pixel_mm[0], sigma_mm / pixel_mm[1], 0)
    total = ndimage.gaussian_filter(np.where(mask, flat, 0), sigma)
    return np.where(mask, total / np.maximum(ndimage.gaussian_filter(mask.astype(np.float32), sigma), 1e-3), 0)


def spectrum(flat: Volume, mask: Mask, pixel_mm: Pixel) -> tuple[Volume, Volume, Volume]:
    """Density of the power spectrum (X, Y) in mm^2 inside the mask, frequency in cycles per mm, angle off x."""
    fine = np.where(mask, flat - smoothed(flat, mask, EDGES_MM[-1], pixel_mm), 0)
    power = (np.abs(np.fft.fft2(fine, axes=(0, 1))) ** 2).sum(2) / mask.sum() * pixel_mm[0] * pixel_mm[1]
    x, y = np.meshgrid(
        *(np.abs(np.fft.fftfreq(n, d)) for n, d in zip(flat.shape, pixel_mm, strict=False)), indexing="ij"
    )
    return power, np.hypot(x, y), np.arctan2(y, x)


def noise_density(flat: Volume, mask: Mask, pixel_mm: Pixel) -> float:
    """Mean density in `NOISE_BAND` along the axis that has more of it, as the scan resolves that far there."""
    power, frequency, angle = spectrum(flat, mask, pixel_mm)
    band = (frequency > NOISE_BAND[0]) & (frequency < NOISE_BAND[1])
    axes = (angle < NOISE_ANGLE, angle > math.pi / 2 - NOISE_ANGLE)
    return max(float(power[band & axis].mean()) for axis in axes)


def draw(path: Path, real: dict[str, Measured], simulated: dict[str, Measured]) -> None:
    """Two slices of every volume, real above simulated; histograms of the head and spectra of white matter below."""
    figure = plt.figure(figsize=(13, 10.5))
    grid = figure.add_gridspec(3, 6, height_ratios=(1, 1, 1.2))
    for row, volumes in enumerate((real, simulated)):
        for column, (name, found) in enumerate(volumes.items()):
            for side, part in enumerate((0.1, 0.65)):
                axis = figure.add_subplot(grid[row, 2 * column + side])
                plane, across = found.flat[:, :, int(part * found.flat.shape[2])], np.any(found.head, axis=2)
                plane = plane[across.any(1)][:, across.any(0)]
                axis.imshow(
                    plane.T[::-1], cmap="gray", vmin=0.4, vmax=2.2, aspect=found.pixel_mm[1] / found.pixel_mm[0]
                )
                axis.set_axis_off()
                axis.set_title(name, fontsize=9)
    histogram, curve = figure.add_subplot(grid[2, :3]), figure.add_subplot(grid[2, 3:])
    dashes = dict(zip(simulated, ("-", "--", ":"), strict=True))
    for name, found in (real | simulated).items():
        style: dict[str, Any] = {"color": "black", "ls": dashes[name]} if name in simulated else {}
        density, edges = np.histogram(found.flat[found.head], bins=120, range=(0, 3), density=True)
        histogram.plot((edges[1:] + edges[:-1]) / 2, density, lw=1.2, label=name, **style)
        power, frequency, _ = spectrum(found.flat, found.mask, found.pixel_mm)
        ring = (frequency / 0.025).astype(int).ravel()
        radial = np.bincount(ring, power.ravel()) / np.maximum(np.bincount(ring), 1)
        curve.loglog((np.arange(2, 30) + 0.5) * 0.025, radial[2:30], lw=1.2, label=name, **style)
    histogram.set_xlabel("intensity in the head, relative to white matter")
    histogram.legend(fontsize=8)
    curve.set_xlabel("cycles per mm")
    curve.set_title("power in white matter, mm$^2$", fontsize=9, y=0.92)
    figure.subplots_adjust(left=0.05, right=0.995, top=0.97, bottom=0.06, wspace=0.05, hspace=0.13)
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    run_cli(main, "measure_texture")
