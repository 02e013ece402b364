"""From the numbers of the units to `fidelity.json`: means, intervals over people and seeds, differences, gap closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.fidelity.budgets import Budget
from benchmarks.fidelity.measure import SET_MEASURE
from benchmarks.fidelity.plan import changes
from benchmarks.fidelity.rows import BASELINES, DIFFERENCES, ROWS, UPPER_BOUND, trained_by
from evaluation import paired, unpaired
from evaluation.metrics.intervals import (
    LEAST_SEEDS,
    crossed_interval95,
    mean_interval95,
    why_no_crossed_interval,
    why_no_interval,
)
from evaluation.record import Record

Units = Sequence[Mapping[str, Any]]

MEASURES = tuple(name for name in paired.MEASURES if not name.endswith("_full"))
GAP_MEASURE, LEAST_GAP = "psnr_fit", 1.0  # dB
LATER = "not measured by this version"
NOT_HERE = {
    "lpips": "no LPIPS weights are part of this repository",
}
DEFINITIONS = {
    **{name: paired.DEFINITIONS[name] for name in (*MEASURES, "head")},
    SET_MEASURE: unpaired.DEFINITIONS[SET_MEASURE] + "; mean over seeds",
    "ci95": "95 % t interval of the mean over subjects and seeds, with the squared errors between people and between "
    f"seeds added up; null with fewer than {LEAST_SEEDS} seeds, 12 subjects or 4 people; of a row without training, "
    "between people alone",
    "gap_closed": f"(row - classical) / ({UPPER_BOUND} - classical) in {GAP_MEASURE}, for rows with that row's "
    f"generator; null where the denominator is under {LEAST_GAP:g} dB, or the upper bound's validation curve "
    "still rises",
    "images_seen": "items of batches, each a slice of A and one of B, in all stages of the training, pretext stages "
    "included; mean over seeds",
    "wall_s": "seconds of the training, one thread beside other trainings; mean over seeds; of a row without training, "
    "fitting and predicting",
}


@dataclass(frozen=True)
class Scored:
    """A row on the test people: `values[measure]` is (subjects, seeds), NaN where there is no number."""

    seeds: list[int]
    people: list[str]
    subjects: list[str]
    values: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, units: Units) -> Scored:
        """From the units of a row, one a seed, which have the same test subjects."""
        first = units[0]["test"]["subjects"]
        subjects = list(first)
        names = [name for name in first[subjects[0]] if name != "person"]
        every = [[unit["test"]["subjects"][subject] for unit in units] for subject in subjects]
        values = {
            name: np.array([[np.nan if one[name] is None else one[name] for one in row] for row in every])
            for name in names
        }
        return cls([unit["seed"] for unit in units], [first[s]["person"] for s in subjects], subjects, values)

    def at(self, seeds: Sequence[int]) -> Scored:
        """The same with these seeds alone; a row without training has the same numbers for all."""
        chosen = [0] * len(seeds) if len(self.seeds) == 1 else [self.seeds.index(seed) for seed in seeds]
        return Scored(
            list(seeds), self.people, self.subjects, {name: values[:, chosen] for name, values in self.values.items()}
        )


class Assembly:
    """Makes `fidelity.json` from units. Rows without units of the test are null, with their reason."""

    def __init__(self, name: str, budget: Budget, units: Units, failed: Mapping[str, str] | None = None) -> None:
        self.name, self.budget, self.units, self.failed = name, budget, units, failed or {}
        self.record = Record()

    def content(self, *, machine: str, date: str, command: str) -> dict[str, Any]:
        """The whole file."""
        record, budget = self.record, self.budget
        for key, text in (("budget", self.name), ("about", budget.about), ("machine", machine), ("date", date)):
            record.put(key, value=text)
        record.put("claims", value=budget.claims)
        record.put("command", value=command)
        record.put("seeds", value=list(budget.seeds))
        totals = [total for unit in self.units if "options" in unit for total in [_images(unit)] if total]
        record.put("images_seen", value=max(totals, default=0))
        record.put("code", value=sorted({unit["code"] for unit in self.units if "code" in unit}))
        planned, done = self._counts()
        record.put("units", "planned", value=planned)
        record.put("units", "tested", value=done)
        for task in budget.rows:
            self._task(task)
        return record.as_json(DEFINITIONS)

    def _counts(self) -> tuple[int, int]:
        rows = [row for rows in self.budget.rows.values() for row in rows]
        planned = sum(1 if row in BASELINES else len(self.budget.seeds) for row in rows)
        return planned, sum("test" in unit for unit in self.units)

    def _task(self, task: str) -> None:
        found: dict[str, list[Mapping[str, Any]]] = {}
        for unit in self.units:
            if unit["task"] == task and "test" in unit and unit["row"] in self.budget.rows[task]:
                found.setdefault(unit["row"], []).append(unit)
        scored = {row: Scored.of(sorted(units, key=lambda unit: unit["seed"])) for row, units in found.items()}
        if not scored:
            self.record.null("tasks", task, "n_test_subjects", why="no row is tested yet")
        for one in list(scored.values())[:1]:
            self.record.put("tasks", task, "n_test_subjects", value=len(one.subjects))
            self.record.put("tasks", task, "test_people", value=sorted(set(one.people)))
        for row in self.budget.rows[task]:
            if row in scored:
                self._row(task, row, scored, found[row])
            else:
                self.record.null("tasks", task, "rows", row, leaves=(*MEASURES, SET_MEASURE), why=self._why(task, row))
        for first, second in DIFFERENCES:
            if {first, second} <= set(self.budget.rows[task]):
                self._difference(task, first, second, scored)

    def _why(self, task: str, row: str) -> str:
        """Why a row has no numbers."""
        if row not in BASELINES and ROWS[row].why_missing:
            return ROWS[row].why_missing
        base = row if row in BASELINES else trained_by(row)
        lost = [why for step, why in self.failed.items() if step.startswith(f"{task} {base} ")]
        return f"it has failed: {lost[0]}" if lost else "not finished when this was written"

    def _row(self, task: str, row: str, scored: Mapping[str, Scored], units: Units) -> None:
        record, path, one = self.record, ("tasks", task, "rows", row), scored[row]
        for measure in MEASURES:
            self._measure((*path, measure), one, measure, row in BASELINES)
        sets = [value for unit in units if (value := unit["test"]["sets"].get(SET_MEASURE)) is not None]
        if sets:
            record.put(*path, SET_MEASURE, "mean", value=float(np.mean(sets)))
            record.null(*path, SET_MEASURE, "ci95", why="a distance of sets has no value for a person")
        else:
            record.null(*path, SET_MEASURE, leaves=("mean", "ci95"), why="fewer than two people with real slices")
        for measure, why in NOT_HERE.items():
            record.null(*path, measure, leaves=("mean", "ci95"), why=why)
        self._gap(path, row, scored)
        record.put(*path, "n_seeds", value=0 if row in BASELINES else len(one.seeds))
        record.put(*path, "wall_s", value=float(np.mean([unit["test"]["training"]["wall_s"] for unit in units])))
        record.put(*path, "images_seen", value=round(float(np.mean([_images(unit) for unit in units]))))
        for stage in units[0]["test"]["training"]["images"]:
            seen = [unit["test"]["training"]["images"].get(stage, 0) for unit in units]
            record.put(*path, "images_by_stage", stage, value=round(float(np.mean(seen))))
        if other := {text for unit in units[1:] if (text := changes(*map(_without_seed, (units[0], unit))))}:
            record.put(*path, "mixed", value=f"its seeds were not trained alike: {'; '.join(sorted(other))}")
        if row not in BASELINES and ROWS[row].before_refinement:
            why = f"the training of {ROWS[row].before_refinement} before its refinement, so it has seen fewer images"
            record.put(*path, "note", value=why)

    def _measure(self, path: tuple[str, ...], one: Scored, measure: str, without_seeds: bool) -> None:
        """Mean and interval of a measure of a row, or of a difference between two."""
        values = one.values.get(measure)
        if values is None:
            self.record.null(*path, leaves=("mean", "ci95"), why=LATER)
            return
        known = np.flatnonzero(np.isfinite(values).all(1))
        if not len(known):
            why = paired.WHY_NONE.get(measure, paired.WHY_NONE_ELSE)
            self.record.null(*path, leaves=("mean", "ci95"), why=why)
            return
        values, people = values[known], [one.people[i] for i in known]
        self.record.put(*path, "mean", value=float(values.mean()))
        counts = len(values), len(set(people))
        if without_seeds:
            interval, reason = mean_interval95(values.mean(1).tolist(), people), why_no_interval(*counts)
        else:
            interval = crossed_interval95(values, people)
            reason = why_no_crossed_interval(*counts, len(one.seeds))
        if interval is None:
            self.record.null(*path, "ci95", why=reason or "")
        else:
            self.record.put(*path, "ci95", value=list(interval))

    def _difference(self, task: str, first: str, second: str, scored: Mapping[str, Scored]) -> None:
        path = ("tasks", task, "differences", f"{first} - {second}")
        if not {first, second} <= scored.keys():
            missing = " and ".join(row for row in (first, second) if row not in scored)
            self.record.null(*path, leaves=MEASURES, why=f"no {missing}")
            return
        a, b = scored[first], scored[second]
        seeds = a.seeds if second in BASELINES else [seed for seed in a.seeds if seed in b.seeds]
        if not seeds:
            self.record.null(*path, leaves=MEASURES, why="no seed that both rows have")
            return
        a, b = a.at(seeds), b.at(seeds)
        between = {name: a.values[name] - b.values[name] for name in a.values if name in b.values}
        for measure in MEASURES:
            self._measure((*path, measure), Scored(seeds, a.people, a.subjects, between), measure, False)

    def _gap(self, path: tuple[str, ...], row: str, scored: Mapping[str, Scored]) -> None:
        """gap_closed, with the interval of its linear approximation (delta method)."""
        why = self._why_no_gap(path[1], row, scored)
        if why:
            self.record.null(*path, "gap_closed", leaves=("mean", "ci95"), why=why)
            return
        one, best = scored[row], scored[UPPER_BOUND]
        seeds = best.seeds if row in BASELINES else [seed for seed in one.seeds if seed in best.seeds]
        floor = scored["classical"].at(seeds).values[GAP_MEASURE]
        gained = one.at(seeds).values[GAP_MEASURE] - floor
        whole = best.at(seeds).values[GAP_MEASURE] - floor
        if whole.mean() < LEAST_GAP:
            why = f"{UPPER_BOUND} is {whole.mean():.2f} dB above classical, under {LEAST_GAP:g} dB"
            self.record.null(*path, "gap_closed", leaves=("mean", "ci95"), why=why)
            return
        share = gained.mean() / whole.mean()
        linear = share + (gained - share * whole) / whole.mean()
        closed = Scored(seeds, one.people, one.subjects, {"gap_closed": linear})
        self._measure((*path, "gap_closed"), closed, "gap_closed", False)

    def _why_no_gap(self, task: str, row: str, scored: Mapping[str, Scored]) -> str:
        if missing := [name for name in (UPPER_BOUND, "classical") if name not in scored]:
            return f"no {' and no '.join(missing)}"
        if row not in BASELINES and ROWS[row].netG != ROWS[UPPER_BOUND].netG:
            return f"another generator than {UPPER_BOUND}"
        seeds = scored[UPPER_BOUND].seeds
        if row not in BASELINES and not set(scored[row].seeds) & set(seeds):
            return f"no seed that {UPPER_BOUND} has"
        bound = [unit for unit in self.units if unit["task"] == task and unit["row"] == UPPER_BOUND]
        if any(not unit["val"].get("flat", False) for unit in bound if "val" in unit):
            return f"the validation curve of {UPPER_BOUND} still rises at its end"
        return ""


def _without_seed(unit: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in unit.get("resolved", {}).items() if name != "seed"}


def _images(unit: Mapping[str, Any]) -> int:
    """Images that a unit's training has seen."""
    phase = unit.get("test") or unit.get("val") or {"training": {"images": {}}}
    return sum(phase["training"]["images"].values())
