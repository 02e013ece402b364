"""The figures of the benchmark, one a task: the same slice of a test person by every row."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

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

Slice = NDArray[np.float32]


def write_figure(place: Place, task: str, rows: Collection[str], seed: int, path: Path) -> None:
    """Draw the rows of a task for one slice: the middle one of the first test subject, by one seed's models.

    Every row is shown after the affine fit of its volume to the truth, as `psnr_fit` measures it, and its air as
    predicted; input and truth as they are. A figure that is there already stays unless all rows can be drawn: another
    machine may have had the predictions.
    """
    shown = [row for row in rows if row != "identity"]
    files = {row: place.unit(task, row, 0 if row in BASELINES else seed) / "test" for row in shown}
    try:
        source = SliceFolder(place.data(task), "test", "A")
    except UserError:
        return
    subject, positions = next(iter(positions_by_subject(source).items()))
    files = {row: file for row in files if (file := prediction_path(files[row], subject)).is_file()}
    if not files or (path.is_file() and len(files) < len(shown)):
        return
    volume = read_subject(source, positions, with_truth=True)
    assert volume.truth is not None and volume.truth_mask is not None
    middle = len(positions) // 2
    panels: list[tuple[str, Slice]] = [("low field", volume.visible[middle]), ("truth", volume.truth[middle])]
    for row, file in files.items():
        prediction = kept(file)
        scale, offset = affine_fit(prediction, volume.truth, volume.truth_mask)
        fitted = scale * prediction[middle] + offset
        panels.append((row, np.where(volume.truth_mask[middle], fitted, prediction[middle]).clip(0, 1)))
    _draw(panels, _around(volume.truth_mask[middle]), path)


def _around(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns that hold the head."""
    edges = []
    for axis in (1, 0):
        there = np.flatnonzero(mask.any(axis)) if mask.any() else np.arange(mask.shape[1 - axis])
        edges.append(slice(max(0, int(there[0]) - MARGIN), int(there[-1]) + 1 + MARGIN))
    return edges[0], edges[1]


def _draw(panels: list[tuple[str, Slice]], part: tuple[slice, slice], path: Path) -> None:
    """One panel a row of the table, on black."""
    lines = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(INCHES * COLUMNS, (INCHES + 0.25) * lines), facecolor="black")
    for number, (title, image) in enumerate(panels, start=1):
        axis = figure.add_subplot(lines, COLUMNS, number)
        axis.imshow(image[part], cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, color="white", fontsize=8, pad=3)
        axis.set_axis_off()
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.94, 0.03, 0.12)
    figure.savefig(path, dpi=110, metadata={"Software": None})
