"""The tables of numbers of the results report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dominate import tags

from evaluation.level_error import ROWS as LEVEL_ROWS
from evaluation.page.words import LSC_ROWS, ROW_NAMES, higher_is_better, in_order, number, plain
from evaluation.people import DIFFERENCE, OPPONENT, OURS, PERSON_MEASURES
from evaluation.record import Record
from evaluation.unpaired import MEASURES as UNPAIRED_MEASURES
from util.html_page import shown

OPEN_ROWS = 40  # people; longer tables are collapsed
LEVEL_COLUMNS = ("median", "p95")
FIRST_COLUMNS = 6  # measures of the first table of `paired`; the others have a table of their own, which fits as well


def grid(
    columns: Sequence[str],
    rows: Sequence[str],
    cell: Callable[[str, str], None],
    *,
    caption: str,
    names: Mapping[str, str] = ROW_NAMES | LSC_ROWS,
    hints: Mapping[str, str] | None = None,
    ours: Sequence[str] = (OURS, "sgp", "restored"),
) -> None:
    """A table of numbers.

    Args:
        cell: `cell(row, column)` adds the content of one `td`.
        caption: what the table shows, for those who do not see the page.
        hints: column -> what is shown when the pointer rests on its head.
    """
    with tags.div(cls="wide"), tags.table(cls="numbers", aria_label=caption):
        with tags.thead(), tags.tr():
            tags.th("")
            for column in columns:
                hint = (hints or {}).get(column)
                with tags.th(scope="col", **({"title": hint} if hint else {})):
                    _breakable(column)
        with tags.tbody():
            for row in rows:
                with tags.tr(cls="ours" if row in ours else "") as line:
                    tags.th(names.get(row, shown(row)), scope="row")
                    for column in columns:
                        cell(row, column)
                for column, made in zip(columns, line.children[1:], strict=True):
                    made["data-column"] = column  # a phone shows it in front of the number


def _breakable(name: str) -> None:
    """A column's name, which narrow paper may break after a `_` or a blank."""
    parts = name.split("_")
    for i, part in enumerate(parts):
        tags.span(part + "_" * (i < len(parts) - 1))
        tags.wbr()


def missing(record: Record, section: str) -> bool:
    """Whether a section is missing; if so, print the reason."""
    if record.tree.get(section) is not None:
        return False
    tags.p(f"Not measured: {record.reason(section)}.", cls="sub")
    return True


def mean_of(rows: Mapping[str, Any], row: str, measure: str) -> float | None:
    """The mean of a row of `paired`; None if it could not be had."""
    entry = (rows.get(row) or {}).get(measure)
    return None if entry is None else entry["mean"]


def paired_measures(rows: Mapping[str, Any]) -> list[str]:
    """The measures of `paired` that at least one row has, in the reports' order."""
    found = [name for measures in rows.values() for name in measures or {}]
    return [name for name in in_order(found) if any(mean_of(rows, row, name) is not None for row in rows)]


def paired(record: Record, definitions: Mapping[str, str]) -> None:
    """Every method against the truth, with intervals."""
    with tags.section():
        tags.h2("Against the truth")
        if missing(record, "paired"):
            return
        rows: dict[str, Any] = record.tree["paired"]
        columns = paired_measures(rows)
        hints = {column: plain(column, definitions) for column in columns}

        def table(some: Sequence[str], caption: str) -> None:
            grid(some, list(rows), lambda row, column: paired_cell(rows, row, column), caption=caption, hints=hints)

        table(columns[:FIRST_COLUMNS], "measures against the truth, by method")
        if further := columns[FIRST_COLUMNS:]:
            tags.h3("Further measures")
            table(further, "further measures against the truth, by method")
        tags.p(
            "Mean over subjects, with its 95 % interval below; the best value of a column is green. fake_B is "
            "this model; the others are simple methods without a network.",
            cls="sub",
        )


def paired_cell(rows: Mapping[str, Any], row: str, column: str) -> None:
    """A mean, green if it is the column's best, with its interval below."""
    mean, better = mean_of(rows, row, column), higher_is_better(column)
    means = [found for other in rows if (found := mean_of(rows, other, column)) is not None]
    best = mean is not None and better is not None and mean == (max(means) if better else min(means))
    interval = rows[row][column]["ci95"] if mean is not None else None
    with tags.td(number(mean), cls="best" if best else ""):
        if interval is not None:
            with tags.small():
                tags.span(f"{number(interval[0])} to ")
                tags.wbr()
                tags.span(number(interval[1]))


def by_person(record: Record) -> None:
    """fake_B, and how much better it is than `classical`, for each person."""
    apart = record.tree.get("by_person")
    if apart is None:
        return
    people: dict[str, Any] = apart["people"]
    columns = {f"{measure}: {kind}": (measure, kind) for measure in PERSON_MEASURES for kind in (OURS, DIFFERENCE)}
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
            grid(list(columns), list(people), cell, caption="measures of each person", names={}, ours=())


def unpaired(record: Record) -> None:
    """Distances between sets of slices."""
    with tags.section():
        tags.h2("Against real high-field slices as a set")
        if missing(record, "unpaired"):
            return
        rows = record.tree["unpaired"]
        columns = [name for name in UNPAIRED_MEASURES if any(rows[row][name] is not None for row in rows)]
        shown_columns = columns or UNPAIRED_MEASURES
        grid(shown_columns, list(rows), lambda row, column: _cell(rows[row][column]), caption="distances between sets")
        tags.p(
            "Row real_B is what a perfect synthesis would reach; sd is the spread over draws. kd_slice tells anatomy "
            "rather than realism.",
            cls="sub",
        )


def _cell(value: float | None) -> None:
    tags.td(number(value))


def levels(record: Record) -> None:
    """How well SGP finds the level of a slice."""
    with tags.section():
        tags.h2("SGP: distance in mm between a slice and its match")
        if not missing(record, "sgp"):
            rows = record.tree["sgp"]["level_error_mm"]
            grid(LEVEL_COLUMNS, LEVEL_ROWS, lambda row, column: _cell(rows[row][column]), caption="level errors in mm")


def restoration(record: Record) -> None:
    """How well LSC repairs slices."""
    with tags.section():
        tags.h2("LSC: restoration of corrupted slices")
        if not missing(record, "lsc"):
            scores = record.tree["lsc"]["psnr"]
            grid(("PSNR (dB)",), list(LSC_ROWS), lambda row, _: _cell(scores[row]), caption="restoration by LSC")


def texts(values: Mapping[str, str]) -> None:
    """Names and texts, one a row."""
    with tags.table(cls="words"), tags.tbody():
        for name, text in values.items():
            with tags.tr():
                tags.td(shown(name))
                tags.td(shown(text))
