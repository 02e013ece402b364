"""Plots of the results report, drawn as SVG in the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dominate import svg, tags

from evaluation.page.words import ROW_NAMES, in_order, number
from evaluation.people import OURS
from evaluation.record import Scores
from util.html_page import shown
from util.line_plot import nice_ticks

PLOTTED = ("psnr_fit", "ssim")  # measures with a plot of their own
WIDTH, LEFT, RIGHT, TOP, LINE = 520, 150, 14, 22, 17  # pixels; LINE is the height of a subject's row
MOST_SUBJECTS = 60  # of a plot that is shown at once
NAME_LETTERS = 20

Rows = Mapping[str, Mapping[str, Scores]]


def subject_plots(rows: Rows, people: Mapping[str, str]) -> None:
    """Every subject's score by every method, persons together."""
    ours = rows.get(OURS, {})
    measures = [name for name in in_order(PLOTTED) if any(scores.get(name) is not None for scores in ours.values())]
    if not measures:
        return
    subjects = sorted(ours, key=lambda subject: (people.get(subject, subject), subject))
    with tags.section():
        tags.h2("Subject by subject")
        tags.p(
            "A row is a subject. The filled dot is fake_B, rings are the simple methods; the bar goes from the best of "
            "them to fake_B. Further right is better.",
            cls="sub",
        )
        with tags.p(cls="key"):
            for row in rows:
                tags.b("● " if row == OURS else "○ ", cls=row)
                tags.span(f"{ROW_NAMES.get(row, shown(row))}   ")
        if len(subjects) <= MOST_SUBJECTS:
            _plots(measures, rows, subjects, people)
            return
        for start in range(0, len(subjects), MOST_SUBJECTS):
            part = subjects[start : start + MOST_SUBJECTS]
            with tags.details():
                tags.summary(f"{shown(part[0])} to {shown(part[-1])}")
                _plots(measures, rows, part, people)


def _plots(measures: Sequence[str], rows: Rows, subjects: Sequence[str], people: Mapping[str, str]) -> None:
    with tags.div(cls="plots"):
        for measure in measures:
            _plot(measure, rows, subjects, people)


def _plot(measure: str, rows: Rows, subjects: Sequence[str], people: Mapping[str, str]) -> None:
    found = {
        row: {s: v for s in subjects if (v := scores.get(s, {}).get(measure)) is not None}
        for row, scores in rows.items()
    }
    values = [value for scores in found.values() for value in scores.values()]
    if not values:
        return
    ticks = nice_ticks(min(values), max(values))
    low, high = min(ticks[0], *values), max(ticks[-1], *values)
    span = (high - low) or 1.0
    height = TOP + LINE * len(subjects) + 20

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / span, 1)

    label = f"{measure} of {len(subjects)} subjects by method, from {number(min(values))} to {number(max(values))}"
    with svg.svg(viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label):
        svg.text(measure, x=0, y=13, cls="title")
        for tick in ticks:
            svg.line(x1=x(tick), x2=x(tick), y1=TOP - 4, y2=height - 16, cls="grid")
            svg.text(f"{tick:g}", x=x(tick), y=height - 3, text_anchor="middle")
        for i, subject in enumerate(subjects):
            _subject(
                subject, people, {row: scores[subject] for row, scores in found.items() if subject in scores}, x, i
            )


def _subject(
    subject: str, people: Mapping[str, str], scores: Mapping[str, float], x: Callable[[float], float], i: int
) -> None:
    y = TOP + LINE * (i + 0.5)
    person = people.get(subject, subject)
    with svg.g():
        svg.title(f"{shown(subject)}, {shown(person)}: " + ", ".join(f"{row} {number(v)}" for row, v in scores.items()))
        svg.text(_short(shown(subject)), x=0, y=y + 4)
        svg.line(x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, cls="grid")
        others = [value for row, value in scores.items() if row != OURS]
        if OURS in scores and others:
            svg.line(x1=x(max(others)), x2=x(scores[OURS]), y1=y, y2=y, cls="gap")
        for row in sorted(scores, key=lambda row: row == OURS):  # ours on top
            svg.circle(cx=x(scores[row]), cy=y, r=4.2 if row == OURS else 3.4, cls=row)


def _short(name: str) -> str:
    return name if len(name) <= NAME_LETTERS else name[: NAME_LETTERS - 1] + "…"
