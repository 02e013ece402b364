"""`loss_log.csv`: one row per report, one column per loss, valid CSV at every moment."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from util.files import replace_text

LOSS_LOG_NAME = "loss_log.csv"
FIXED = ("stage", "epoch", "step", "images_per_s", "seconds", "lr")
VALIDATION = "val_"  # begins the columns of what is measured at the end of an epoch
RENAMED = {"val_val_p_error": "val_p_error", "val_val_psnr": "val_psnr", "ssim": "1-ssim"}  # in logs of before
Row = dict[str, str]
T = TypeVar("T")


def until(items: Sequence[T], position: Callable[[T], tuple[str, int]], stage: str, step: int) -> list[T]:
    """The `items` to keep in a run resumed at `step` of `stage`: all of earlier stages, and this stage up to `step`.

    Args: position: returns the (stage, step) of an item; items are in the order of logging.
    """
    stages = list(dict.fromkeys(position(item)[0] for item in items))
    earlier = stages[: stages.index(stage)] if stage in stages else stages
    positions = [position(item) for item in items]
    keep = [at in earlier or (at == stage and reached <= step) for at, reached in positions]
    return [item for item, kept in zip(items, keep, strict=True) if kept]


class LossLog:
    """The rows of a run, in memory and on disk.

    Stages have different losses, so the columns are the union of all seen so far. Rows without new columns are
    appended. A new column replaces the file atomically, as does the first row after a failed write, so that a disk
    that was full temporarily costs no rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self._columns = list(FIXED)
        self._on_disk = False  # whether the file holds exactly self.rows under self._columns

    def resume(self, stage: str, step: int) -> None:
        """Continue the file of an earlier run from `step` of `stage`; later rows and stages are dropped.

        Incomplete lines, as after a power failure, are dropped too. A missing file counts as empty. Columns that had
        other names then get those of now.
        """
        if not self.path.exists():
            return
        rows, self._columns = read_rows(self.path)
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
        lr: float | None = None,
        values: Mapping[str, float],
    ) -> None:
        """Add and write one row. Raises OSError if it cannot be written; it is then written with the next row."""
        rate = "" if images_per_s is None else f"{images_per_s:.4g}"
        fixed = (stage, str(epoch), str(step), rate, f"{seconds:.1f}", "" if lr is None else f"{lr:.4g}")
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
        """Training time in seconds at the last row."""
        return float(self.rows[-1]["seconds"]) if self.rows else 0.0

    @property
    def stages(self) -> list[str]:
        """Names of the stages in order."""
        return list(dict.fromkeys(row["stage"] for row in self.rows))

    def names(self, stage: str) -> list[str]:
        """Names of the losses of `stage`, in the order of the columns."""
        seen = {name for row in self.rows if row["stage"] == stage for name, text in row.items() if text}
        return [name for name in self._columns if name in seen and name not in FIXED]

    def curve(self, stage: str, name: str, max_points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
        """One loss over a stage: (steps, values), each (n,) float64, n <= max_points; longer curves are averaged.

        Missing and non-finite values are left out.
        """
        pairs = [(float(row["step"]), float(row[name])) for row in self.rows if row["stage"] == stage and row.get(name)]
        points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        points = points[np.isfinite(points[:, 1])]
        if len(points) > max_points:
            points = np.stack([part.mean(axis=0) for part in np.array_split(points, max_points)])
        return points[:, 0], points[:, 1]


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """The complete rows of a log and its columns, under their present names. Raises OSError."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [{RENAMED.get(name, name): text for name, text in row.items()} for row in reader if _complete(row)]
        return rows, list(dict.fromkeys([*FIXED, *(RENAMED.get(name, name) for name in reader.fieldnames or ())]))


def _complete(row: Mapping[str | None, str | None]) -> bool:
    """Whether a row has all columns, and numbers in all but the stage's."""
    if None in row or None in row.values() or not row.get("stage"):
        return False
    try:
        int(row["epoch"] or ""), int(row["step"] or "")
        _ = [float(text) for name, text in row.items() if name != "stage" and text]
    except (KeyError, ValueError):
        return False
    return True
