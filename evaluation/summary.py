"""The most important results, printed at the end of a test."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from evaluation.page.protocol import protocol_columns, protocol_heading
from evaluation.page.trust import trust_sentence
from evaluation.page.words import LSC_ROWS, ROW_NAMES, number
from evaluation.record import Record

COLUMNS = ("psnr_fit", "psnr", "ssim", "nrmse")


def print_summary(record: Record, console: Console | None = None) -> None:
    """Print the results, and the reason for each missing section."""
    console = console or Console()
    for section, table in (("paired", _paired), ("sgp", _levels), ("lsc", _restoration)):
        if record.tree.get(section) is None:
            console.print(f"{section}: not measured, {record.reason(section)}", markup=False, highlight=False)
        else:
            console.print(table(record))
    if record.tree.get("protocol"):
        console.print(_protocol(record))
    if record.tree.get("trust"):
        console.print(trust_sentence(record.tree["trust"]), markup=False, highlight=False, soft_wrap=True)
    if record.tree.get("verdict"):
        console.print(record.tree["verdict"], markup=False, highlight=False, soft_wrap=True)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table("", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _paired(record: Record) -> Table:
    table = _table("inside the head, mean over subjects", COLUMNS)
    for row, measures in record.tree["paired"].items():
        values = [None if measures[column] is None else measures[column]["mean"] for column in COLUMNS]
        table.add_row(ROW_NAMES[row], *map(number, values))
    return table


def _protocol(record: Record) -> Table:
    found = record.tree["protocol"]
    columns = protocol_columns(found)
    table = _table(protocol_heading(found), tuple(columns))
    for row, scores in found.get("scores", {}).items():
        table.add_row(ROW_NAMES[row], *(number(scores[column]) for column in columns))
    return table


def _levels(record: Record) -> Table:
    table = _table("SGP: level error, mm", ("median", "p95"))
    for row, values in record.tree["sgp"]["level_error_mm"].items():
        table.add_row(ROW_NAMES[row], number(values["median"]), number(values["p95"]))
    return table


def _restoration(record: Record) -> Table:
    table = _table("LSC: restoration inside the head", ("PSNR (dB)",))
    for row, name in LSC_ROWS.items():
        table.add_row(name, number(record.tree["lsc"]["psnr"][row]))
    return table
