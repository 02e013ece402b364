"""`web/index.html`: the state of a run on one page, which needs no server and no network.

First where the run is, then curves, sample images over time, and last options, command and paths. While the run goes on
an open page reads `web/live.js` every REFRESH_S seconds and changes what is new, so that it never flickers or jumps.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dominate import document, tags
from dominate.util import raw

from training.log.curve_store import Curves
from training.log.follower import Values
from training.log.sample_images import Sample, SampleImages
from training.log.status import RUNNING, StageSoFar, Status, duration, verdict
from training.log.training_curves import plots, write_sheet
from util.files import replace_text
from util.html_page import json_in_script, link, new_page, script, script_data, shown

HERE = Path(__file__).parent
REPORT_NAME = "web/index.html"  # in the run folder
LIVE_NAME = "live.js"  # in web/: what an open page reads
REFRESH_S = 60  # interval at which it does
PATIENCE_S = 600  # without news after which a page says that the training may be dead, at least
PATIENCE = 5  # longest pauses so far after which it says so
WARNINGS_SHOWN = 5
LEGEND = "Thin: as logged, thick: smoothed; blue: domain A, red: B, green: validation. The number is the last value."
MAIN_OPTIONS = (
    *("model", "dataset_mode", "dataroot", "netG", "netD", "load_size", "crop_size", "preprocess", "batch_size"),
    *("n_epochs", "n_epochs_decay", "lr", "gan_mode", "loss_preset", "sgp_match", "amp", "direction"),
)
FILES = {  # beside or below the page
    "../loss_log.csv": "all numbers of the curves",
    "../log.txt": "everything that was printed",
    "../options.json": "all options",
    "../run.json": "command, seed, data, device, versions",
    "curves/": "each stage's curves as SVG",
    "images/": "the sample images",
}


class TrainingReport:
    """The page of one run. Its size and the time to write it hardly depend on how long the run has been.

    Args:
        n_columns: number of sample images side by side.
    """

    def __init__(self, run_dir: Path, samples: SampleImages, n_columns: int) -> None:
        self._run_dir, self._web = run_dir, run_dir / "web"
        self._samples, self._n_columns = samples, n_columns
        self._curves = Curves()
        self._stages: dict[str, StageSoFar] = {}
        self._plots: dict[str, list[str]] = {}  # stage -> its plots, as far as they are drawn
        self._warnings: list[str] = []
        self._begun: float | None = None  # when the page was last written
        self._longest = 0.0  # seconds between two pages

    def add(self, row: Values) -> None:
        """Add a row of the loss log."""
        self._curves.add(row)
        self._stages.setdefault(row.stage, StageSoFar()).add(row)
        self._plots.pop(row.stage, None)

    def warn(self, text: str) -> None:
        """Show a warning; only the last ones stay."""
        self._warnings = [*self._warnings, text][-WARNINGS_SHOWN:]

    def write(self, status: Status) -> None:
        """Write the page, with options and versions if their files are in the run folder. Raises OSError."""
        self._web.mkdir(parents=True, exist_ok=True)
        now = time.time()
        self._longest = max(self._longest, 0.0 if self._begun is None else now - self._begun)
        self._begun = now
        head, curves = tags.div(id="head"), tags.div(id="curves")
        self._head(head, status)
        self._all_curves(curves, status)
        parts = {part["id"]: part.render(pretty=False) for part in (head, curves)}
        data = {
            "state": status.state,
            "written": round(now * 1000),
            "patience": max(PATIENCE_S, PATIENCE * self._longest),
            "samples": [[s.stage, s.epoch, s.step, s.files, s.size] for s in self._samples.samples],
        }
        with replace_text(self._run_dir / REPORT_NAME) as file:
            file.write(self._page(head, curves, data, status).render(pretty=False))
        with replace_text(self._web / LIVE_NAME) as file:
            file.write(f"ptaLive({json_in_script({**data, 'parts': parts})});\n")
        self._samples.tidy()

    def _page(self, head: tags.div, curves: tags.div, data: Mapping[str, Any], status: Status) -> document:
        page = new_page(shown(f"{self._run_dir.name}: training report"))
        if status.state == RUNNING:
            with page.head, tags.noscript():
                tags.meta(http_equiv="refresh", content=str(REFRESH_S))
        with page, tags.main():
            tags.h1(shown(self._run_dir.name))
            tags.div(head, curves)
            if self._samples.samples:
                _timeline(self._samples.samples, self._n_columns)
            _settings(self._run_dir)
            _paths(self._run_dir)
            tags.footer("For research only, not for diagnosis.")
            settings = {"refresh": REFRESH_S, "columns": self._n_columns, "live": LIVE_NAME}
            script_data("report-data", {**data, **settings})
            script(HERE / "report.js")
        return page

    def _head(self, head: tags.div, status: Status) -> None:
        """The verdict, how old the page is, how far the stage is, and the run's last warnings."""
        so_far = self._stages.get(status.stage, StageSoFar())
        with head:
            with tags.p(cls="sub"):
                tags.span(f"Training report, {status.state}, written {datetime.now():%Y-%m-%d %H:%M:%S}")
                tags.span(cls="age")
            tags.p(tags.b(shown(verdict(status, self._stages))), cls="verdict")
            tags.p(cls="alert", role="alert", hidden=True)
            if status.n_steps:
                tags.progress(value=str(status.step), max=str(status.n_steps), aria_label="steps of this stage")
            with tags.div(cls="tiles"):
                for name, value in _tiles(status, so_far).items():
                    with tags.div(cls="tile"):
                        tags.b(value)
                        tags.span(name)
            for text in self._warnings:
                tags.p(f"Warning: {shown(text)}", cls="sub")

    def _all_curves(self, curves: tags.div, status: Status) -> None:
        """Every stage's curves, the newest first and open."""
        if not self._plots:  # the first page of this process: curves of stages that an earlier run has left
            for path in (self._web / "curves").glob("*.svg"):
                if path.stem not in self._curves.stages:
                    path.unlink()
        for place, stage in enumerate(reversed(self._curves.stages)):
            if stage not in self._plots:
                self._plots[stage] = [plot.render(pretty=False) for plot in plots(self._curves.of(stage))]
                write_sheet(self._web / "curves" / f"{stage}.svg", self._plots[stage])
            with curves, tags.section(), tags.details(id=f"stage-{stage}", **({"open": True} if place == 0 else {})):
                so_far = self._stages[stage]
                with tags.summary():
                    tags.h2(f"Losses of stage {stage}")
                tags.p(f"Steps {so_far.first_step:,} to {so_far.step:,}. {LEGEND}", cls="sub")
                with tags.div(cls="curves"):
                    for plot in self._plots[stage]:
                        raw(plot)


