"""How close `--lf_noise auto`, `--lf_band auto` and `--lf_bias auto` come: `python -m scripts.low_field_accuracy`.

Low-field scans are simulated with and without noise, from the same seed, so that the noise is known; the table of
docs/low_field.md is what this prints. Volumes that are given as arguments (.nii, .nii.gz) are estimated instead, beside
the noise in their air.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from data.folder.slices import to_image
from data.transforms import to_network
from preprocessing.nifti import read_nifti
from preprocessing.slicing import find_head
from simulation.presets import PROTOCOLS, find_preset
from simulation.subject import simulate_scan
from training.low_field.field import estimate_field
from training.low_field.noise import estimate_noise
from util.errors import run_cli
from util.schema import CommandLine

SLICE_AXIS = 2
NOISELESS = 1e5  # signal-to-noise ratio
RIM = 4  # pixels at the head's edge that the true noise is not taken from
GREY = (0.35, 0.9)  # nor from darker or brighter pixels: magnitudes and windows change it there


@dataclass(frozen=True)
class Case:
    """What is simulated; None: as the preset has it."""

    preset: str
    matrix: int
    protocol: str | None = None
    snr: float | None = None
    bias: float | None = None
    bits: int = 16
    subjects: int = 2


@dataclass(frozen=True)
class Row:
    """True and estimated values in the network's input."""

    true_noise: float
    noise: float
    band: float
    true_bias: float
    bias: float


CASES = [
    (Case("same-contrast", 96), (96, 224)),
    (Case("same-contrast", 96, bits=8), (96,)),
    (Case("same-contrast", 96, snr=22.0), (96,)),
    (Case("same-contrast", 96, snr=6.0), (96,)),
    (Case("same-contrast", 96, bias=0.0), (96,)),
    (Case("same-contrast", 96, bias=0.2), (96,)),
    (Case("same-contrast", 128), (128,)),
    (Case("same-contrast", 224), (224, 96)),
    (Case("m4raw-to-3T", 256), (224,)),
    (Case("same-contrast", 224, "0.055T-T1w"), (224,)),
]


def main(argv: Sequence[str]) -> int:
    """Print the table of simulated scans, or that of the given volumes."""
    parser = CommandLine(prog="low_field_accuracy", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("volumes", type=Path, nargs="*", help="scans, .nii or .nii.gz; none: simulated ones")
    volumes = parser.parse_args(argv).volumes
    torch.set_num_threads(1)
    if volumes:
        rows = [of_volume(path) for path in volumes]
        print("| volume | noise in air | `--lf_noise` | `--lf_band` | `--lf_bias` |\n|---|---|---|---|---|")
        print("\n".join(rows))
        return 0
    print("| scan | matrix | bits | `--load_size` | noise: true | estimated | band | field: true | estimated |")
    print("|" + "---|" * 9)
    for case, sizes in CASES:
        for load_size in sizes:
            print(line(case, load_size, measured(case, load_size)), flush=True)
    return 0


def measured(case: Case, load_size: int) -> Row:
    """Simulate the case and estimate its noise and field in the input of networks of that `--load_size`."""
    low = find_preset(case.preset).low if case.protocol is None else PROTOCOLS[case.protocol]
    low = replace(low, snr_wm=case.snr or low.snr_wm, bias_std=low.bias_std if case.bias is None else case.bias)
    preset, clean = (replace(find_preset(case.preset), low=replace(low, snr_wm=s)) for s in (low.snr_wm, NOISELESS))
    images, without, masks, volumes = [], [], [], []
    for subject in range(case.subjects):
        scan, free = (
            simulate_scan(each, 0, subject, "A", matrix=case.matrix, with_truth=False).image for each in (preset, clean)
        )
        shown, mask, (bottom, top) = _slices(scan, case.bits)
        images.append(shown)
        masks.append(mask)
        kept = find_head(scan, SLICE_AXIS, "simulated").kept
        without.append(np.stack([to_image((free[..., k] - bottom) / (top - bottom)) for k in kept]))
        volumes += [subject] * len(shown)
    image, mask = np.concatenate(images), np.concatenate(masks)
    noise = estimate_noise(image, mask, preprocess="resize", load_size=load_size)
    bias = estimate_field(image, mask, np.array(volumes))
    if noise is None or bias is None:
        raise ValueError(f"{case}: too small to estimate")
    true = _true_noise(image, np.concatenate(without), mask, load_size)
    return Row(true, noise.deviation, noise.band, low.bias_std, bias)


def _slices(
    volume: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[float, float]]:
    """Slices (N, H, W) in [0, 1] as preprocessing stores them, their masks, and the window."""
    head = find_head(volume, SLICE_AXIS, "volume")
    bottom, top = head.window
    steps = 2**bits - 1
    shown = np.round(np.clip((volume - bottom) / (top - bottom), 0, 1) * steps) / steps
    images, masks = (np.stack([to_image(x[..., k]) for k in head.kept]) for x in (shown, head.mask))
    return images.astype(np.float32), masks, head.window


def _true_noise(
    image: NDArray[np.float32], clean: NDArray[np.float32], mask: NDArray[np.bool_], load_size: int
) -> float:
    """Standard deviation of the noise in the network's input, where neither the window nor the magnitude changes it."""
    shown, head = to_network(image, mask, preprocess="resize", load_size=load_size)
    free, _ = to_network(clean.astype(np.float32), mask, preprocess="resize", load_size=load_size)
    inner = np.stack([ndimage.binary_erosion(x, iterations=RIM) for x in head[:, 0].numpy() > 0])
    level = (free[:, 0].numpy() + 1) / 2
    where = inner & (level > GREY[0]) & (level < GREY[1])
    return float((shown - free)[:, 0].numpy()[where].std())


def line(case: Case, load_size: int, row: Row) -> str:
    """A row of the table."""
    name = case.protocol or find_preset(case.preset).low.name
    snr = "" if case.snr is None else f", SNR {case.snr:g}"
    return (
        f"| {name}{snr} | {case.matrix} | {case.bits} | {load_size} | {row.true_noise:.3f} | {row.noise:.3f} | "
        f"{row.band:.2f} | {row.true_bias:g} | {row.bias:.3f} |"
    )


def of_volume(path: Path) -> str:
    """A row for a volume of a scanner, at its own size; in its air, noise of one channel is Rayleigh distributed.

    Raises: UserError: it cannot be read, or is not that of a head.
    """
    volume, _, _ = read_nifti(path)
    images, masks, (bottom, top) = _slices(volume, 16)
    noise = estimate_noise(images, masks, preprocess="none", load_size=0)
    bias = estimate_field(images, masks, np.zeros(len(images), np.int64))
    air = volume[~find_head(volume, SLICE_AXIS, path.name).mask]
    in_air = "blank" if (air == 0).mean() > 0.1 else f"{2 * np.sqrt((air**2).mean() / 2) / (top - bottom):.3f}"
    found = ("-", "-") if noise is None else (f"{noise.deviation:.3f}", f"{noise.band:.2f}")
    return f"| {path.name} | {in_air} | {found[0]} | {found[1]} | {'-' if bias is None else f'{bias:.3f}'} |"


if __name__ == "__main__":
    run_cli(main, "low_field_accuracy")
