"""The curves of a stage as small plots: which share axes, in which order, and the file with all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from dominate import svg

from training.log.curve_store import Points
from training.log.follower import LEARNING_RATE, RATE
from training.log.loss_log import VALIDATION
from training.log.status import ON_TRAINING
from util.files import replace_text
from util.html_page import STYLE
from util.line_plot import HEIGHT, WIDTH, Line, line_plot, use_log_scale

PANELS_ACROSS = 3
GAP = 16  # pixels between two plots of the file
FAR_APART = 5.0  # times: losses of sizes that differ by more do not share axes
LOOKS = {"_A": "a", "_B": "b"}
COLOURS = {"_A": "#3a78b5", "_B": "#d1603d", "": "#3f4a56"}  # the dashboard's, which has a light page alone
OTHER_NAMES = {LEARNING_RATE: "learning rate", RATE: "images per second"}


def panels(names: Iterable[str]) -> dict[str, list[str]]:
    """Losses by the title of their panel: `x`, `x_A` and `x_B`, which differ only in their domain, share one."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(re.sub(r"_[AB]$", "", name), []).append(name)
    return {", ".join(members): members for members in grouped.values()}


def groups(names: Iterable[str]) -> list[list[str]]:
    """Names that share axes: losses by `panels`, the others, then validation figures of unseen and training slices."""
    found = list(names)
    figures: dict[str, list[str]] = {}
    for name in (name for name in found if name.startswith(VALIDATION)):
        figures.setdefault(name.replace(ON_TRAINING, VALIDATION), []).append(name)
    losses = [name for name in found if name not in OTHER_NAMES and not name.startswith(VALIDATION)]
    return [*panels(losses).values(), *([name] for name in OTHER_NAMES if name in found), *figures.values()]


def plots(curves: Mapping[str, Points]) -> list[svg.svg]:
    """The plots of a stage's curves that have a point, validation first, each with what belongs on the same axes."""
    shown = {name: points for name, points in curves.items() if points[0]}
    ordered = sorted(groups(shown), key=lambda names: not names[0].startswith(VALIDATION))
    parts = [part for names in ordered for part in _of_one_size(names, shown)]
    return [line_plot([Line(OTHER_NAMES.get(name, name), *shown[name], look(name)) for name in part]) for part in parts]


def look(name: str) -> str:
    """A curve's colour, a class of page.css."""
    if name.startswith(VALIDATION):
        return "soft" if name.startswith(ON_TRAINING) else "c2"
    return LOOKS.get(name[-2:], "plain")


def _of_one_size(names: Sequence[str], curves: Mapping[str, Points]) -> list[list[str]]:
    """The names together; each alone if, on a common scale that cannot be logarithmic, one of them would be flat."""
    sizes = [float(np.median(np.abs(curves[name][1]))) for name in names]
    far = max(sizes) > FAR_APART * min(sizes)
    if far and not use_log_scale(np.concatenate([np.asarray(curves[name][1]) for name in names])):
        return [[name] for name in names]
    return [list(names)]


def write_sheet(path: Path, found: Sequence[str]) -> None:
    """Write rendered plots as one SVG file, which shows itself in dark or light as its viewer asks. Raises OSError."""
    across = min(PANELS_ACROSS, len(found))
    rows = -(-len(found) // max(1, across))
    width, height = across * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_text(path) as file:
        address = "http://www.w3.org/2000/svg"
        file.write(f'<svg xmlns="{address}" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n')
        file.write(f"<style>{STYLE.read_text(encoding='utf-8')}\nsvg text {{ font-family: sans-serif }}</style>\n")
        file.write('<rect width="100%" height="100%" style="fill: var(--card)"/>\n')
        for i, plot in enumerate(found):
            x, y = GAP + i % across * (WIDTH + GAP), GAP + i // across * (HEIGHT + GAP)
            file.write(plot.replace("<svg ", f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" ', 1) + "\n")
        file.write("</svg>\n")
