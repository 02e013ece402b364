"""A figure of a data folder's slices as a network sees them: A above B, with the size of their heads.

python -m scripts.network_view DATA [--split test] [--load_size 224] [--out network_view.png]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from data.folder.manifest import DOMAINS, SPLITS
from data.folder.slice_folder import SliceFolder
from data.transforms import to_network
from data.unaligned_options import PAD, PREPROCESS, SMALLEST_SIDE
from util.errors import UserError, run_cli
from util.schema import CommandLine, png_file
from util.spread import evenly_spaced

COLUMNS = 6  # subjects of a domain that are shown, one slice each


def middle_slices(folder: SliceFolder, count: int) -> list[int]:
    """The slice nearest the middle level of each of `count` subjects, evenly chosen."""
    subjects = sorted(set(folder.subjects))
    chosen = [subjects[i] for i in evenly_spaced(len(subjects), count)]
    of = np.array(folder.subjects)
    return [
        min(np.flatnonzero(of == subject).tolist(), key=lambda i: abs(float(folder.p[i]) - 0.55)) for subject in chosen
    ]


def draw(dataroot: Path, split: str, preprocess: str, load_size: int, out: Path) -> None:
    """Draw one row per domain and one column per subject, with a grid of tenths of the field of view."""
    size = 2.2
    figure, rows = plt.subplots(2, COLUMNS, squeeze=False, facecolor="black", figsize=(size * COLUMNS, size * 2.1))
    for domain, axes in zip(DOMAINS, rows, strict=True):
        folder = SliceFolder(dataroot, split, domain)
        for axis in axes:
            axis.axis("off")
        for axis, i in zip(axes, middle_slices(folder, COLUMNS), strict=False):
            image, mask = to_network(folder.image(i), folder.mask(i), preprocess=preprocess, load_size=load_size)
            axis.imshow(image[0], cmap="gray", vmin=-1, vmax=1)
            heights, widths = (np.flatnonzero(mask[0].any(side)) for side in (1, 0))
            axis.set_title(
                f"{domain}: {folder.subjects[i]}, head {len(heights)} x {len(widths)} px", color="white", fontsize=6
            )
            for place in np.linspace(0, load_size, 11)[1:-1]:
                axis.axhline(place - 0.5, color="yellow", linewidth=0.2, alpha=0.6)
                axis.axvline(place - 0.5, color="yellow", linewidth=0.2, alpha=0.6)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.95, 0.02, 0.08)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str]) -> None:
    """Read the command line and draw."""
    parser = CommandLine(prog="network_view", description=__doc__)
    parser.add_argument("dataroot", type=Path, help="a data folder")
    parser.add_argument("--split", choices=SPLITS, default="test", help="[default: test]")
    parser.add_argument("--preprocess", choices=PREPROCESS, default=PAD, help=f"as in training [default: {PAD}]")
    parser.add_argument("--load_size", type=int, default=224, help="as in training [default: 224]")
    parser.add_argument("--out", type=png_file, default="network_view.png", help="[default: network_view.png]")
    arguments = parser.parse_args(argv)
    if arguments.load_size < SMALLEST_SIDE:
        raise UserError(f"--load_size {arguments.load_size}: allowed are numbers from {SMALLEST_SIDE}")
    mpl.use("Agg")
    draw(arguments.dataroot, arguments.split, arguments.preprocess, arguments.load_size, arguments.out)


if __name__ == "__main__":
    run_cli(main, "network_view")
