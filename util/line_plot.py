"""Small plots of curves as SVG, coloured by page.css: readable in dark and light, on a phone and on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from dominate import svg

WIDTH, HEIGHT = 340, 178  # of a plot, in pixels of its own
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 26, 22
MOST_POINTS = 200  # of a drawn curve, which is some 280 pixels wide
MARKED_UP_TO = 15  # points that are marked: a single one could not be seen else
FLAT = 1e-3  # spread, as a part of the values, below which a curve is drawn as a level line
LOG_SPAN = 30.0  # ratio of largest to smallest value above which the scale is logarithmic
LOOKS = ("a", "b", "plain", "soft", *(f"c{i}" for i in range(8)))  # classes of page.css


@dataclass(frozen=True)
class Line:
    """One curve; `look`, of LOOKS, is its colour."""

    name: str
    steps: Sequence[float] = field(repr=False)
    values: Sequence[float] = field(repr=False)
    look: str = "plain"


def line_plot(lines: Sequence[Line], title: str = "") -> svg.svg:
    """Curves on common axes: thin as they are, thick smoothed. Above: each one's name, or the title, and last value.

    Args:
        lines: at least one; all values are finite. Those without any value are left out.
        title: what they have in common, written in the place of their names.
    """
    found = [line for line in lines if len(line.values)]
    values = np.concatenate([np.asarray(line.values, np.float64) for line in found])
    steps = np.concatenate([np.asarray(line.steps, np.float64) for line in found])
    log = use_log_scale(values)
    y_ticks = log_ticks(values.min(), values.max()) if log else _linear_ticks(values)
    x, x_ticks = _across(steps.min(), steps.max())
    y = _up(min(y_ticks[0], values.min()), max(y_ticks[-1], values.max()), log)
    with svg.svg(viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=_in_words(found, title), cls="lines") as plot:
        _title(found, title)
        for tick in y_ticks:
            svg.line(x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick), cls="grid")
            svg.text(f"{tick:g}", x=LEFT - 5, y=y(tick) + 4, text_anchor="end")
        for tick in x_ticks:
            svg.text(f"{tick:,.0f}", x=x(tick), y=HEIGHT - 6, text_anchor="end" if tick == x_ticks[-1] else "middle")
        for line in found:
            _curve(line, x, y)
    return plot


def use_log_scale(values: np.ndarray) -> bool:
    """Whether values (n,) are all positive and span a ratio above LOG_SPAN, ignoring outliers."""
    if len(values) < 2 or values.min() <= 0:
        return False
    low, high = np.percentile(values, (2, 98))
    return bool(high / low > LOG_SPAN)


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean of (n,) over n / 15 neighbours, fewer at the ends."""
    width = len(values) // 15
    if width < 2:
        return values
    window = np.ones(2 * (width // 2) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, some `about` of them."""
    span = high - low if high > low else abs(high) * 0.1 or 1.0
    size = 10.0 ** math.floor(math.log10(span / about))
    step = next((size * factor for factor in (1, 2, 5) if span / (size * factor) <= about), size * 10)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * i:.10g}") for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Powers of ten from at or below `low` to at or above `high`, at most `most` of them."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    apart = max(1, math.ceil((last - first) / (most - 1)))
    return [10.0**power for power in range(first, last + apart, apart)]


def _linear_ticks(values: np.ndarray) -> list[float]:
    """Round numbers around the values; around ones that are practically constant, with a twentieth of room."""
    low, high = float(values.min()), float(values.max())
    if high - low < FLAT * max(abs(low), abs(high)):
        low, high = low - 0.05 * abs(low), high + 0.05 * abs(high)
    return nice_ticks(low, high, 4)


def _across(low: float, high: float) -> tuple[Callable[[float], float], list[float]]:
    """Places of steps, and the steps that are named: the last one, and round ones before it."""
    if low == high:
        return (lambda step: LEFT + (WIDTH - LEFT - RIGHT) / 2), [high]
    span = high - low
    round_ones = [tick for tick in nice_ticks(low, high, 3) if low <= tick <= high - 0.25 * span]
    return (lambda step: round(LEFT + (WIDTH - LEFT - RIGHT) * (step - low) / span, 1)), [*round_ones, high]


def _up(low: float, high: float, log: bool) -> Callable[[float], float]:
    """Places of values."""

    def place(value: float) -> float:
        part = math.log(value / low) / math.log(high / low) if log else (value - low) / ((high - low) or 1.0)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part, 1)

    return place


def _curve(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> None:
    steps, values = _fewer(line)
    for cls, ordinates in (("thin", values), ("thick", smooth(values))):
        points = [f"{x(step):.1f} {y(value):.1f}" for step, value in zip(steps, ordinates, strict=True)]
        if len(points) > 1 and (cls == "thick" or len(points) > MARKED_UP_TO):
            svg.path(d="M" + "L".join(points), cls=f"{cls} {line.look}")
    if len(values) <= MARKED_UP_TO:
        for step, value in zip(steps, values, strict=True):
            svg.circle(cx=x(step), cy=y(value), r=3, cls=line.look)


def _fewer(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points, means of neighbours."""
    points = np.stack([np.asarray(line.steps, np.float64), np.asarray(line.values, np.float64)], axis=1)
    if len(points) > MOST_POINTS:
        points = np.stack([part.mean(axis=0) for part in np.array_split(points, MOST_POINTS)])
    return points[:, 0], points[:, 1]


def _title(lines: Sequence[Line], title: str) -> None:
    with svg.text(x=2, y=13, cls="title"):
        if title:
            svg.tspan(f"{title}  ")
        for line in lines:
            name = "" if title else f"{line.name} "
            svg.tspan(f"{name}{line.values[-1]:.4g}   ", cls=line.look)


def _in_words(lines: Sequence[Line], title: str) -> str:
    parts = [
        f"{line.name}: from {min(line.values):.4g} to {max(line.values):.4g}, last {line.values[-1]:.4g} at step "
        f"{line.steps[-1]:,.0f}"
        for line in lines
    ]
    return f"{title} " * bool(title) + "; ".join(parts)
