"""The results report's section on the trust map: what it finds of the true error, beside what is seen in fake_B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dominate import tags

from evaluation.page.tables import grid
from evaluation.page.words import number
from evaluation.record import Record
from evaluation.trust.appearance import APPEARANCE
from evaluation.trust.scores import ROWS
from util.html_page import shown

COLUMNS = {"AUC": "auc", "rank correlation": "rank_correlation"}
NAMES = {
    "trust": "trust map",
    "disagreement": "disagreement under small changes of the input",
    "cycle": "cycle residual",
    "sgp": "SGP's distance",
    "signals": "the three signals together",
    "brightness": "brightness of fake_B",
    "edges": "edges of fake_B",
    "border": "nearness to the head's border",
    "appearance": "brightness, edges and border together",
}


def trust_section(record: Record) -> None:
    """The section; nothing without --trust."""
    found = record.tree.get("trust")
    if found is None:
        return
    with tags.section(id="trust"):
        tags.h2("Where not to trust it")
        tags.p(
            "The trust map shows how large an error it expects: bright places are not to be trusted. Beside every "
            "volume lies one, and the slice browser shows it. Dark places may be wrong all the same."
        )
        source = shown(found["calibration"]["source"])
        tags.p(f"{source[:1].upper()}{source[1:]}.", cls="sub")
        rows = [row for row in ROWS if any(_mean(found[name], row) is not None for name in COLUMNS.values())]
        if "trust" not in rows:
            tags.p(f"How much of the error it finds is unknown: {record.reason('trust', 'auc', 'trust')}.")
        if not rows:
            return
        if verdict := _verdict(found):
            tags.p(tags.b(verdict[0].upper() + verdict[1:] + "."))
        grid(
            list(COLUMNS),
            rows,
            lambda row, column: _cell(found[COLUMNS[column]], row),
            caption="how well each row finds the true error",
            names=NAMES,
            ours=("trust",),
        )
        tags.p(
            "AUC: how often a patch among the tenth with the largest true error has a higher value than another patch; "
            "0.5 is chance. Mean over subjects, with its 95 % interval. Brightness, edges and border need no model: "
            "the map is worth something where it beats them.",
            cls="sub",
        )
        _rest(found)


def _mean(rows: Mapping[str, Any], row: str) -> float | None:
    mean: float | None = (rows.get(row) or {}).get("mean")
    return mean


def _cell(rows: Mapping[str, Any], row: str) -> None:
    interval: Sequence[float] | None = rows[row]["ci95"]
    with tags.td(number(_mean(rows, row))):
        if interval is not None:
            tags.small(f"{number(interval[0])} to {number(interval[1])}")


def _rest(found: Mapping[str, Any]) -> None:
    slices, bias = found["slice_correlation"]["mean"], found["bias_db"]["mean"]
    if slices is not None:
        tags.p(f"Within a subject, slice_trust and slice_psnr have a rank correlation of {slices:.2f}; 0 is chance.")
    if bias is not None:
        size = "too large" if bias > 0 else "too small"
        tags.p(f"The expected squared error is {abs(bias):.1f} dB {size} on average.")


def trust_sentence(found: Mapping[str, Any]) -> str:
    """What a test prints of the section `trust`."""
    return f"trust: {_verdict(found) or found['calibration']['source']}"


def _verdict(found: Mapping[str, Any]) -> str:
    """Whether the map finds the largest errors better than what is seen in fake_B alone; empty if it has no score."""
    mean = _mean(found["auc"], "trust")
    others = {row: value for row in APPEARANCE if (value := _mean(found["auc"], row)) is not None}
    if mean is None or not others:
        return ""
    best = max(others, key=lambda row: others[row])
    finds = "finds" if mean > others[best] else "does not find"
    scores = f"AUC {mean:.3f} against {others[best]:.3f}"
    return f"the map {finds} the largest errors better than {NAMES[best]} alone: {scores}"
