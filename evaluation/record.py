"""`metrics.json` and `metrics.csv`: every number has a definition, every null a reason; no NaN or infinity."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from util.files import replace_text

Scores = dict[str, float | None]
Value = float | int | str | list[float] | list[int] | list[str] | list[dict[str, str]] | None


class Record:
    """The content of `metrics.json`, set leaf by leaf, with a reason for every null."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self._reasons: dict[tuple[str, ...], str] = {}

    def put(self, *path: str, value: Value) -> None:
        """Set the leaf at `path`. A number that is not finite becomes a null with this reason."""
        if value is None:
            raise ValueError(f"{'.'.join(path)}: a null needs a reason, use null()")
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            self.null(*path, why="the value is not a finite number")
            return
        self._branch(path[:-1])[path[-1]] = value

    def null(self, *path: str, why: str, leaves: tuple[str, ...] = ()) -> None:
        """Set `path` to null, or to a branch of null `leaves`, and record the reason."""
        self._branch(path[:-1])[path[-1]] = dict.fromkeys(leaves) if leaves else None
        self._reasons[path] = why

    def reason(self, *path: str) -> str | None:
        """Why the value at `path`, or a branch above it, is null."""
        return next((self._reasons[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._reasons), None)

    def _branch(self, path: tuple[str, ...]) -> dict[str, Any]:
        branch = self.tree
        for key in path:
            branch = branch.setdefault(key, {})
        return branch

    def why_null(self) -> dict[str, str]:
        """Reasons by dotted path, or by the last name if all nulls of that name have the same reason."""
        by_name: dict[str, set[str]] = {}
        for path, why in self._reasons.items():
            by_name.setdefault(path[-1], set()).add(why)
        short = {path: len(by_name[path[-1]]) == 1 for path in self._reasons}
        return {path[-1] if short[path] else ".".join(path): why for path, why in sorted(self._reasons.items())}

    def as_json(self, definitions: Mapping[str, str]) -> dict[str, Any]:
        """The content of `metrics.json`."""
        unexplained = [path for path in null_paths(self.tree) if self.reason(*path) is None]
        assert not unexplained, f"nulls without a reason: {unexplained}"
        return {**self.tree, "definitions": dict(definitions), "why_null": self.why_null()}


def null_paths(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all nulls in a nested mapping."""
    found: list[tuple[str, ...]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += null_paths(value, (*above, key))
        elif value is None:
            found.append((*above, key))
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Strict JSON, whole or not at all: NaN or infinity raises ValueError."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    with replace_text(path) as file:
        file.write(text)


def write_csv(path: Path, rows: Mapping[str, Mapping[str, Scores]], measures: tuple[str, ...]) -> None:
    """One line per subject and row; a null is an empty cell. `rows`: row name -> subject -> measure -> value."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["subject", "row", *measures])
        for row, subjects in rows.items():
            for subject, scores in subjects.items():
                cells = [scores.get(measure) for measure in measures]
                writer.writerow([subject, row, *("" if cell is None else f"{cell:.6g}" for cell in cells)])
