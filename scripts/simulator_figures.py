"""The figures of docs/simulator.md: all presets, all faults, and a comparison with real 0.055 T slices.

python -m scripts.simulator_figures --out docs/simulator [--real FOLDER]

FOLDER holds NIfTI volumes whose names contain `0.055T_T2w-FSE` and `0.055T_T1w-GRE`, as published with Liu et al.,
Nature Communications 2021 (CC0); without it that comparison is not updated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data.folder.masks import head_mask_volume
from simulation.anatomy import load_anatomy
from simulation.faults import FAULTS, mispositioned
from simulation.geometry import draw_geometry
from simulation.presets import LIU_T1W, LIU_T2W, LOW_T2W, PRESETS, Preset
from simulation.subject import ScanFaults, Scanner, draw_head, simulate_scan
from util.errors import UserError, run_cli
from util.schema import CommandLine

SUBJECT, SEED = 3, 0
SEVERITIES = (0.4, 1.0)
RAYLEIGH_MEAN = 1.2533  # of a background of unit noise
AIR_MARGIN = 8  # pixels around the head that do not count as air
REFERENCES = {"T2w-FSE": LIU_T2W, "T1w-GRE": LIU_T1W}

Volume = NDArray[np.float32]


def main(argv: Sequence[str]) -> None:
    """Read the command line and draw."""
    parser = CommandLine(prog="simulator_figures", description=__doc__)
    parser.add_argument("--out", required=True, help="folder for the pictures")
    parser.add_argument("--real", help="folder of real 0.055 T volumes")
    options = parser.parse_args(argv)
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    mpl.use("Agg")
    draw_presets(out / "presets.png")
    draw_faults(out / "faults.png")
    if options.real:
        figures = compare(Path(options.real), out / "real.png")
        (out / "real.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def draw_presets(path: Path) -> None:
    """One subject with a row per preset: A and its truth at two levels, and B at one level."""
    figure, axes = plt.subplots(len(PRESETS), 5, figsize=(10, 2 * len(PRESETS)), facecolor="black")
    for row, preset in zip(axes, PRESETS.values(), strict=True):
        low, high = (simulate_scan(preset, SEED, SUBJECT, d, matrix=224, with_truth=d == "A") for d in "AB")
        assert low.truth is not None
        first, second = (int(np.abs(low.level_mm - level).argmin()) for level in (5.0, 40.0))
        other = int(np.abs(high.level_mm - 40.0).argmin())
        panels = ((low.image, first), (low.truth, first), (low.image, second), (low.truth, second), (high.image, other))
        row[0].set_ylabel(preset.name, color="white")
        for axis, title, (volume, k) in zip(row, ("A", "truth", "A", "truth", "B"), panels, strict=True):
            show(axis, volume[:, :, k])
            axis.set_title(title, color="white", fontsize=8)
    save(figure, path)


def draw_faults(path: Path) -> None:
    """One slice of the same-contrast task without faults, and with each fault at two severities."""
    figure, axes = plt.subplots(2, 1 + len(FAULTS), figsize=(13, 3.6), facecolor="black")
    anatomy, protocol = load_anatomy(), LOW_T2W
    head = draw_head(SEED, SUBJECT)
    geometry = draw_geometry(
        np.random.default_rng(SEED), anatomy, head.shape, matrix=224, thickness_mm=protocol.thickness_mm
    )
    middle = len(geometry.z_mm) // 2
    geometry = replace(geometry, z_mm=geometry.z_mm[middle - 2 : middle + 3])
    for row, severity in zip(axes, SEVERITIES, strict=True):
        row[0].set_ylabel(f"severity {severity:g}", color="white")
        for axis, fault in zip(row, ("none", *FAULTS), strict=True):
            scan_faults = ScanFaults({fault: severity} if fault != "none" else {}, SEED, SUBJECT)
            faulty = geometry
            if fault == "positioning":
                faulty = replace(geometry, pose=mispositioned(geometry.pose, severity, scan_faults.generator(fault)))
            image, _ = Scanner(head, faulty, anatomy, scan_faults).image(protocol, np.random.default_rng(SEED))
            show(axis, image[2].T)
            axis.set_title(fault, color="white", fontsize=8)
    save(figure, path)


def show(axis: plt.Axes, plane: NDArray[np.float32]) -> None:
    """One axial plane, anterior up, white at the 99.5th percentile."""
    axis.imshow(plane.T[::-1], cmap="gray", vmin=0, vmax=float(np.percentile(plane, 99.5)))
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def compare(folder: Path, path: Path) -> dict[str, dict[str, float]]:
    """Plot head histograms and radial power spectra of real and simulated slices; return their SNR and percentiles."""
    figures: dict[str, dict[str, float]] = {}
    figure, axes = plt.subplots(2, 2, figsize=(9, 6))
    for (histogram, spectrum), (kind, protocol) in zip(axes, REFERENCES.items(), strict=True):
        files = sorted(folder.glob(f"*0.055T_{kind}*"))
        if not files:
            raise UserError(f"--real {folder}: no file with 0.055T_{kind} in its name")
        volumes: dict[str, Volume] = {
            file.name.split("_")[0]: nibabel.Nifti1Image.from_filename(file).get_fdata(dtype=np.float32)
            for file in files
        }
        scan = simulate_scan(Preset("", protocol, protocol), SEED, SUBJECT, "A", matrix=240, with_truth=False)
        middle = scan.image.shape[2] // 2
        volumes["simulated"] = scan.image[:, :, middle - 2 : middle + 2]
        for name, volume in volumes.items():
            mask = head_mask_volume(volume)
            inside = volume[mask] / np.median(volume[mask])
            style = {"lw": 2, "color": "black"} if name == "simulated" else {"lw": 1}
            density, edges = np.histogram(inside, bins=80, range=(0, 2.5), density=True)
            histogram.plot((edges[1:] + edges[:-1]) / 2, density, label=name, **style)
            frequency, power = radial_power(volume / np.median(volume[mask]), mask)
            spectrum.semilogy(frequency, power, label=name, **style)
            figures[f"{kind} {name}"] = {
                "snr": round(snr(volume, mask), 1),
                **{f"p{q}": round(float(np.percentile(inside, q)), 2) for q in (5, 25, 75, 95)},
                "power at 0.1": float(f"{np.interp(0.1, frequency, power):.3g}"),
                "power at 0.3": float(f"{np.interp(0.3, frequency, power):.3g}"),
            }
        histogram.set_xlabel(f"{kind}: intensity in the head relative to its median")
        spectrum.set_xlabel("cycles per pixel")
        spectrum.set_title("radial power spectrum", fontsize=9)
        histogram.legend()
    save(figure, path)
    return figures


def snr(volume: Volume, mask: NDArray[np.bool_]) -> float:
    """Median of the head over the noise of one channel, which is estimated from the Rayleigh mean of the air."""
    air = ~ndimage.binary_dilation(mask, iterations=AIR_MARGIN)
    return float(np.median(volume[mask]) / (volume[air].mean() / RAYLEIGH_MEAN))


def radial_power(volume: Volume, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies in cycles per pixel, and ring means of the slices' power spectra per pixel of head."""
    spectra = np.abs(np.fft.fft2(volume, axes=(0, 1))) ** 2
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in volume.shape[:2]), indexing="ij"))
    ring = (radius * 100).astype(int)
    power = np.bincount(ring.ravel(), spectra.mean(2).ravel()) / np.bincount(ring.ravel())
    keep = np.arange(1, 50)
    return (keep + 0.5) / 100, power[keep] / (mask.sum() / volume.shape[2])


if __name__ == "__main__":
    load_anatomy()
    run_cli(main, "simulator_figures")
