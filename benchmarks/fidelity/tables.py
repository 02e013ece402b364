"""The page with the tables, for people, with what is missing and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.fidelity.measure import SET_MEASURE
from benchmarks.fidelity.rows import BASELINES, ROWS

INTENSITY = {  # heading and decimals
    "psnr_fit": ("PSNR after fit (dB)", 2),
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 3),
    "nrmse": ("NRMSE", 3),
    SET_MEASURE: ("kd_slice", 3),
    "gap_closed": ("gap closed", 2),
}
STRUCTURE = {
    "edge_corr": ("edge correlation", 3),
    "slice_consistency": ("slice consistency", 3),
    "air_leak": ("air leak", 3),
    "dice": ("Dice", 3),
    "volume_error": ("volume error", 3),
    "contrast_ranks": ("contrast ranks", 2),
    "lesions_lost": ("lesions lost", 2),
    "lesions_invented": ("lesions invented", 2),
    "lesion_contrast": ("lesion contrast", 2),
    "lesion_contrast_error": ("lesion contrast error", 3),
}
COLUMNS = {**INTENSITY, **STRUCTURE}
DIFFERENCE_COLUMNS = (
    "psnr_fit", "psnr", "ssim", "nrmse", "edge_corr", "slice_consistency", "air_leak", "dice", "lesions_lost",
    "lesions_invented", "lesion_contrast_error",
)  # fmt: skip
EXPLAINED = (*COLUMNS, "ci95", "images_seen", "wall_s")
ABOUT_FIGURE = (
    "The middle slice of the first test subject by the first seed's models, the head after the fit of brightness and "
    "contrast."
)
TITLES = {"same_contrast": "Same contrast", "coverage": "Coverage", "paper": "Another contrast (the paper's)"}


def markdown(content: Mapping[str, Any], figures: Mapping[str, str] | None = None, notes: str = "") -> str:
    """The whole page.

    Args: figures: by task, the file beside the page with the same slice of every row. notes: what people have written
    about the numbers.
    """
    lines = ["# Fidelity", "", *_head(content), ""]
    if notes:
        lines += ["## What the numbers say", "", notes.strip(), ""]
    for task, found in content["tasks"].items():
        lines += [f"## {TITLES.get(task, task)}", ""]
        if figures and task in figures:
            lines += [f"![The same slice of a test person by every row]({figures[task]})", "", ABOUT_FIGURE, ""]
        lines += [*_task(task, found, content["why_null"]), ""]
    lines += ["## Definitions", ""]
    lines += [f"- `{name}`: {text}." for name, text in content["definitions"].items() if name in EXPLAINED]
    return "\n".join(lines) + "\n"


def _head(content: Mapping[str, Any]) -> list[str]:
    """Command, date, code, and how much of the benchmark is done; the machines are the tasks' own."""
    planned, tested = content["units"]["planned"], content["units"]["tested"]
    part = (
        f"All {planned} trainings and baselines are in these tables."
        if tested >= planned
        else f"**A part: {tested} of {planned} trainings and baselines are in these tables.**"
    )
    seeds = ", ".join(map(str, content["seeds"]))
    claim = "" if content["claims"] else " One seed supports no claim that one row is better than another."
    code = ", ".join(content["code"]) or "unknown"
    return [
        f"Budget `{content['budget']}`: {content['about']}. {part}{claim}",
        "",
        f"- Command: `{content['command']}`",
        f"- Date: {content['date']}; code {code}",
        f"- Seeds {seeds}. All trainings of a task see equally many images, those of their pretext stages included. A "
        "row that trains fewer pretext networks has more epochs of its own stages, lengthened by the same factor.",
        "- Mean over subjects and seeds, inside the head; in brackets: 95 % intervals over people and seeds together.",
    ]


def _task(task: str, found: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    if found["n_test_subjects"] is None:
        return ["No row is tested yet."]
    rows: Mapping[str, Any] = found["rows"]
    people = ", ".join(found["test_people"])
    lines = [f"{found['n_test_subjects']} test subjects of {len(found['test_people'])} people ({people})."]
    dice, share = found["segmenter"]["dice_on_truth"], found["segmenter"]["lesions_found_in_truth"]
    if dice is not None:
        lesions = "" if share is None else f", and finds {share:.0%} of the lesions there"
        lines[-1] += f" On the truth itself the segmenter reaches a Dice coefficient of {dice:.3f}{lesions}."
    lines[-1] += f" Machine: {'; '.join(found['machines'])}."
    lines.append("")
    there = [row for row in rows if rows[row].get("n_seeds") is not None]
    for columns in (INTENSITY, STRUCTURE):
        shown = [name for name in columns if any(_mean(rows[row].get(name)) is not None for row in there)]
        if shown:
            lines += [*_measures(rows, there, shown, with_cost=columns is INTENSITY), ""]
    missing = {row: reasons.get(f"tasks.{task}.rows.{row}") or reasons.get(row, "") for row in rows if row not in there}
    lines += [f"- `{row}` is missing: {why}." for row, why in missing.items()]
    lines += [f"- `{row}` is {rows[row]['note']}." for row in there if "note" in rows[row]]
    lines += [f"- **`{row}`: {rows[row]['mixed']}.**" for row in there if "mixed" in rows[row]]
    lines += ["", *_differences(found.get("differences", {}))]
    return lines


def _measures(rows: Mapping[str, Any], there: Sequence[str], columns: Sequence[str], with_cost: bool) -> list[str]:
    """A table of some measures; with what the rows' trainings cost, if asked for."""
    heading = ["", *(COLUMNS[name][0] for name in columns), *(("seeds", "images", "training (s)") * with_cost)]
    body = []
    for row in there:
        values = rows[row]
        cost = (str(values["n_seeds"] or "-"), str(values["images_seen"] or "-"), f"{values['wall_s']:.0f}")
        cells = (_cell(values.get(name), COLUMNS[name][1]) for name in columns)
        body.append([f"`{row}`", *cells, *(cost * with_cost)])
    return _table(heading, body)


def _differences(found: Mapping[str, Any]) -> list[str]:
    there = {pair: values for pair, values in found.items() if any(map(_mean, values.values()))}
    if not there:
        return []
    heading = ["difference", *(COLUMNS[name][0] for name in DIFFERENCE_COLUMNS)]
    cells = [
        [f"`{pair}`", *(_cell(values.get(name), COLUMNS[name][1], sign="+") for name in DIFFERENCE_COLUMNS)]
        for pair, values in there.items()
    ]
    return _table(heading, cells)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows)]


def _mean(value: Mapping[str, Any] | None) -> float | None:
    return None if value is None else value["mean"]


def _cell(value: Mapping[str, Any] | None, digits: int, sign: str = "") -> str:
    mean = _mean(value)
    if value is None or mean is None:
        return "-"
    text = f"{mean:{sign}.{digits}f}"
    if value["ci95"] is None:
        return text
    low, high = value["ci95"]
    return f"{text} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def printed(content: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal: psnr_fit, PSNR and SSIM of every row that there is."""
    lines = []
    for task, found in content["tasks"].items():
        for row in (*BASELINES, *ROWS):
            values = found["rows"].get(row, {})
            if _mean(values.get("psnr_fit")) is not None:
                cells = (f"{_cell(values[name], COLUMNS[name][1])}" for name in ("psnr_fit", "psnr", "ssim"))
                lines.append(f"{task:14} {row:28} {'   '.join(cells)}")
    return lines
