"""A figure of a test with --trust: input, synthesis, truth, true error and trust map of a good and a bad slice.

python -m scripts.trust_picture RESULTS/NAME/test_latest --out trust.png
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.folder.slices import read_image
from evaluation.metrics.image import affine_fit
from evaluation.pictures import TRUST_RANGE, picture_name, trust_colours, trust_levels
from evaluation.trust.appearance import SIGMA
from evaluation.trust.signals import smooth, unit_of
from util.errors import UserError, run_cli
from util.schema import CommandLine, png_file

TITLES = ("low field", "synthesis", "true high field", "true error", "trust map: expected error")
MARGIN = 3  # pixels around the head
QUANTILES = {"good slice": 0.95, "bad slice": 0.05}  # of slice_psnr over all slices


def choose(results: Path) -> dict[str, dict[str, str]]:
    """A row of slices.csv for the good and for the bad slice. Raises: UserError: no trust maps or no truth."""
    try:
        with (results / "slices.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("slice_psnr") and row.get("slice_trust")]
    except OSError as error:
        raise UserError(f"{results}: no slices.csv ({error.strerror}), need the results of test.py --trust") from error
    if not rows:
        raise UserError(f"{results}: no slice has slice_psnr and slice_trust, need a test with --trust and a truth")
    rows.sort(key=lambda row: float(row["slice_psnr"]))
    return {name: rows[round(part * (len(rows) - 1))] for name, part in QUANTILES.items()}


def pictures_of(results: Path, row: dict[str, str]) -> list[NDArray]:
    """One slice's five pictures; the true error is smoothed, fitted and coloured as the map is."""
    with (results / "slices.csv").open(encoding="utf-8", newline="") as file:
        stems = [other["file"] for other in csv.DictReader(file) if other["subject"] == row["subject"]]

    def read(kind: str, of: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([read_image(results / "images" / picture_name(stem, kind)) for stem in of])

    fake, truth = read("fake_B", stems), read("truth", stems)
    place = stems.index(row["file"])
    trust = np.asarray(Image.open(results / "images" / picture_name(row["file"], "trust")))
    head = np.stack([np.asarray(Image.open(results / "images" / picture_name(s, "trust"))).any(-1) for s in stems])
    scale, offset = affine_fit(fake, truth, head)
    squared = ((scale * fake + offset - truth) ** 2).astype(np.float32)
    error = np.sqrt(smooth(squared, head, SIGMA * unit_of(fake.shape)))[place]
    shown = trust_colours()[np.rint(trust_levels(error) * 255).astype(np.uint8)]
    low = read("real_A", [row["file"]])[0]
    around = _around(np.logical_or.reduce(head))
    return [picture[around] for picture in (low, fake[place], truth[place], shown, trust)]


def _around(head: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The square around the subject's head, which all of its slices are cut to."""
    rows, columns = np.flatnonzero(head.any(1)), np.flatnonzero(head.any(0))
    middle, half = (rows[[0, -1]].mean(), columns[[0, -1]].mean()), max(np.ptp(rows), np.ptp(columns)) / 2 + MARGIN
    top, left = (max(0, int(place - half)) for place in middle)
    return slice(top, int(middle[0] + half) + 1), slice(left, int(middle[1] + half) + 1)


def draw(results: Path, out: Path) -> None:
    """Draw a row for each slice, and the colours' scale below."""
    rows = choose(results)
    size = 2.1
    figure, axes = plt.subplots(
        len(rows), len(TITLES), squeeze=False, facecolor="black", figsize=(size * len(TITLES), size * len(rows) + 0.5)
    )
    for number, (line, (name, row)) in enumerate(zip(axes, rows.items(), strict=True)):
        told = f"{name}: {float(row['slice_psnr']):.1f} dB,\nexpected {float(row['slice_trust']):.1f} dB"
        line[0].set_ylabel(told, color="white", fontsize=8)
        for axis, title, picture in zip(line, TITLES, pictures_of(results, row), strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if number == 0:
                axis.set_title(title, color="white", fontsize=9)
    figure.subplots_adjust(0.045, 0.09, 1, 0.94, 0.02, 0.02)
    bar = figure.add_axes((0.62, 0.05, 0.36, 0.025))
    bar.imshow(trust_colours()[None], aspect="auto", extent=(0, TRUST_RANGE, 0, 1))
    bar.set_yticks([])
    bar.tick_params(colors="white", labelsize=7)
    figure.savefig(out, dpi=90)
    plt.close(figure)


def main(argv: Sequence[str]) -> None:
    """Read the command line and draw."""
    parser = CommandLine(prog="trust_picture", description=__doc__)
    parser.add_argument("results", type=Path, help="results folder of test.py --trust, RESULTS/NAME/test_latest")
    parser.add_argument("--out", type=png_file, required=True, help="PNG to write")
    options = parser.parse_args(argv)
    mpl.use("Agg")
    draw(options.results, options.out)


if __name__ == "__main__":
    run_cli(main, "trust_picture")
