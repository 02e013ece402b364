"""The losses of a stage as an SVG figure of small panels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.log.loss_log import LossLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_ACROSS = 3
PANEL_INCHES = 2.2  # height of a row of panels
LOG_SPAN = 30.0  # ratio of largest to smallest value above which the scale is logarithmic
COLOURS = {"_A": "#3a78b5", "_B": "#d1603d", "": "#3f4a56"}


def panels(names: Iterable[str]) -> dict[str, list[str]]:
    """Losses by the title of their panel: `x`, `x_A` and `x_B`, which differ only in their domain, share one."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(re.sub(r"_[AB]$", "", name), []).append(name)
    return {", ".join(members): members for members in grouped.values()}


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean of (n,) over n / 15 neighbours, fewer at the ends."""
    width = len(values) // 15
    if width < 2:
        return values
    window = np.ones(2 * (width // 2) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def use_log_scale(values: np.ndarray) -> bool:
    """Whether values (n,) are all positive and span a ratio above LOG_SPAN, ignoring outliers."""
    if len(values) < 2 or values.min() <= 0:
        return False
    low, high = np.percentile(values, (2, 98))
    return bool(high / low > LOG_SPAN)


def draw_curves(path: Path, log: LossLog, stage: str) -> None:
    """Draw all losses of `stage` to an SVG file: thin lines as logged, thick ones smoothed. Raises OSError."""
    from matplotlib.figure import (
        Figure,
    )  # imported here: it takes half a second, and runs without a report do not need it

    grouped = panels(log.names(stage))
    rows = -(-len(grouped) // PANELS_ACROSS)
    height = PANEL_INCHES * rows
    figure = Figure(figsize=(11, height))  # fixed margins: matplotlib's layout engines double the time
    figure.subplots_adjust(0.045, 0.45 / height, 0.995, 1 - 0.3 / height, wspace=0.16, hspace=0.36)
    for number, (title, names) in enumerate(grouped.items(), start=1):
        axes = figure.add_subplot(rows, PANELS_ACROSS, number)
        _draw_panel(axes, title, {name: log.curve(stage, name) for name in names})
        if number > len(grouped) - PANELS_ACROSS:
            axes.set_xlabel("step", fontsize=8, color="#667")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", transparent=True)


def _draw_panel(axes: Axes, title: str, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for name, (steps, values) in curves.items():
        colour = COLOURS[name[-2:] if name[-2:] in COLOURS else ""]
        axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3, marker="." if len(values) < 15 else "")
        label = f"{name}  {values[-1]:.4g}" if len(curves) > 1 and len(values) else None
        point = "o" if len(values) == 1 else ""  # of which no line can be drawn
        axes.plot(steps, smooth(values), color=colour, linewidth=1.8, marker=point, markersize=5, label=label)
    all_values = np.concatenate([values for _, values in curves.values()])
    if use_log_scale(all_values):
        axes.set_yscale("log")
    last = f"   {all_values[-1]:.4g}" if len(curves) == 1 and len(all_values) else ""
    axes.set_title(title + last, fontsize=9.5, loc="left", color="#223", parse_math=False)
    axes.tick_params(labelsize=7.5, colors="#667", length=2)
    axes.grid(color="#dde1e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c3c9d1")
    if len(curves) > 1:
        axes.legend(fontsize=7.5, frameon=False, handlelength=1.2, loc="best")
