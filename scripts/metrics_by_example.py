"""What the measures say of known damage: `python -m scripts.metrics_by_example DATA` prints docs/metrics.md's table.

Takes the true high-field slices of a simulated folder's test subjects, damages them in known ways, and measures the
damaged against the undamaged, as test.py measures a synthesis: a subject at a time, inside the head, then the mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data.folder.slice_folder import SliceFolder
from evaluation.metrics.image import nrmse, psnr, psnr_fit, ssim
from evaluation.metrics.structure import edge_corr
from util.errors import run_cli

Stack = NDArray[np.float32]  # (S, H, W) in [0, 1]
Mask = NDArray[np.bool_]
MEASURES = {"psnr_fit": psnr_fit, "psnr": psnr, "ssim": ssim, "nrmse": nrmse, "edge_corr": edge_corr}
SPOT = 0.06  # radius of an invented lesion, of the slice's side


def spot(stack: Stack, mask: Mask) -> Stack:
    """A bright round spot in the middle slice, where the head is."""
    damaged, middle = stack.copy(), len(stack) // 2
    y, x = np.indices(stack.shape[1:])
    rows, columns = np.nonzero(mask[middle])
    row, column = rows.mean(), columns.mean() + 0.15 * stack.shape[2]
    inside = np.hypot(y - row, x - column) < SPOT * stack.shape[2]
    damaged[middle][inside] = stack[mask].max()
    return damaged


def noise(stack: Stack, mask: Mask) -> Stack:
    """White noise of 5 % of the range."""
    return stack + 0.05 * np.random.default_rng(0).standard_normal(stack.shape, dtype=np.float32)


def other_window(stack: Stack, mask: Mask) -> Stack:
    """The same image, darker and with less contrast."""
    return 0.8 * stack + 0.05


DAMAGES: Mapping[str, Callable[[Stack, Mask], Stack]] = {
    "another window: 0.8 x + 0.05": other_window,
    "blurred, sigma 1 px": lambda stack, mask: ndimage.gaussian_filter(stack, (0, 1, 1)),
    "noise, 5 % of the range": noise,
    "displaced by 1 px": lambda stack, mask: np.roll(stack, 1, axis=2),
    "an invented lesion in one slice": spot,
    "the neighbouring slice in place of each": lambda stack, mask: np.roll(stack, 1, axis=0),
}


def table(dataroot: Path) -> dict[str, dict[str, float]]:
    """The mean over test subjects of every measure, by kind of damage.

    Raises:
        UserError: the folder has no test slices with a truth.
    """
    slices, truth = (SliceFolder(dataroot, "test", "A", kind) for kind in ("", "truth"))
    found: dict[str, list[list[float]]] = {name: [] for name in DAMAGES}
    for subject in dict.fromkeys(slices.subjects):
        numbers = [number for number, name in enumerate(slices.subjects) if name == subject]
        stack = np.stack([truth.image(number) for number in numbers]).astype(np.float32)
        mask = np.stack([slices.mask(number) for number in numbers])
        for name, damage in DAMAGES.items():
            damaged = np.clip(damage(stack, mask), 0, 1)
            values = (measure(damaged, stack, mask) for measure in MEASURES.values())
            found[name].append([np.inf if value is None else value for value in values])
    return {name: dict(zip(MEASURES, np.mean(rows, axis=0), strict=True)) for name, rows in found.items()}


def _cell(measure: str, value: float) -> str:
    if measure.startswith("psnr"):
        return f"{value:.1f}" if value < 100 else "over 100"
    return f"{value:.3f}"


def main(argv: Sequence[str]) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(prog="metrics_by_example", description=__doc__)
    parser.add_argument("dataroot", type=Path, metavar="DATA", help="simulated data folder, or one with testA_truth")
    rows = table(parser.parse_args(argv).dataroot)
    print("| the truth, but | " + " | ".join(f"`{name}`" for name in MEASURES) + " |")
    print("|---" * (len(MEASURES) + 1) + "|")
    for name, values in rows.items():
        cells = [_cell(measure, value) for measure, value in values.items()]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    run_cli(main, "metrics_by_example")
