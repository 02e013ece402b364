"""A figure of a test: input, synthesis, truth and error of a few held-out slices.

python -m scripts.demo_picture RESULTS/NAME/test_latest --out demo.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from evaluation.pictures import ERROR_RANGE, KINDS, picture_name
from util.errors import UserError, run_cli
from util.schema import CommandLine, png_file

TITLES = {
    "real_A": "low field",
    "fake_B": "synthesised",
    "truth": "true high field",
    "error": f"error, ±{ERROR_RANGE:g}",
}


def choose(images: Path, count: int) -> list[str]:
    """Stems of `count` slices with a truth, evenly spaced over all of them to vary subjects and levels."""
    ending = picture_name("", "truth")
    stems = sorted(path.name.removesuffix(ending) for path in images.glob(f"*{ending}"))
    if not stems:
        raise UserError(f"{images}: no pictures with a truth; test.py writes them if testA_truth exists")
    positions = (np.arange(count) + 0.5) / count * len(stems)
    return [stems[int(position)] for position in positions]


def draw(images: Path, stems: Sequence[str], out: Path) -> None:
    """Draw one row per kind of picture and one column per slice."""
    size = 1.7
    figure, axes = plt.subplots(
        len(KINDS), len(stems), squeeze=False, facecolor="black", figsize=(size * len(stems), size * len(KINDS))
    )
    for row, kind in zip(axes, KINDS, strict=True):
        row[0].set_ylabel(TITLES[kind], color="white")
        for axis, stem in zip(row, stems, strict=True):
            with Image.open(images / picture_name(stem, kind)) as image:
                pixels = np.asarray(image)
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=np.iinfo(pixels.dtype).max)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    figure.subplots_adjust(0.035, 0, 1, 1, 0.02, 0.02)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str]) -> None:
    """Read the command line and draw."""
    parser = CommandLine(prog="demo_picture", description=__doc__)
    parser.add_argument("results", type=Path, help="results folder of test.py, RESULTS/NAME/test_latest")
    parser.add_argument("--out", type=png_file, required=True, help="PNG to write")
    parser.add_argument("--columns", type=int, default=7, choices=range(1, 21), help="slices [default: 7]")
    options = parser.parse_args(argv)
    mpl.use("Agg")
    draw(options.results / "images", choose(options.results / "images", options.columns), options.out)


if __name__ == "__main__":
    run_cli(main, "demo_picture")
