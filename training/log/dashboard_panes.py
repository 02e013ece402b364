"""What the dashboard's panes hold, as visdom's messages: panels of curves, a labelled grid, a few lines of text."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from training.log.curve_store import Points
from training.log.sample_images import labelled_grid
from training.log.training_curves import COLOURS, ON_TRAINING, OTHER_NAMES, groups
from util.line_plot import use_log_scale

PANELS_ACROSS = 3
PANEL_PX = 250, 170  # width and height of a panel, margins included
MARGIN_PX = {"left": 46, "right": 10, "top": 30, "bottom": 22}  # of a panel
PANE_BORDER_PX = 22  # visdom's title bar
MARKED_UP_TO = 12  # points of a curve that are marked; a single one could not be seen else
COLUMN_PX = 120  # width that a column of small pictures is enlarged to
LIGHT = "#9aa5b1"  # colour of figures of training slices

Message = dict[str, Any]


def curves_pane(title: str, curves: Mapping[str, Points]) -> Message:
    """All curves of a stage, each kind on axes of its own: losses, learning rate, images per second, validation.

    Losses differ in size by orders of magnitude, so only `x_A` and `x_B` share axes. Every panel's title has the last
    values.
    """
    grouped = groups(curves)
    across = min(PANELS_ACROSS, len(grouped))
    width, height = across * PANEL_PX[0], -(-len(grouped) // across) * PANEL_PX[1]
    content: Message = {"data": [], "annotations": []}
    layout: Message = {"width": width, "height": height, "showlegend": False, "hovermode": "closest"}
    layout |= {"margin": dict.fromkeys("lrtb", 0), "annotations": content["annotations"]}
    for index, names in enumerate(grouped):
        left, top = index % across * PANEL_PX[0], index // across * PANEL_PX[1]
        x = [(left + MARGIN_PX["left"]) / width, (left + PANEL_PX[0] - MARGIN_PX["right"]) / width]
        y = [1 - (top + PANEL_PX[1] - MARGIN_PX["bottom"]) / height, 1 - (top + MARGIN_PX["top"]) / height]
        number = "" if index == 0 else str(index + 1)
        values = np.concatenate([np.asarray(curves[name][1]) for name in names])
        scale = {"type": "log"} if use_log_scale(values) else _range_around(values)
        layout |= {f"xaxis{number}": _axis(x, f"y{number}"), f"yaxis{number}": _axis(y, f"x{number}") | scale}
        content["data"] += [_trace(name, curves[name], number) for name in names]
        content["annotations"].append(_title(names, curves, x[0], y[1]))
    opts = {"title": title, "width": width, "height": height + PANE_BORDER_PX}
    return {"data": content["data"], "layout": layout, "opts": opts}


def _axis(domain: list[float], anchor: str) -> Message:
    look = {"tickfont": {"size": 9}, "zeroline": False, "gridcolor": "#e6e9ed", "exponentformat": "e"}
    return {"domain": domain, "anchor": anchor, **look}


def _range_around(values: np.ndarray) -> Message:
    """Of a constant curve, a tenth around it, where plotly would draw one from 1 below to 1 above."""
    if values.min() != values.max():
        return {}
    reach = 0.1 * abs(values[0]) or 0.1
    return {"range": [values[0] - reach, values[0] + reach]}


def _colour(name: str) -> str:
    return LIGHT if name.startswith(ON_TRAINING) else COLOURS[name[-2:] if name[-2:] in COLOURS else ""]


def _trace(name: str, points: Points, number: str) -> Message:
    steps, values = points
    few = len(steps) <= MARKED_UP_TO
    return {
        "type": "scatter",
        "mode": "lines+markers" if few else "lines",
        "name": OTHER_NAMES.get(name, name),
        "x": steps,
        "y": values,
        "xaxis": "x" + number,
        "yaxis": "y" + number,
        "line": {"color": _colour(name), "width": 1.5},
        "marker": {"color": _colour(name), "size": 6},
    }


def _title(names: list[str], curves: Mapping[str, Points], left: float, bottom: float) -> Message:
    shown = {name: f"{html.escape(OTHER_NAMES.get(name, name))} <b>{curves[name][1][-1]:.3g}</b>" for name in names}
    parts = [f'<span style="color:{_colour(name)}">{text}</span>' for name, text in shown.items()]
    return {
        "text": "&nbsp; ".join(parts),
        "x": left,
        "y": bottom,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 11},
    }


def text_pane(title: str, lines: Mapping[str, str]) -> Message:
    """A table of names and values; both are text, whatever they hold."""
    rows = "".join(
        f'<tr><td style="padding-right: 12px; color: #667">{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
        for name, value in lines.items()
    )
    opts = {"title": title, "width": 400, "height": 190}
    content = f'<table style="margin: 8px; overflow-wrap: anywhere">{rows}</table>'
    return {"data": [{"content": content, "type": "text"}], "opts": opts}


def picture(columns: Mapping[str, np.ndarray], n_columns: int) -> np.ndarray:
    """Sample images, (H, W) uint8 by label, as one labelled grid (3, H', W') uint8; small ones enlarged."""
    times = max(1, COLUMN_PX // max(image.shape[1] for image in columns.values()))
    enlarged = {label: np.kron(image, np.ones((times, times), np.uint8)) for label, image in columns.items()}
    return labelled_grid(enlarged, n_columns)


def picture_opts(title: str, grid: np.ndarray) -> Message:
    """visdom's options for a picture, (3, H, W) uint8, in its own size."""
    height, width = grid.shape[1:]
    return {"title": title, "width": width, "height": height + PANE_BORDER_PX}
