"""A figure of tests with truth: input, synthesis, the classical baseline and the true high field, slice by slice.

python -m scripts.pairs_picture RESULTS/NAME/test_latest [MORE ...] --out pairs.png

The baseline is computed from the data folders that metrics.json names; it learns from their training slices, as in
test.py.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.folder.slice_folder import SliceFolder, find_folder
from data.folder.slices import read_image
from evaluation import baselines
from evaluation.pictures import picture_name
from evaluation.results import METRICS_NAME
from evaluation.subjects import positions_by_subject, read_subject
from util.errors import UserError, run_cli
from util.reading import read_json
from util.schema import CommandLine, png_file

Floats = NDArray[np.float32]

TITLES = {"real_A": "low field", "fake_B": "synthesis", "classical": "classical baseline", "truth": "true high field"}
MARGIN = 3  # pixels around the head
SPLIT, SOURCE, TARGET = "test", "A", "B"


def data_of(results: Path) -> Path:
    """The data folder of a test. Raises UserError: no results, or the folder has gone."""
    try:
        data = Path(read_json(results / METRICS_NAME)["provenance"]["data"])
    except (UserError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{results}: no {METRICS_NAME} with the data folder's name, need results of test.py") from error
    for split, domain in ((SPLIT, SOURCE), ("train", SOURCE), ("train", TARGET)):
        if find_folder(data, split, domain) is None:
            raise UserError(f"{results}: its data folder {data} has no {split}{domain}, from which baselines come")
    if not (data / f"{SPLIT}{SOURCE}_truth").is_dir():
        raise UserError(f"{results}: its data folder {data} has no {SPLIT}{SOURCE}_truth, need a test with truth")
    return data


def slices_of(results: Path, per_subject: int) -> dict[str, dict[str, Floats]]:
    """Pictures (H, W) of `per_subject` evenly spaced slices of each subject, cut to its head, by stem and kind."""
    data = data_of(results)
    source = SliceFolder(data, SPLIT, SOURCE)
    found: dict[str, dict[str, Floats]] = {}
    with ThreadPoolExecutor(1) as pool:
        fitted = baselines.fit(SliceFolder(data, "train", SOURCE), SliceFolder(data, "train", TARGET), pool)
        for positions in positions_by_subject(source).values():
            volume = read_subject(source, positions)
            classical = baselines.synthesise(volume, fitted, pool)["classical"]
            around = _around(np.any(volume.mask, axis=0))
            chosen = np.unique(((np.arange(per_subject) + 0.5) / per_subject * len(positions)).astype(int))
            for place in chosen.tolist():
                stem = volume.stems[place]
                found[stem] = {kind: _picture(results, stem, kind)[around] for kind in TITLES if kind != "classical"}
                found[stem]["classical"] = classical[place][around]
    return found


def _picture(results: Path, stem: str, kind: str) -> Floats:
    path = results / "images" / picture_name(stem, kind)
    if not path.is_file():
        raise UserError(f"{path}: is missing, need the results of a whole test with truth")
    return read_image(path)


def _around(head: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The square around a head (H, W)."""
    places = np.argwhere(head)
    if not len(places):
        return slice(None), slice(None)
    middle, half = (places.min(0) + places.max(0)) // 2, int(np.ptp(places, 0).max()) // 2 + MARGIN
    top, left = np.maximum(0, middle - half).tolist()
    return slice(top, int(middle[0]) + half + 1), slice(left, int(middle[1]) + half + 1)


def draw(slices: Mapping[str, Mapping[str, Floats]], out: Path) -> None:
    """Draw one row per kind of picture and one column per slice."""
    size = 1.6
    figure, axes = plt.subplots(
        len(TITLES), len(slices), squeeze=False, facecolor="black", figsize=(size * len(slices), size * len(TITLES))
    )
    for row, (kind, title) in zip(axes, TITLES.items(), strict=True):
        row[0].set_ylabel(title, color="white", fontsize=9)
        for axis, pictures in zip(row, slices.values(), strict=True):
            axis.imshow(pictures[kind], cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    figure.subplots_adjust(0.03, 0, 1, 1, 0.02, 0.02)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    plt.close(figure)
    with Image.open(drawn) as image:
        image.convert("L").save(out, optimize=True)  # there is no colour in it, and a third of the bytes


def main(argv: Sequence[str]) -> None:
    """Read the command line and draw."""
    parser = CommandLine(prog="pairs_picture", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("results", type=Path, nargs="+", help="results folders of test.py, RESULTS/NAME/test_latest")
    parser.add_argument("--out", type=png_file, required=True, help="PNG to write")
    parser.add_argument("--per_subject", type=int, default=2, choices=range(1, 9), help="slices [default: 2]")
    options = parser.parse_args(argv)
    mpl.use("Agg")
    slices = {
        f"{number} {stem}": pictures
        for number, results in enumerate(options.results)
        for stem, pictures in slices_of(results, options.per_subject).items()
    }
    draw(slices, options.out)


if __name__ == "__main__":
    run_cli(main, "pairs_picture")
