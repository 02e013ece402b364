"""`index.html`: the test's results on one page, which needs no server and no network.

First what was found, then pictures, then what the numbers mean and what they were made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from dominate import tags

from evaluation.page import tables
from evaluation.page.plots import Rows, subject_plots
from evaluation.page.protocol import protocol_section
from evaluation.page.trust import trust_section
from evaluation.page.viewer import STYLE, Listing, add_script, slice_browser
from evaluation.page.words import PLAIN
from evaluation.record import Record
from util.html_page import new_page, shown


def write_report(
    path: Path,
    record: Record,
    *,
    title: str,
    facts: Mapping[str, str],
    definitions: Mapping[str, str],
    rows: Rows | None = None,
    listing: Listing | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the page.

    Args:
        path: that of `index.html`; `images/` and `browser/` lie beside it.
        record: all measures, and reasons for missing ones.
        facts: name -> text for run, model and data.
        definitions: measure -> definition.
        rows: method -> subject -> scores against the truth.
        listing: the slices that were synthesised.
        options: all options of the training.
    """
    page = new_page(shown(title), STYLE)
    with page, tags.main():
        tags.h1(shown(title))
        tags.p(f"Test report, {datetime.now():%Y-%m-%d %H:%M}", cls="sub")
        if record.tree.get("verdict"):
            tags.p(tags.b(record.tree["verdict"]), cls="verdict")
        tables.paired(record, definitions)
        if rows and listing is not None:
            subject_plots(rows, listing.people)
        if listing is not None and listing.scores:
            slice_browser(listing)
        trust_section(record)
        tables.by_person(record)
        tables.unpaired(record)
        protocol_section(record)
        tables.levels(record)
        tables.restoration(record)
        _explanations(record, definitions)
        _origin(facts, options or {}, with_slices=listing is not None)
        tags.footer("For research only, not for diagnosis.")
        if listing is not None and listing.scores:
            add_script()
    path.write_text(page.render(), encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8


def _explanations(record: Record, definitions: Mapping[str, str]) -> None:
    plain = {name: PLAIN[name] for name in definitions if name in PLAIN}
    for heading, values in (
        ("What each number means", plain),
        ("Exact definitions", definitions),
        ("Why a number is missing", record.why_null()),
    ):
        if values:
            with tags.section():
                tags.h2(heading)
                tables.texts(values)


def _origin(facts: Mapping[str, str], options: Mapping[str, Any], *, with_slices: bool) -> None:
    with tags.section():
        tags.h2("How it was made")
        tables.texts(facts)
        if options:
            with tags.details():
                tags.summary(f"All {len(options)} options of the training")
                tables.texts({name: _text(value) for name, value in sorted(options.items())})
        with tags.p():
            tags.span("All numbers: ")
            tags.a("metrics.json", href="metrics.json")
            tags.span(", per subject: ")
            tags.a("metrics.csv", href="metrics.csv")
            if with_slices:
                tags.span(", per slice: ")
                tags.a("slices.csv", href="slices.csv")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
