"""`index.html`: the test's results on one page, which needs no server and no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dominate import tags

from evaluation.level_error import ROWS as LEVEL_ROWS
from evaluation.paired import HIGHER_IS_BETTER
from evaluation.paired import MEASURES as PAIRED_MEASURES
from evaluation.people import DIFFERENCE, OPPONENT, OURS, PERSON_MEASURES
from evaluation.pictures import ERROR_RANGE, KINDS, picture_name
from evaluation.record import Record
from evaluation.unpaired import MEASURES as UNPAIRED_MEASURES
from util.html_page import new_page

OPEN_ROWS = 40  # people; longer tables are collapsed
EXAMPLES = 4  # subjects whose middle slice is shown at the top
EXTRA_STYLE = """
table.numbers { font-variant-numeric: tabular-nums } th { font-weight: 600; color: #64707d; font-size: 13px }
table.numbers td, table.numbers th { text-align: right; padding: 4px 16px 4px 0 }
table.numbers td:first-child, table.numbers th:first-child { text-align: left }
tr.ours td { font-weight: 600 } small { color: #64707d; font-weight: 400; display: block } td.best { color: #14713d }
.strip { display: grid; gap: 6px; background: #0d1013; padding: 10px; border-radius: 8px; margin-bottom: 6px }
.strip img { width: 100%; max-width: none; image-rendering: auto } .scale { color: #64707d; font-size: 13px }
"""
CAPTIONS = {
    "real_A": "real_A: low field, as the model sees it",
    "fake_B": "fake_B: synthesised",
    "truth": "truth: high field",
    "error": "error: fake_B - truth",
}
ROW_NAMES = {
    "fake_B": "fake_B (this model)",
    "real_B": "real_B (real against real)",
    "identity": "identity (input itself)",
    "histogram": "histogram (matched to trainB)",
    "classical": "classical (denoised, mapped, sharpened)",
    "sgp": "SGP",
    "same_p": "same relative level p",
    "same_index": "same slice index",
    "random": "random",
    "thumbnail": "24x24 thumbnails",
}
LEVEL_COLUMNS = ("median", "p95")
LSC_ROWS = {
    "restored": "restored by LSC",
    "solver": "untrained solver, then biharmonic filling",
    "best_filter": "untrained solver, then the best filling",
    "corrupted": "corrupted, input of LSC",
    "restored_train": "restored by LSC, training slices",
}


def write_report(
    path: Path,
    record: Record,
    *,
    title: str,
    facts: Mapping[str, str],
    stems: Mapping[str, Sequence[str]],
    definitions: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        path: that of `index.html`; pictures are in `images/` beside it.
        record: all measures, and reasons for missing ones.
        facts: name -> text for run, model and data.
        stems: file-name stems of each subject's slices, in the order of the volume; empty if nothing was synthesised.
        definitions: measure -> definition.
    """
    page = new_page(title, EXTRA_STYLE)
    with page, tags.main():
        tags.h1(title)
        tags.p(f"Test report, {datetime.now():%Y-%m-%d %H:%M}", cls="sub")
        if record.tree.get("verdict"):
            tags.p(tags.b(record.tree["verdict"]))
        _facts(facts)
        _pictures(path.parent / "images", stems)
        _paired(record)
        _by_person(record)
        _unpaired(record)
        _levels(record)
        _restoration(record)
        _explanations(record, definitions)
        tags.footer("For research only, not for diagnosis.")
    path.write_text(page.render(), encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8


def _facts(facts: Mapping[str, str]) -> None:
    with tags.section(), tags.table(), tags.tbody():
        for name, value in facts.items():
            with tags.tr():
                tags.td(name)
                tags.td(value)
        with tags.tr():
            tags.td("numbers")
            with tags.td():
                tags.a("metrics.json", href="metrics.json")
                tags.span(", per subject: ")
                tags.a("metrics.csv", href="metrics.csv")


def _pictures(images: Path, stems: Mapping[str, Sequence[str]]) -> None:
    """The middle slice of a few subjects, then all slices of every subject in collapsed sections."""
    if not stems:
        return
    with tags.section():
        tags.h2("Slices")
        tags.p(
            "Grey scale from 0 to 1. Error: black is none, red to yellow too bright, blue to cyan too dark; "
            f"yellow and cyan mean {ERROR_RANGE} or more.",
            cls="scale",
        )
        for names in list(stems.values())[:EXAMPLES]:
            _strip(images, names[len(names) // 2])
        for subject, names in stems.items():
            with tags.details():
                tags.summary(f"all {len(names)} slices of {subject}")
                for stem in names:
                    _strip(images, stem)


def _strip(images: Path, stem: str) -> None:
    """One slice's pictures side by side."""
    kinds = [kind for kind in KINDS if (images / picture_name(stem, kind)).is_file()]
    with tags.div(cls="strip", style=f"grid-template-columns: repeat({len(kinds)}, minmax(0, 250px))"):
        for kind in kinds:
            with tags.figure():
                tags.img(src=f"images/{quote(picture_name(stem, kind))}", alt=f"{stem}, {kind}", loading="lazy")
                tags.figcaption(CAPTIONS[kind])


def _missing(record: Record, section: str) -> bool:
    """Whether a section is missing; if so, print the reason."""
    if record.tree.get(section) is not None:
        return False
    tags.p(f"Not measured: {record.reason(section)}.", cls="sub")
    return True


def _grid(columns: Sequence[str], rows: Sequence[str], cell: Callable[[str, str], None]) -> None:
    """A table of numbers; `cell(row, column)` adds the content of one `td`."""
    with tags.table(cls="numbers"):
        with tags.thead(), tags.tr():
            tags.th("")
            for column in columns:
                tags.th(column)
        with tags.tbody():
            for row in rows:
                with tags.tr(cls="ours" if row in ("fake_B", "sgp", "restored") else ""):
                    tags.td(ROW_NAMES.get(row, LSC_ROWS.get(row, row)))
                    for column in columns:
                        cell(row, column)


def number(value: float | None) -> str:
    """Four significant digits, or a dash for a null, whose reason is given below the tables."""
    return "-" if value is None else f"{value:#.4g}"


def _paired(record: Record) -> None:
    with tags.section():
        tags.h2("Against the truth")
        if _missing(record, "paired"):
            return
        rows: dict[str, Any] = record.tree["paired"]
        columns = [name for name in PAIRED_MEASURES if any(_mean(rows, row, name) is not None for row in rows)]

        def cell(row: str, column: str) -> None:
            means = [mean for other in rows if (mean := _mean(rows, other, column)) is not None]
            mean = _mean(rows, row, column)
            best = mean is not None and mean == (max(means) if HIGHER_IS_BETTER[column] else min(means))
            interval = rows[row][column]["ci95"] if mean is not None else None
            with tags.td(number(mean), cls="best" if best else ""):
                if interval is not None:
                    tags.small(f"{number(interval[0])} to {number(interval[1])}")

        _grid(columns, list(rows), cell)
        tags.p("Mean over subjects, with its 95 % interval below; best value of each column in green.", cls="sub")


def _by_person(record: Record) -> None:
    """fake_B, and how much better it is than `classical`, for each person."""
    apart = record.tree.get("by_person")
    if apart is None:
        return
    people: dict[str, Any] = apart["people"]
    kinds = (OURS, DIFFERENCE)
    columns = {f"{measure}: {kind}": (measure, kind) for measure in PERSON_MEASURES for kind in kinds}
    columns = {
        name: (measure, kind)
        for name, (measure, kind) in columns.items()
        if any(kind in found.get(measure, {}) for found in people.values())
    }

    def cell(person: str, column: str) -> None:
        measure, kind = columns[column]
        value = people[person].get(measure, {}).get(kind)
        tags.td("-" if value is None else f"{value:+.3g}" if kind == DIFFERENCE else number(value))

    with tags.section():
        tags.h2("Person by person")
        with tags.details(**({"open": True} if len(people) <= OPEN_ROWS else {})):
            tags.summary(f"{apart['n_people']} people; above 0 fake_B is better than {OPPONENT}")
            _grid(list(columns), list(people), cell)


def _mean(rows: Mapping[str, Any], row: str, measure: str) -> float | None:
    entry = rows[row][measure]
    return None if entry is None else entry["mean"]


def _unpaired(record: Record) -> None:
    with tags.section():
        tags.h2("Against real high-field slices as a set")
        if _missing(record, "unpaired"):
            return
        rows = record.tree["unpaired"]
        columns = [name for name in UNPAIRED_MEASURES if any(rows[row][name] is not None for row in rows)]
        _grid(columns or UNPAIRED_MEASURES, list(rows), lambda row, column: _cell(rows[row][column]))
        tags.p(
            "Row real_B is what a perfect synthesis would reach; sd is the spread over draws. kd_slice tells anatomy "
            "rather than realism.",
            cls="sub",
        )


def _cell(value: float | None) -> None:
    tags.td(number(value))


def _levels(record: Record) -> None:
    with tags.section():
        tags.h2("SGP: distance in mm between a slice and its match")
        if not _missing(record, "sgp"):
            rows = record.tree["sgp"]["level_error_mm"]
            _grid(LEVEL_COLUMNS, LEVEL_ROWS, lambda row, column: _cell(rows[row][column]))


def _restoration(record: Record) -> None:
    with tags.section():
        tags.h2("LSC: restoration of corrupted slices")
        if not _missing(record, "lsc"):
            scores = record.tree["lsc"]["psnr"]
            _grid(("PSNR (dB)",), list(LSC_ROWS), lambda row, _column: _cell(scores[row]))


def _explanations(record: Record, definitions: Mapping[str, str]) -> None:
    for heading, texts in (("Definitions", definitions), ("Why a number is missing", record.why_null())):
        if texts:
            with tags.section():
                tags.h2(heading)
                with tags.table(), tags.tbody():
                    for name, text in texts.items():
                        with tags.tr():
                            tags.td(name)
                            tags.td(text)
