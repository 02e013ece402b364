"""`loss_log.csv`: one row per report, one column per loss, valid CSV at every moment."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from util.files import replace_text

LOSS_LOG_NAME = "loss_log.csv"
FIXED = ("stage", "epoch", "step", "images_per_s", "seconds")
Row = dict[str, str]
T = TypeVar("T")


def until(items: Sequence[T], place: Callable[[T], tuple[str, int]], stage: str, step: int) -> list[T]:
    """Those `items` that a run resumed at `step` of `stage` keeps: earlier stages whole, this one up to `step`.

    Args: place: gives an item's (stage, step); items are in the order in which they were logged.
    """
    stages = list(dict.fromkeys(place(item)[0] for item in items))
    whole = stages[: stages.index(stage)] if stage in stages else stages
    return [item for item in items if place(item)[0] in whole or (place(item)[0] == stage and place(item)[1] <= step)]


class LossLog:
    """The rows of a run, in memory and on disk.

    Stages have different losses, so the columns are the union of all seen so far. A row that brings no new column is
    appended; a row that does makes the file be written anew beside the old one and renamed, as does the row after a
    failed write, so that nothing is lost to a disk that was full for a while.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self._columns = list(FIXED)
        self._on_disk = False  # whether the file holds exactly self.rows under self._columns

    def resume(self, stage: str, step: int) -> None:
        """Take over an earlier run's file up to `step` of `stage`; later rows and later stages are dropped.

        Torn or foreign lines (a machine that lost power) are dropped too. A missing file is an empty one.
        """
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if _complete(row)]
            self._columns = [*FIXED, *(name for name in reader.fieldnames or () if name not in FIXED)]
        self.rows = until(rows, lambda row: (row["stage"], int(row["step"])), stage, step)
        self._rewrite()

    def add(
        self,
        stage: str,
        epoch: int,
        step: int,
        *,
        images_per_s: float | None,
        seconds: float,
        values: Mapping[str, float],
    ) -> None:
        """Keep and write one row. Raises OSError if it cannot be written; it is then written with the next one."""
        rate = "" if images_per_s is None else f"{images_per_s:.4g}"
        fixed = (stage, str(epoch), str(step), rate, f"{seconds:.1f}")
        row = dict(zip(FIXED, fixed, strict=True)) | {name: f"{value:.6g}" for name, value in values.items()}
        new = [name for name in row if name not in self._columns]
        self.rows.append(row)
        self._columns += new
        if new or not self._on_disk:
            self._rewrite()
            return
        self._on_disk = False
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)
        self._on_disk = True

    def _rewrite(self) -> None:
        self._on_disk = False
        with replace_text(self.path) as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        self._on_disk = True

    @property
    def seconds(self) -> float:
        """Training time so far, in seconds: that of the last row."""
        return float(self.rows[-1]["seconds"]) if self.rows else 0.0

    @property
    def stages(self) -> list[str]:
        """Names of the stages in the order in which they began."""
        return list(dict.fromkeys(row["stage"] for row in self.rows))

    def names(self, stage: str) -> list[str]:
        """Names of the losses that `stage` has, in the order of the columns."""
        seen = {name for row in self.rows if row["stage"] == stage for name, text in row.items() if text}
        return [name for name in self._columns if name in seen and name not in FIXED]

    def curve(self, stage: str, name: str, max_points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
        """One loss over a stage: (steps, values), each (n,) float64, n <= max_points; longer curves are averaged.

        Values that are missing or not finite are left out.
        """
        pairs = [(float(row["step"]), float(row[name])) for row in self.rows if row["stage"] == stage and row.get(name)]
        points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        points = points[np.isfinite(points[:, 1])]
        if len(points) > max_points:
            points = np.stack([part.mean(axis=0) for part in np.array_split(points, max_points)])
        return points[:, 0], points[:, 1]


def _complete(row: Mapping[str | None, str | None]) -> bool:
    """Whether a row read back has every column, and numbers where numbers belong."""
    if None in row or None in row.values() or not row.get("stage"):
        return False
    try:
        int(row["epoch"] or ""), int(row["step"] or "")
        _ = [float(text) for name, text in row.items() if name != "stage" and text]
    except (KeyError, ValueError):
        return False
    return True
