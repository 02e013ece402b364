"""The figures of the benchmark, one a task: the same slice of a test person by every row."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from benchmarks.fidelity.measure import kept, prediction_path
from benchmarks.fidelity.rows import BASELINES
from benchmarks.fidelity.store import Place
from data.folder.slice_folder import SliceFolder
from evaluation.metrics.image import affine_fit
from evaluation.subjects import positions_by_subject, read_subject
from util.errors import UserError

COLUMNS = 6
INCHES = 2.0  # a side of a panel
MARGIN = 4  # pixels around the head
INPUT, TRUTH = "low_field", "truth"  # slices that are no row's

Slice = NDArray[np.float32]


def keep_slices(place: Place, task: str, rows: Collection[str], seed: int) -> None:
    """Keep one slice of every row whose predictions are here, among the published units: other machines have no more.

    It is the middle slice of the first test subject, by one seed's models, cut to the head. A row is shown after the
    affine fit of its volume to the truth, as `psnr_fit` measures it, and its air as predicted; input and truth as they
    are.
    """
    try:
        source = SliceFolder(place.data(task), "test", "A")
    except UserError:
        return
    subject, positions = next(iter(positions_by_subject(source).items()))
    volume = read_subject(source, positions, with_truth=True)
    assert volume.truth is not None and volume.truth_mask is not None
    middle = len(positions) // 2
    shown: dict[Path, Slice] = {}
    for row in _drawn(rows):
        used = _seed_of(row, seed)
        if (file := prediction_path(place.unit(task, row, used) / "test", subject)).is_file():
            prediction = kept(file)
            scale, offset = affine_fit(prediction, volume.truth, volume.truth_mask)
            fitted = scale * prediction[middle] + offset
            image = np.where(volume.truth_mask[middle], fitted, prediction[middle])
            shown[place.slice(task, row, used)] = image
    if shown:
        shown[place.slice(task, INPUT, 0)] = volume.visible[middle]
        shown[place.slice(task, TRUTH, 0)] = volume.truth[middle]
    part = _around(volume.truth_mask[middle])
    for path, image in shown.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[part].clip(0, 1) * 255).round().astype(np.uint8)).save(path)


def write_figure(place: Place, task: str, rows: Collection[str], seed: int, path: Path) -> None:
    """Draw the kept slices of a task, if there are any: low field, truth, and `rows` in their order."""
    files = {"low field": place.slice(task, INPUT, 0), "truth": place.slice(task, TRUTH, 0)}
    files |= {row: place.slice(task, row, _seed_of(row, seed)) for row in _drawn(rows)}
    if panels := [(title, _read(file)) for title, file in files.items() if file.is_file()]:
        _draw(panels, path)


def _drawn(rows: Collection[str]) -> list[str]:
    return [row for row in rows if row != "identity"]  # which is the low field


def _seed_of(row: str, seed: int) -> int:
    return 0 if row in BASELINES else seed


def _read(path: Path) -> Slice:
    with Image.open(path) as image:
        return np.asarray(image, np.float32) / np.float32(255)


def _around(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns that hold the head."""
    edges = []
    for axis in (1, 0):
        there = np.flatnonzero(mask.any(axis)) if mask.any() else np.arange(mask.shape[1 - axis])
        edges.append(slice(max(0, int(there[0]) - MARGIN), int(there[-1]) + 1 + MARGIN))
    return edges[0], edges[1]


def _draw(panels: list[tuple[str, Slice]], path: Path) -> None:
    """One panel a row of the table, on black."""
    lines = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(INCHES * COLUMNS, (INCHES + 0.25) * lines), facecolor="black")
    for number, (title, image) in enumerate(panels, start=1):
        axis = figure.add_subplot(lines, COLUMNS, number)
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, color="white", fontsize=8, pad=3)
        axis.set_axis_off()
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.94, 0.03, 0.12)
    figure.savefig(path, dpi=110, metadata={"Software": None})