def _tiles(status: Status, so_far: StageSoFar) -> dict[str, str]:
    return {
        "stage": status.stage or "-",
        "epoch": str(so_far.epoch) if so_far.epoch else "-",
        "of this stage": f"{100 * status.step // status.n_steps} %" if status.n_steps else "-",
        "left in this stage": "-" if status.left is None or status.state != RUNNING else duration(status.left),
        "images per second": "-" if so_far.rate is None else f"{so_far.rate:.3g}",
        "training time": duration(status.seconds),
    }


def _timeline(samples: Sequence[Sample], n_columns: int) -> None:
    """The newest pictures; report.js lets one go back to the first."""
    newest = samples[-1]
    with tags.section(id="samples", aria_label="sample images over time"):
        tags.h2("Samples over time")
        tags.p(f"Stage {newest.stage}, epoch {newest.epoch}, step {newest.step:,}", cls="where", aria_live="polite")
        tags.noscript("Without JavaScript only the newest are shown; the folder images/ has the earlier ones.")
        with tags.div(cls="controls"):
            with tags.label("stage "), tags.select(cls="stage-choice"):
                for stage in dict.fromkeys(sample.stage for sample in samples):
                    tags.option(stage, value=stage, **({"selected": True} if stage == newest.stage else {}))
            tags.button("←", type="button", cls="earlier", aria_label="earlier samples")
            with tags.label("time ", cls="long"):
                tags.input_(type="range", cls="time", min="0", max="0", value="0", step="1")
            tags.button("→", type="button", cls="later", aria_label="later samples")
            tags.button("newest", type="button", cls="newest")
        with tags.div(cls="samples"):
            _pictures(newest, n_columns)
        with tags.p(cls="sub screen"):
            tags.span("Keys: ")
            for key, what in {"← →": "earlier and later", "Home, End": "first and newest"}.items():
                tags.kbd(key)
                tags.span(f" {what}; ")
            tags.span("the newest follow the training until the slider is moved.")


def _pictures(sample: Sample, n_columns: int) -> None:
    """Labelled columns of images in bands of `n_columns`, side by side if the page is wide enough. As in report.js."""
    pictures = list(sample.files.items())
    for start in range(0, len(pictures), n_columns):
        band = pictures[start : start + n_columns]
        across = len(band)
        columns = f"grid-template-columns: repeat({across}, 1fr)"
        with tags.div(cls="band", style=f"{columns}; flex: 1 1 {116 * across}px; max-width: {160 * across}px"):
            for label, file in band:
                with tags.figure():
                    tags.figcaption(shown(label))
                    alt = f"{shown(label)}, stage {sample.stage}, step {sample.step:,}"
                    room = dict(
                        zip(("width", "height"), map(str, sample.size), strict=False)
                    )  # kept until it is loaded
                    tags.a(tags.img(src=link(file), alt=alt, loading="lazy", **room), href=link(file))


def _settings(run_dir: Path) -> None:
    """The run's command, main options, machine and versions, and all options in a collapsed section."""
    options = dict(_flat(_read(run_dir / "options.json")))
    info = _read(run_dir / "run.json")
    command = info.pop("command", [])
    info.pop("resumed", None)
    run = dict(_flat(info))
    if not options and not run:
        return
    with tags.section():
        tags.h2("How it is trained")
        if command:
            tags.p(tags.code(shown(shlex.join(map(str, command)))))
        with tags.div(cls="options"):
            _table({name: options[name] for name in MAIN_OPTIONS if name in options})
            _table(run)
        if options:
            with tags.details(id="all-options"):
                tags.summary(f"All {len(options)} options")
                _table(dict(sorted(options.items())))


def _paths(run_dir: Path) -> None:
    with tags.section():
        tags.h2("Where things are")
        tags.p(f"Run folder: {shown(str(run_dir))}")
        with tags.table(cls="words"), tags.tbody():
            for path, what in FILES.items():
                with tags.tr():
                    tags.td(tags.a(path.removeprefix("../"), href=path))
                    tags.td(what)


def _table(values: Mapping[str, str]) -> None:
    with tags.table(), tags.tbody():
        for name, value in values.items():
            with tags.tr():
                tags.td(shown(name))
                tags.td(shown(value))


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
