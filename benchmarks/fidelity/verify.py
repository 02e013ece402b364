"""`--verify`: compute every number once more, from the kept predictions and the truth, and compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fidelity.measure import Measured, prediction_path
from benchmarks.fidelity.store import PHASES, Place, write_json
from evaluation.predict import Device
from util.device import choose_device
from util.errors import UserError
from util.reading import read_json

TOLERANCE = 1e-4  # relative, and absolute below 1: sums of another processor or library version round otherwise
BATCH = 16


@dataclass
class Verdict:
    """What was found. differences: places where a number differs. unverified: what could not be computed, and why."""

    checked: int = 0
    differences: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)


def verify_units(place: Place, units: list[dict[str, Any]]) -> Verdict:
    """Compare the numbers of all published units with those of their predictions."""
    verdict = Verdict()
    splits: dict[tuple[str, str], Measured | str] = {}
    for unit in units:
        task, row, seed = unit["task"], unit["row"], unit["seed"]
        for phase in (phase for phase in PHASES if phase in unit):
            name = f"{task} {row} {seed} {phase}"
            if (task, phase) not in splits:
                splits[task, phase] = _split(place, task, phase)
            split = splits[task, phase]
            folder = place.unit(task, row, seed) / phase
            why = split if isinstance(split, str) else _missing(folder, split)
            if isinstance(split, str) or why:
                verdict.unverified.append(f"{name}: {why}")
                continue
            verdict.checked += 1
            again = split.row(folder)
            for part in again:
                if younger := _younger(unit[phase][part], again[part]):
                    verdict.unverified.append(f"{name}: has no {', '.join(younger)}; --remeasure adds what is new")
                verdict.differences += [f"{name}: {text}" for text in differences(unit[phase][part], again[part])]
    return verdict


def measure_again(place: Place, units: Sequence[tuple[str, str, int]]) -> int:
    """Measure all kept predictions once more, with the measures of today. Returns how many results were written."""
    splits: dict[tuple[str, str], Measured | str] = {}
    count = 0
    for task, row, seed in units:
        for phase in PHASES:
            folder = place.unit(task, row, seed)
            path = folder / f"{phase}.json"
            if not path.is_file():
                continue
            if (task, phase) not in splits:
                splits[task, phase] = _split(place, task, phase)
            split = splits[task, phase]
            if isinstance(split, str):
                raise UserError(f"--remeasure: {split}")
            if why := _missing(folder / phase, split):
                raise UserError(f"--remeasure: {why}")
            write_json(path, {**read_json(path), **split.row(folder / phase)})
            count += 1
    return count


def _younger(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Measures that have come in since the numbers were written."""
    found = {key for key in now if key not in before}
    nested = [(before[key], now[key]) for key in now if key in before and isinstance(now[key], Mapping)]
    return sorted(found.union(*(_younger(old, new) for old, new in nested)))


def _split(place: Place, task: str, phase: str) -> Measured | str:
    """What measures a phase, or why it cannot be had."""
    try:
        return Measured(place, task, phase, Device(choose_device("-1"), BATCH))
    except UserError as error:
        return f"{error}"


def _missing(folder: Path, split: Measured) -> str:
    lacking = [subject for subject in split.positions if not prediction_path(folder, subject).is_file()]
    return f"predictions of {len(lacking)} subjects are not in {folder}" if lacking else ""


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Where two trees of numbers differ by more than the tolerance, in words; what only `now` has is left out."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            if key not in now:
                yield f"{path}{key}: only in the file"
            elif key in before:
                yield from differences(before[key], now[key], f"{path}{key}.")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{path}{i}.")
    elif not _equal(before, now):
        yield f"{path.rstrip('.')}: {before} in the file, {now} now"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(a == b)
