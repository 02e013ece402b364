"""The log of a run: terminal, loss_log.csv, training report, dashboard and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from torch import Tensor

from options.display_options import DisplayOptions
from training.log.console_log import ConsoleLog
from training.log.dashboard import Dashboard
from training.log.follower import LEARNING_RATE, RATE, Follower, Values, values_of
from training.log.loss_log import LOSS_LOG_NAME, VALIDATION, LossLog
from training.log.sample_images import SampleImages, column
from training.log.stage_time import StageTime
from training.log.status import ENDED, FAILED, RUNNING, STOPPED, Status
from training.log.tensorboard_log import TensorBoard
from training.log.training_report import REFRESH_S, TrainingReport
from util.errors import UserError

REPORT_FRACTION = 0.005  # largest fraction of the training time spent on writing the report
PICTURE_FRACTION = 0.005  # and on pictures for the dashboard and TensorBoard


class RunLog:
    """Log of one run. Only the first process of a distributed run has one.

    No problem with a file, a picture or the dashboard stops training; its first occurrence gives a warning.

        log = RunLog(run_dir, display)
        log.stage("gan", n_steps)
        for batch in loader:
            losses = stage.step(batch, context)
            log.advance(len(batch))
            if log.losses_due():
                log.losses(epoch, step, {name: float(value) for name, value in losses.items()})
            if log.images_due():
                log.images(epoch, step, stage.visuals(batch))
        log.close()

    Args:
        run_dir: the existing run folder; its name is the name of the run.
        console: False for a silent run.
    Raises:
        UserError: the dashboard or TensorBoard is enabled and not installed.
    """

    def __init__(self, run_dir: Path, display: DisplayOptions, console: bool = True) -> None:
        self._display = display
        self._console = ConsoleLog(run_dir / "log.txt", console)
        self._failed: set[str] = set()
        self._loss_log = LossLog(run_dir / LOSS_LOG_NAME)
        self._samples = SampleImages(run_dir / "web")
        self._report = TrainingReport(run_dir, self._samples, display.display_ncols)
        self._report_time, self._report_cost = float("-inf"), 0.0
        self._followers: list[Follower] = []
        if display.display_id > 0:
            self._followers.append(Dashboard(display, run_dir, self.warn))
        if display.tensorboard:
            self._followers.append(TensorBoard(display, run_dir))
        self._stage, self._n_steps, self._step = "", 0, 0
        self._later: tuple[str, ...] = ()
        self._end, self._reason = ENDED, ""  # how the run has ended once it is closed
        self._time = StageTime("", 0)
        self._seen = 0  # images, in this stage
        self._row_seen, self._html_seen, self._picture_seen = 0, 0, 0  # images seen at the last row, picture, ...
        self._picture_asked = self._picture_time = self._picture_cost = 0.0
        self._time_before = 0.0
        self._start = self._row_time = time.monotonic()

    def resume(self, stage: str, step: int) -> None:
        """Continue the logs of an earlier run from `step` of `stage`; otherwise logs start empty."""
        with self._attempt("read the earlier run's logs"):
            self._loss_log.resume(stage, step)
            self._samples.resume(stage, step)
        self._time_before = self._loss_log.seconds
        rows = [values_of(row) for row in self._loss_log.rows]
        with self._attempt("draw the training report"):
            for row in rows:
                self._report.add(row)
        self._tell("resume", lambda follower: follower.resume(rows, stage, step))

    def stage(self, name: str, n_steps: int, first_step: int = 0, later: Sequence[str] = ()) -> None:
        """Begin a stage (sgp, lsc, gan, refine) of `n_steps` steps, `first_step` of which were done before a resume.

        Args: later: the stages that come after it.
        """
        self._time = StageTime(name, n_steps, later)
        self._stage, self._n_steps, self._step, self._later = name, n_steps, first_step, tuple(later)
        self._seen = 0
        self._row_seen, self._html_seen, self._picture_seen = -1, -1, -1  # the first step's row and pictures are due
        self._row_time = time.monotonic()
        self._console.stage(name, n_steps, first_step)
        self._tell("begin a stage", lambda follower: follower.stage(name, n_steps))
        self._report_if_cheap()

    def advance(self, n_images: int) -> None:
        """Count a training step with `n_images` images. Call it after every step; it does not wait for the device."""
        self._seen += n_images
        self._step += 1
        self._console.advance()

    def losses_due(self, last: bool = False) -> bool:
        """Whether --print_freq images or --log_seconds have passed since the last row.

        Args: last: the stage ends with this step, whose row is due unless it is there.
        """
        waited = time.monotonic() - self._row_time
        first, new = self._row_seen < 0, self._seen - self._row_seen
        return first or new >= self._display.print_freq or waited >= self._display.log_seconds or (last and new > 0)

    def losses(self, epoch: int, step: int, losses: Mapping[str, float], lr: float | None = None) -> None:
        """Write one row of losses, non-finite values included: the trainer decides whether to stop.

        Args: lr: the learning rate of the step.
        """
        now = time.monotonic()
        rate = (self._seen - max(self._row_seen, 0)) / max(now - self._row_time, 1e-9)
        self._row_seen, self._row_time = self._seen, now
        self._add_row(epoch, step, rate, losses, lr)
        self._console.losses(epoch, step, rate, losses)
        if sentence := self._time.sentence(now, step, self._time_before + now - self._start):
            self.note(sentence)
        if now - self._report_time >= REFRESH_S:
            self._report_if_cheap()

    def validation(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Write one row of a stage's figures at the end of an epoch, as columns `val_NAME`."""
        named = {f"{VALIDATION}{name}": value for name, value in metrics.items()}
        self._add_row(epoch, step, None, named)
        self.note(f"validation, epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in named.items()))

    def _add_row(
        self, epoch: int, step: int, rate: float | None, values: Mapping[str, float], lr: float | None = None
    ) -> None:
        seconds = self._time_before + time.monotonic() - self._start
        with self._attempt(f"write {LOSS_LOG_NAME}"):
            self._loss_log.add(self._stage, epoch, step, images_per_s=rate, seconds=seconds, lr=lr, values=values)
        other = {name: value for name, value in ((RATE, rate), (LEARNING_RATE, lr)) if value is not None}
        row = Values(self._stage, epoch, step, {**values, **other})
        with self._attempt("draw the training report"):
            self._report.add(row)
        self._tell("add a row", lambda follower: follower.row(row))

    def _tell(self, action: str, call: Callable[[Follower], None]) -> None:
        for follower in self._followers:
            with self._attempt(f"{action} ({follower.name})"):
                call(follower)

    def _html_due(self, last: bool) -> bool:
        waiting = self._html_seen < 0 or self._seen - self._html_seen >= (1 if last else self._display.update_html_freq)
        return self._display.html and waiting

    def _followers_due(self, last: bool) -> bool:
        """Never so often that pictures would take more than PICTURE_FRACTION of the time."""
        new = self._seen - self._picture_seen
        rested = time.monotonic() - self._picture_time >= self._picture_cost / PICTURE_FRACTION
        due = self._picture_seen < 0 or (new > 0 if last else new >= self._display.display_freq and rested)
        return bool(self._followers) and due

    def images_due(self, last: bool = False) -> bool:
        """Whether sample images are due for the report (--update_html_freq) or the dashboard (--display_freq).

        Args: last: the stage ends with this step, whose images are due unless they are there.
        """
        self._picture_asked = time.monotonic()
        return self._html_due(last) or self._followers_due(last)

    def images(self, epoch: int, step: int, grid_rows: Mapping[str, Tensor], last: bool = False) -> None:
        """Show sample images in the report, the dashboard and TensorBoard, as due; in all if none is due.

        Args:
            grid_rows: label -> (N, 1, H, W) intensity in [-1, 1]; the first four of each are shown.
            last: as in `images_due`.
        """
        asked, due = self._picture_asked or time.monotonic(), self.images_due(last)
        self._picture_asked = 0.0
        to_html, to_followers = self._html_due(last) or not due, self._followers_due(last) or not due
        with self._attempt("draw sample images"):
            columns = {label: column(images) for label, images in grid_rows.items()}
            if to_followers:
                self._picture_seen = self._seen
                self._tell("show images", lambda follower: follower.images(self._stage, epoch, step, columns))
                self._picture_time = time.monotonic()
                self._picture_cost = self._picture_time - asked
            if to_html and self._display.html:
                self._html_seen = self._seen
                self._samples.save(self._stage, epoch, step, columns)
                self._report_if_cheap()

    def _report_if_cheap(self) -> None:
        if time.monotonic() - self._report_time >= self._report_cost / REPORT_FRACTION:
            self.report()

    def report(self) -> None:
        """Write web/index.html (nothing with --no_html)."""
        self._write_report(RUNNING)

    def _write_report(self, state: str) -> None:
        if not self._display.html:
            return
        start = time.monotonic()
        spent = self._time_before + start - self._start
        where = (self._stage, self._step, self._n_steps, self._later)
        status = Status(state, *where, seconds=spent, left=self._time.left(self._step), reason=self._reason)
        with self._attempt("write the training report"):
            self._report.write(status)
        self._report_time = time.monotonic()
        self._report_cost = self._report_time - start

    def note(self, *lines: str) -> None:
        """Write lines to the terminal and log.txt."""
        for line in lines:
            self._console.note(line)

    def warn(self, text: str) -> None:
        """Write a warning to the terminal and log.txt."""
        self._console.note(f"warning: {text}", style="yellow")
        self._report.warn(text)

    @contextmanager
    def _attempt(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # no error of the log may stop training
            if action not in self._failed:
                self._failed.add(action)
                self.warn(f"could not {action} ({type(error).__name__}: {error}); training continues")

    def end(self, lines: Sequence[str]) -> None:
        """Write the last lines of a run that is complete, below its last stage's bar or losses."""
        self._console.close()
        self.note(*lines)

    def stop(self, reason: str) -> None:
        """Note why a run that can be continued has stopped."""
        self._end, self._reason = STOPPED, reason
        self.note(reason)

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close, as an ExitStack calls it: the final report names the error that has ended the run, if one has."""
        if error is not None:
            text = str(error).partition("\n")[0]
            self._end, self._reason = (
                FAILED,
                text if isinstance(error, UserError) else f"{type(error).__name__}: {text}",
            )
        self.close()

    def close(self) -> None:
        """Write the final report, send pending contents to the dashboard (at most two seconds), stop the bar."""
        self._write_report(self._end)
        self._tell("end", lambda follower: follower.close())
        self._console.close()
