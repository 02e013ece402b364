"""The terminal output of a training run, and `log.txt`, which records it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from util.errors import printable

LINE_SECONDS = 5.0  # without a terminal, at most one loss line per this time is printed


class _Bar(Progress):
    """The progress bar of a stage, with its latest losses on the line below."""

    losses = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.losses:
            yield Text(self.losses, style="dim")


class ConsoleLog:
    """An animated bar in a terminal, plain lines elsewhere (CI, a redirected file), nothing if `visible` is False.

    Notes and loss lines are also written to `log_file`; if it cannot be written, a single warning is printed.
    """

    def __init__(self, log_file: Path, visible: bool = True) -> None:
        self._console = Console(quiet=not visible, highlight=False)
        self._animated = visible and sys.stdout.isatty() and not self._console.is_dumb_terminal
        self._log_file: Path | None = log_file
        self._bar: _Bar | None = None
        self._stage, self._n_steps = "", 0
        self._last_line, self._held = -LINE_SECONDS, ""

    def stage(self, name: str, n_steps: int, first_step: int) -> None:
        """Begin a stage of `n_steps` steps, `first_step` of which were done earlier."""
        self.close()
        self._stage, self._n_steps = name, n_steps
        self._last_line = -LINE_SECONDS
        if not self._animated:
            self.note(f"{name}: {n_steps - first_step} steps")
            return
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = _Bar(*columns, console=self._console, refresh_per_second=2)
        self._bar.add_task(name, total=n_steps, completed=first_step, rate="")
        self._bar.start()

    def advance(self) -> None:
        """Count one completed step."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    def losses(self, epoch: int, step: int, images_per_s: float, losses: Mapping[str, float]) -> None:
        """Show one row of the loss log."""
        values = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        line = f"{self._stage}  epoch {epoch}  step {step}/{self._n_steps}  {images_per_s:.3g} images/s  {values}"
        self._write(line)
        if self._bar is not None:
            self._bar.losses = f"epoch {epoch}  {values}"
            self._bar.update(self._bar.task_ids[0], rate=f"{images_per_s:.3g} images/s")
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line, self._held = time.monotonic(), ""
            self._console.print(line, markup=False, soft_wrap=True)
        else:
            self._held = line

    def note(self, text: str, style: str = "") -> None:
        """Print a line above the bar and write it to the log file; what no file can hold in its paths is escaped."""
        text = printable(text)
        self._console.print(text, style=style, markup=False, soft_wrap=True)
        self._write(text)

    def _write(self, text: str) -> None:
        if self._log_file is None:
            return
        try:
            with self._log_file.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")
        except OSError as error:
            path, self._log_file = self._log_file, None
            warning = f"warning: cannot write {path} ({error}); training continues"
            self._console.print(warning, style="yellow", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the bar and leave it on the screen; without a bar, print the stage's last row if it was not printed."""
        if self._held:
            self._console.print(self._held, markup=False, soft_wrap=True)
            self._held = ""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
