"""Event files for TensorBoard in `OUT/NAME/tensorboard/STAGE`: `tensorboard --logdir OUT/NAME/tensorboard`.

Each stage counts its own steps, so each has a folder of its own, which TensorBoard shows as a run.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from options.display_options import DisplayOptions
from training.log.follower import LEARNING_RATE, RATE, Values
from training.log.loss_log import VALIDATION
from util.errors import UserError

FOLDER_NAME = "tensorboard"  # in the run folder
EVENT_FILES = "events.out.tfevents.*"
PACE = (RATE, LEARNING_RATE)


def require_tensorboard(options: DisplayOptions) -> None:
    """Raise UserError if --tensorboard is given and the package is not installed; its import takes seconds."""
    if not options.tensorboard:
        return
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs the package tensorboard; install it with: pip install tensorboard")
    try:
        importlib.import_module("torch.utils.tensorboard")
    except Exception as error:  # of whatever it imports
        raise UserError(
            f"--tensorboard needs the package tensorboard, which cannot be imported: {type(error).__name__}: {error}"
        ) from error


class TensorBoard:
    """Writes every row of the loss log, and the sample images; each row is on disk when `row` returns.

    A run that goes on takes its files up: what they hold beyond the step that it goes on from is declared void, and
    stages that have no files yet, because the option was not given before, get the rows of loss_log.csv.

    Raises:
        UserError: TensorBoard is not installed.
    """

    name = "TensorBoard"

    def __init__(self, options: DisplayOptions, run_dir: Path) -> None:
        require_tensorboard(options)
        self._folder = run_dir / FOLDER_NAME
        self._writers: dict[str, Any] = {}
        self._continued = False

    def resume(self, rows: Sequence[Values], stage: str, step: int) -> None:
        """Go on from `step` of `stage`."""
        self._continued = True
        stages = dict.fromkeys([*(row.stage for row in rows), stage])
        for folder in self._folder.glob("*"):
            if folder.name not in stages:
                _remove_events(folder)
        for name in stages:
            if not any((self._folder / name).glob(EVENT_FILES)):
                for row in rows:
                    if row.stage == name:
                        self._add(row)
            elif name == stage:
                self._writers[stage] = self._open(stage, purge_step=step + 1)
        for writer in self._writers.values():
            writer.flush()

    def stage(self, name: str, n_steps: int) -> None:
        """A stage begins; with the first one of a new run the files of an earlier run of its name go."""
        if not self._continued:
            for folder in self._folder.glob("*"):
                _remove_events(folder)
        self._continued = True

    def row(self, row: Values) -> None:
        """Write a row. Raises OSError; the next row then begins a new file."""
        try:
            self._add(row)
            self._writers[row.stage].flush()
        except Exception:
            self._writers.pop(row.stage, None)
            raise

    def images(self, stage: str, epoch: int, step: int, columns: Mapping[str, np.ndarray]) -> None:
        """Write sample images, (H, W) uint8 by label."""
        writer = self._writer(stage)
        for label, image in columns.items():
            writer.add_image(f"samples/{label}", image, step, dataformats="HW")

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()

    def _add(self, row: Values) -> None:
        writer = self._writer(row.stage)
        for name, value in row.values.items():
            group = "pace" if name in PACE else "validation" if name.startswith(VALIDATION) else "loss"
            writer.add_scalar(f"{group}/{name}", value, row.step)

    def _writer(self, stage: str) -> Any:
        if stage not in self._writers:
            self._writers[stage] = self._open(stage)
        return self._writers[stage]

    def _open(self, stage: str, purge_step: int | None = None) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # imported here: optional and slow

        return SummaryWriter(str(self._folder / stage), purge_step=purge_step)


def _remove_events(folder: Path) -> None:
    for path in folder.glob(EVENT_FILES):
        path.unlink()
    with suppress(OSError):  # it holds files that are not ours
        folder.rmdir()
