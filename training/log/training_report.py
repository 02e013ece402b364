"""`web/index.html`: the state of a run on one page, which needs no server and no network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dominate import tags

from training.log.loss_log import FIXED, LossLog
from training.log.sample_images import Sample, SampleImages
from training.log.training_curves import draw_curves
from util.files import replace_text
from util.html_page import new_page

REPORT_NAME = "web/index.html"  # in the run folder
REFRESH_S = 60  # interval at which an open page reloads while the run continues
EARLIER_SHOWN = 40  # earlier pictures of a stage on the page; all files are kept
MAIN_OPTIONS = (
    *("model", "dataset_mode", "dataroot", "netG", "netD", "load_size", "crop_size", "preprocess", "batch_size"),
    *("n_epochs", "n_epochs_decay", "lr", "gan_mode", "loss_preset", "sgp_match", "amp", "direction"),
)


@dataclass(frozen=True)
class Status:
    """The state of the run, `running` or `ended`, its stage, and the stage's current and total steps."""

    state: str
    stage: str
    step: int
    n_steps: int


class TrainingReport:
    """The page of one run; each time it is written, only curves of stages with new rows are redrawn.

    Args:
        n_columns: number of sample images side by side.
    """

    def __init__(self, run_dir: Path, log: LossLog, samples: SampleImages, n_columns: int) -> None:
        self._run_dir, self._web = run_dir, run_dir / "web"
        self._log, self._samples, self._n_columns = log, samples, n_columns
        self._drawn: dict[str, int] = {}  # stage -> number of rows in its figure

    def write(self, status: Status) -> None:
        """Write the page, with options and versions if their files are in the run folder. Raises OSError."""
        self._web.mkdir(parents=True, exist_ok=True)
        page = new_page(f"{self._run_dir.name}: training report")
        if status.state == "running":
            with page.head:
                tags.meta(http_equiv="refresh", content=str(REFRESH_S))
        with page, tags.main():
            tags.h1(self._run_dir.name)
            tags.p(f"Training report, {status.state}, {datetime.now():%Y-%m-%d %H:%M}", cls="sub")
            _tiles(self._log, status)
            for stage in reversed(_stages(self._log, self._samples)):
                with tags.section():
                    self._stage(stage)
            _settings(self._run_dir)
            tags.footer("Curves: thin as logged, thick smoothed; numbers: the last values. Not for diagnosis.")
        with replace_text(self._run_dir / REPORT_NAME) as file:
            file.write(page.render())

    def _stage(self, stage: str) -> None:
        """Newest pictures, curves, and earlier pictures in a collapsed section."""
        rows = [row for row in self._log.rows if row["stage"] == stage]
        samples = [sample for sample in self._samples.samples if sample.stage == stage]
        tags.h2(f"Stage {stage}")
        if rows:
            took = float(rows[-1]["seconds"]) - float(rows[0]["seconds"])
            tags.p(f"Steps {rows[0]['step']} to {rows[-1]['step']}, {len(rows)} rows, {duration(took)}", cls="sub")
        if samples:
            tags.p(f"Samples of epoch {samples[-1].epoch}, step {samples[-1].step:,}", cls="sub")
            _pictures(samples[-1], self._n_columns)
        if rows:
            self._curves(stage, len(rows))
        earlier = samples[-2 : -2 - EARLIER_SHOWN : -1]
        if earlier:
            with tags.details():
                tags.summary(f"Earlier samples ({len(earlier)}), newest first")
                for sample in earlier:
                    with tags.details():
                        tags.summary(f"epoch {sample.epoch}, step {sample.step:,}")
                        _pictures(sample, self._n_columns)

    def _curves(self, stage: str, n_rows: int) -> None:
        if self._drawn.get(stage) != n_rows:
            draw_curves(self._web / "curves" / f"{stage}.svg", self._log, stage)
            self._drawn[stage] = n_rows
        # the query makes a browser that reloads the page fetch the new figure
        tags.img(src=f"curves/{stage}.svg?{n_rows}", cls="curves", alt=f"losses of stage {stage}")


def _stages(log: LossLog, samples: SampleImages) -> list[str]:
    return list(dict.fromkeys([*log.stages, *(sample.stage for sample in samples.samples)]))


def _tiles(log: LossLog, status: Status) -> None:
    last = next((row for row in reversed(log.rows) if row["images_per_s"]), dict.fromkeys(FIXED, ""))
    done = f"{100 * status.step / status.n_steps:.0f} %" if status.n_steps else "-"
    values = {
        "stage": status.stage or "-",
        "epoch": last["epoch"] or "-",
        "step": f"{status.step:,} / {status.n_steps:,}",
        "of this stage": done,
        "images per second": last["images_per_s"] or "-",
        "training time": duration(log.seconds),
    }
    with tags.div(cls="tiles"):
        for name, value in values.items():
            with tags.div(cls="tile"):
                tags.b(value)
                tags.span(name)


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `12 min` or `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _pictures(sample: Sample, n_columns: int) -> None:
    """Labelled columns of images in bands of `n_columns`, side by side if the page is wide enough."""
    with tags.div(cls="samples"):
        pictures = list(sample.files.items())
        for start in range(0, len(pictures), n_columns):
            band = pictures[start : start + n_columns]
            across = len(band)
            columns = f"grid-template-columns: repeat({across}, 1fr)"
            with tags.div(cls="band", style=f"{columns}; flex: 1 1 {116 * across}px; max-width: {160 * across}px"):
                for label, file in band:
                    with tags.figure():
                        tags.figcaption(label)
                        tags.a(tags.img(src=file, alt=label, loading="lazy"), href=file)


def _settings(run_dir: Path) -> None:
    """The run's main options, machine and versions, and all options in a collapsed section."""
    options = dict(_flat(_read(run_dir / "options.json")))
    info = _read(run_dir / "run.json")
    command = shlex.join(info.pop("command", []))
    info.pop("resumed", None)
    run = dict(_flat(info))
    if not options and not run:
        return
    with tags.section():
        tags.h2("Run")
        with tags.div(cls="options"):
            _table({name: options[name] for name in MAIN_OPTIONS if name in options})
            _table(run)
        if command:
            tags.p("Command", cls="sub", style="margin: 10px 0 0")
            tags.code(command)
        if options:
            with tags.details():
                tags.summary(f"All {len(options)} options")
                _table(dict(sorted(options.items())))


def _table(values: Mapping[str, str]) -> None:
    with tags.table(), tags.tbody():
        for name, value in values.items():
            with tags.tr():
                tags.td(name)
                tags.td(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _flat(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, text) of every value in nested groups; lists are joined, null becomes none."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value)
        elif isinstance(value, list):
            yield name, " ".join(map(str, value))
        else:
            yield name, "none" if value is None else str(value)
