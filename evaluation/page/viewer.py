"""The slice browser in the page: its controls, which browser.js brings to life, and the slices to look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dominate import tags

from evaluation.page.words import KIND_NAMES, number
from evaluation.pictures import ERROR_RANGE, TRUST_RANGE, picture_name, trust_colours
from evaluation.slice_scores import RankedSlice, SliceScores, ranked
from evaluation.trust.scores import SLICE_TRUST
from util.html_page import link, script, script_data, shown

HERE = Path(__file__).parent
STYLE = HERE / "browser.css"
PICKED = 12  # worst slices that are shown, and best ones
KEYS = {
    "← →": "slice by slice",
    "Page up, Page down": "five slices",
    "Home, End": "first and last slice",
    "f": "flicker: the other picture",
    "s": "swipe",
    "Esc": "side by side",
    "n, p": "next and previous subject",
}


@dataclass(frozen=True)
class Listing:
    """The slices that a page shows.

    scores: of every subject's slices, in the order of the volume. people: the person of a subject.
    files: the scripts with a subject's pictures. kinds: what pictures there are, of KIND_NAMES.
    """

    scores: Mapping[str, SliceScores]
    people: Mapping[str, str]
    files: Mapping[str, str]
    kinds: Sequence[str]


def slice_browser(listing: Listing) -> None:
    """The browser of one test, and the worst and best slices, whose buttons lead to it."""
    panels = [{"label": KIND_NAMES[kind], "file": 0, "kind": kind} for kind in listing.kinds]
    subjects = [
        {"name": shown(subject), "person": shown(listing.people.get(subject, "")), "files": [listing.files[subject]]}
        for subject in listing.scores
    ]
    least = ranked(listing.scores, [(SLICE_TRUST, 1)])[1]
    numbers = {subject: i for i, subject in enumerate(listing.scores)}
    viewer("slices", "Slices", subjects, panels, [(numbers[one.subject], one.position) for one in least])
    _picks(listing, least)


def viewer(
    name: str,
    heading: str,
    subjects: Sequence[Mapping[str, Any]],
    panels: Sequence[Mapping[str, Any]],
    least_trusted: Sequence[tuple[int, int]] = (),
) -> None:
    """A browser with the id `name`.

    Args:
        subjects: name, person and `files` of each.
        panels: label, number of the subject's file and kind of picture of each.
        least_trusted: number of the subject and position of slices, the least trusted first.
    """
    with tags.section(cls="viewer", id=name, data_config=f"{name}-data", aria_label=heading):
        tags.h2(heading)
        tags.noscript("Without JavaScript the slices cannot be browsed; the folder images/ has each of them.")
        tags.p("Loading …", cls="where", aria_live="polite")
        with tags.div(cls="controls"):
            with tags.label("subject "), tags.select(cls="subject"):
                for number_, subject in enumerate(subjects):
                    tags.option(_option(subject), value=str(number_))
            with tags.label("slice ", cls="long"):
                tags.input_(type="range", cls="slice", min="0", max="0", value="0", step="1")
        if least_trusted:
            _least_trusted()
        _modes(panels)
        tags.div(cls="stage")
        _window()
        tags.div(cls="chart")
        with tags.details(cls="three"):
            tags.summary("Three planes")
            with tags.div(cls="controls"), tags.label("of "):
                _choice("plane-kind", panels, _place(panels, "fake_B"))
            tags.p("From the same slices, with their distances. A click moves the lines.", cls="sub")
            tags.div(cls="stage planes")
        _legend(panels)
        data = {"subjects": list(subjects), "panels": list(panels), "error_range": ERROR_RANGE}
        if any(panel["kind"] == "trust" for panel in panels):
            data |= {"colours": {"trust": trust_colours().tolist()}}
        if least_trusted:
            data |= {"least_trusted": [list(place) for place in least_trusted]}
        script_data(f"{name}-data", data)


def _least_trusted() -> None:
    """Buttons that go through all slices, the least trusted first."""
    with tags.div(cls="controls", role="group", aria_label="slices, the least trusted first"):
        tags.button("least trusted slice", type="button", data_trust="first")
        tags.button("more trusted", type="button", data_trust="1")
        tags.button("less trusted", type="button", data_trust="-1")
        tags.span(cls="trust-place sub", aria_live="polite")


def _option(subject: Mapping[str, Any]) -> str:
    person = subject["person"]
    return f"{subject['name']} ({person})" if person and person != subject["name"] else str(subject["name"])


def _place(panels: Sequence[Mapping[str, Any]], kind: str, after: int = 0) -> int:
    return next(
        (i for i, panel in enumerate(panels) if panel["kind"] == kind and i >= after), min(after, len(panels) - 1)
    )


def _choice(cls: str, panels: Sequence[Mapping[str, Any]], chosen: int) -> None:
    with tags.select(cls=cls):
        for i, panel in enumerate(panels):
            tags.option(panel["label"], value=str(i), **({"selected": True} if i == chosen else {}))


def _modes(panels: Sequence[Mapping[str, Any]]) -> None:
    ours = [i for i, panel in enumerate(panels) if panel["kind"] == "fake_B"]
    first, second = ours[:2] if len(ours) > 1 else (0, _place(panels, "fake_B", 1))
    with tags.div(cls="controls", role="group", aria_label="how pictures are compared"):
        for mode, text in (("side", "side by side"), ("swipe", "swipe"), ("flicker", "flicker")):
            tags.button(text, type="button", data_mode=mode, aria_pressed="true" if mode == "side" else "false")
        with tags.label("left or first ", data_only="swipe flicker", hidden=True):
            _choice("first", panels, first)
        with tags.label("right or second ", data_only="swipe flicker", hidden=True):
            _choice("other", panels, second)
        with tags.label("divider ", data_only="swipe", hidden=True, cls="long"):
            tags.input_(type="range", cls="divider", min="0", max="100", value="50")
        with tags.label(data_only="flicker", hidden=True):
            tags.input_(type="checkbox", cls="blink")
            tags.span("by itself")


def _window() -> None:
    with tags.div(cls="controls", role="group", aria_label="window of intensities"):
        with tags.label("level ", cls="long"):
            tags.input_(type="range", cls="level", min="0", max="100", value="50")
        with tags.label("width ", cls="long"):
            tags.input_(type="range", cls="width", min="1", max="150", value="100")
        tags.span(cls="window-text sub")
        tags.button("reset", type="button", cls="reset")


def _legend(panels: Sequence[Mapping[str, Any]]) -> None:
    kinds = {panel["kind"] for panel in panels}
    with tags.p(cls="sub"):
        tags.span("Grey: black and white are the two ends of the window. ")
        if "error" in kinds:
            tags.span(
                "Error: black is none, red to yellow too bright, blue to cyan too dark; yellow and cyan mean "
                f"{ERROR_RANGE} or more. "
            )
        if "trust" in kinds:
            tags.span(f"Expected error: black is none, bright yellow {TRUST_RANGE} or more of the range. ")
    with tags.p(cls="sub screen"):
        tags.span("Keys: ")
        for key, what in KEYS.items():
            tags.kbd(key)
            tags.span(f" {what}; ")
        tags.span("a finger or the mouse moves the divider, a click the lines of the three planes.")


def _picks(listing: Listing, least_trusted: Sequence[RankedSlice]) -> None:
    """The worst slices, then the best, then the least trusted, each a button that opens the browser there."""
    measure, slices = ranked(listing.scores)
    numbers = {subject: i for i, subject in enumerate(listing.scores)}
    if slices:
        _worst_and_best(listing, numbers, measure, slices)
    if least_trusted:
        with tags.section():
            tags.h2("Least trusted slices")
            tags.p(f"By {SLICE_TRUST}. Beside the synthesis: {KIND_NAMES['trust']}.", cls="sub")
            with tags.div(cls="picks"):
                for one in least_trusted[:PICKED]:
                    _pick(listing, numbers, one, SLICE_TRUST, "trust")


def _worst_and_best(listing: Listing, numbers: Mapping[str, int], measure: str, slices: Sequence[RankedSlice]) -> None:
    second = next((kind for kind in ("error", "real_A") if kind in listing.kinds), "real_A")
    with tags.section():
        tags.h2("Worst and best slices")
        tags.p(f"By {measure}. Beside the synthesis: {KIND_NAMES[second]}. A click opens the slice above.", cls="sub")
        for heading, found in (("Worst", slices[:PICKED]), ("Best", slices[: -PICKED - 1 : -1])):
            tags.h3(heading)
            with tags.div(cls="picks"):
                for one in found:
                    _pick(listing, numbers, one, measure, second)


def _pick(listing: Listing, numbers: Mapping[str, int], one: RankedSlice, measure: str, second: str) -> None:
    scores = listing.scores[one.subject]
    stem, index = scores.stems[one.position], scores.index[one.position]
    text = f"{shown(one.subject)}, slice {index}"
    data = {"data-viewer": "slices", "data-subject": str(numbers[one.subject]), "data-slice": str(one.position)}
    with tags.button(type="button", cls="pick", **data):
        with tags.span():
            for kind in ("fake_B", second):
                alt = f"{KIND_NAMES[kind]} of {text}"
                tags.img(src=f"images/{link(picture_name(stem, kind))}", alt=alt, loading="lazy")
        tags.b(text)
        tags.small(f"{measure} {number(one.score)}, {shown(listing.people.get(one.subject, one.subject))}")


def add_script() -> None:
    """browser.js, once a page, after all viewers."""
    script(HERE / "browser.js")
