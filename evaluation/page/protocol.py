"""The results report's section on the scores by a published protocol, and what a test prints of them."""

from __future__ import annotations

from typing import Any

from dominate import tags

from evaluation.page.tables import grid
from evaluation.page.words import number
from evaluation.protocols import PROTOCOLS
from evaluation.record import Record
from util.html_page import shown


def protocol_heading(found: dict[str, Any]) -> str:
    """Whose definitions these are."""
    return f"By the definitions of {PROTOCOLS[found['name']].title}"


def protocol_columns(found: dict[str, Any]) -> list[str]:
    """The measures that at least one row has; all of them if none has any."""
    rows: dict[str, Any] = found.get("scores", {})
    measures = PROTOCOLS[found["name"]].measures
    return [m for m in measures if any(scores[m] is not None for scores in rows.values())] or list(measures)


def protocol_section(record: Record) -> None:
    """The section; nothing without --protocol."""
    found = record.tree.get("protocol")
    if found is None:
        return
    rows, definitions = found.get("scores", {}), PROTOCOLS[found["name"]].definitions
    with tags.section(id="protocol"):
        tags.h2(protocol_heading(found))
        grid(
            protocol_columns(found),
            list(rows),
            lambda row, column: tags.td(number(rows[row][column])),
            caption="scores by a published protocol",
            hints=definitions,
        )
        tags.p("Not comparable with the other tables: window, mask and averages are the publication's.", cls="sub")
        for reason, names in _missing(record, found).items():
            tags.p(shown(f"Not measured: {', '.join(names)} ({reason})."), cls="sub")


def _missing(record: Record, found: dict[str, Any]) -> dict[str, list[str]]:
    """The measures that the synthesis lacks, by the reason."""
    names: dict[str, list[str]] = {}
    for name, score in found.get("scores", {}).get("fake_B", {}).items():
        if score is None and not name.endswith("_sd"):
            names.setdefault(record.reason("protocol", "scores", "fake_B", name) or "", []).append(name)
    return names
