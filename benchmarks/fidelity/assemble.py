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
from benchmarks.fidelity.store import LESIONS
from evaluation import paired, unpaired
from evaluation.metrics.intervals import (
    LEAST_SEEDS,
    crossed_interval95,
    mean_interval95,
    why_no_crossed_interval,
    why_no_interval,
)
from evaluation.metrics.tissues import FOUND, LEAST_VOXELS, LOST_VOXELS
from evaluation.record import Record

Units = Sequence[Mapping[str, Any]]

TISSUE = ("dice", "volume_error", "contrast_ranks", "lesions_invented")
LOST = "lesions_lost"
IN_LESIONS = (LOST, "lesion_contrast", "lesion_contrast_error")  # measured on other heads than the rest
MEASURES = (*(name for name in paired.SCORED if not name.endswith("_full")), *TISSUE)
LEAST_SEEN = 0.5  # part of the lesions that the segmenter must find in the truth's images
GAP_MEASURE, LEAST_GAP = "psnr_fit", 1.0  # dB
LATER = "not measured yet; --remeasure measures the kept predictions"
NO_LESIONS = "the heads with lesions are not tested yet"
WHY_NONE = {
    "dice": "a head lacks one of the tissues",
    "volume_error": "a head lacks one of the tissues",
    "contrast_ranks": "a head lacks one of the tissues",
    LOST: "no lesion is found in the truth's images",
    "lesion_contrast": "no lesion lies in grey or white matter",
    "lesion_contrast_error": "no lesion lies in grey or white matter",
}
NOT_HERE = {
    "lpips": "no LPIPS weights are part of this repository",
}
DEFINITIONS = {
    **{name: paired.DEFINITIONS[name] for name in (*MEASURES, "head") if name in paired.DEFINITIONS},
    "dice": "Dice coefficient of CSF, grey and white matter, their mean, between the simulator's labels and what a "
    "segmenter (2-D U-Net, trained on true high-field slices of training people, the same for all rows) finds in the "
    "prediction; `segmenter` says what it reaches on the truth's images",
    "volume_error": "|volume found - true volume| / true volume of the same three tissues by the same segmenter, mean",
    "contrast_ranks": "part of the three pairs of CSF, grey and white matter (by the labels) whose medians are in the "
    "truth's order of brightness",
    "lesions_invented": f"lesions per head, at least {LEAST_VOXELS} connected voxels, that the segmenter finds in the "
    "prediction and that touch neither a lesion of the head nor one that it finds in the truth's image",
    LOST: f"of the lesions of at least {LOST_VOXELS} voxels that the segmenter finds in the truth's images of further "
    f"heads of the test people, the part that it does not find in the predictions (found: {FOUND:.0%} of the voxels); "
    f"null if it finds fewer than {LEAST_SEEN:.0%} in the truth",
    "lesion_contrast": "a lesion's mean less that of the grey and white matter within 3 px around it, as a part of "
    f"the truth's (slope through all lesions of a head of at least {LOST_VOXELS} voxels, by the labels, after the "
    "affine fit of `psnr_fit`): 1 is right, less is a lesion that fades; of the heads of `lesions_lost`",
    "lesion_contrast_error": "mean difference of that contrast from the truth's, as a part of the truth's mean",
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
    def of(cls, units: Units, phase: str = "test") -> Scored:
        """From the units of a row, one a seed, which have the same subjects in a phase."""
        first = units[0][phase]["subjects"]
        subjects = list(first)
        names = [name for name in first[subjects[0]] if name != "person"]
        every = [[unit[phase]["subjects"][subject] for unit in units] for subject in subjects]
        values = {  # a measure that has come in since the earlier units were measured has no number there
            name: np.array([[np.nan if one.get(name) is None else one[name] for one in row] for row in every])
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
        self.lesions: dict[str, Scored] = {}  # of the task at hand

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
        found = {row: sorted(units, key=lambda unit: unit["seed"]) for row, units in found.items()}
        scored = {row: Scored.of(units) for row, units in found.items()}
        with_lesions = {row: [unit for unit in units if LESIONS in unit] for row, units in found.items()}
        self.lesions = {row: Scored.of(units, LESIONS) for row, units in with_lesions.items() if units}
        if not scored:
            self.record.null("tasks", task, "n_test_subjects", why="no row is tested yet")
        for one in list(scored.values())[:1]:
            self.record.put("tasks", task, "n_test_subjects", value=len(one.subjects))
            self.record.put("tasks", task, "test_people", value=sorted(set(one.people)))
            machines = {unit["test"]["machine"] for units in found.values() for unit in units}
            self.record.put("tasks", task, "machines", value=sorted(machines))
        why_not_lost = self._segmenter(task, list(scored.values()))
        for row in self.budget.rows[task]:
            if row in scored:
                path = ("tasks", task, "rows", row)
                self._in_lesions(path, self.lesions.get(row), row in BASELINES, why_not_lost)
                self._row(task, row, scored, found[row])
            else:
                self.record.null("tasks", task, "rows", row, leaves=(*MEASURES, SET_MEASURE), why=self._why(task, row))
        for first, second in DIFFERENCES:
            if {first, second} <= set(self.budget.rows[task]):
                path = ("tasks", task, "differences", f"{first} - {second}")
                self._difference(path, first, second, scored)
                between = self._between(first, second, self.lesions)
                self._in_lesions(path, between if isinstance(between, Scored) else None, False, why_not_lost)

    def _segmenter(self, task: str, scored: Sequence[Scored]) -> str:
        """Write what the segmenter reaches on the truth. Returns why it cannot tell what is lost; empty if it can."""
        path = ("tasks", task, "segmenter")
        known = [one.values["dice_of_truth"] for one in scored if "dice_of_truth" in one.values]
        if known and np.isfinite(known[0]).any():
            self.record.put(*path, "dice_on_truth", value=float(np.nanmean(known[0])))
        else:
            self.record.null(*path, "dice_on_truth", why=LATER)
        if not self.lesions:
            self.record.null(*path, "lesions_found_in_truth", why=NO_LESIONS)
            return NO_LESIONS
        one = next(iter(self.lesions.values()))
        share = float(one.values["lesions_seen"][:, 0].sum() / max(1.0, one.values["lesions"][:, 0].sum()))
        self.record.put(*path, "lesions_found_in_truth", value=share)
        return "" if share >= LEAST_SEEN else f"the segmenter finds {share:.0%} of the lesions in the truth itself"

    def _in_lesions(self, path: tuple[str, ...], one: Scored | None, without_seeds: bool, why_not_lost: str) -> None:
        """The measures of the heads with lesions, of a row or of a difference; the segmenter decides on one of them."""
        for measure in IN_LESIONS:
            why = why_not_lost if measure == LOST else ""
            if one is None or why:
                self.record.null(*path, measure, leaves=("mean", "ci95"), why=why or NO_LESIONS)
            else:
                self._measure((*path, measure), one, measure, without_seeds)

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
            why = {**paired.WHY_NONE, **WHY_NONE}.get(measure, paired.WHY_NONE_ELSE)
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

    def _difference(self, path: tuple[str, ...], first: str, second: str, scored: Mapping[str, Scored]) -> None:
        between = self._between(first, second, scored)
        for measure in MEASURES:
            if isinstance(between, Scored):
                self._measure((*path, measure), between, measure, False)
            else:
                self.record.null(*path, measure, leaves=("mean", "ci95"), why=between)

    @staticmethod
    def _between(first: str, second: str, scored: Mapping[str, Scored]) -> Scored | str:
        """The first row less the second, for the seeds that both have; or why there is no such thing."""
        if not {first, second} <= scored.keys():
            return f"no {' and '.join(row for row in (first, second) if row not in scored)}"
        a, b = scored[first], scored[second]
        seeds = a.seeds if second in BASELINES else [seed for seed in a.seeds if seed in b.seeds]
        if not seeds:
            return "no seed that both rows have"
        a, b = a.at(seeds), b.at(seeds)
        values = {name: a.values[name] - b.values[name] for name in a.values if name in b.values}
        return Scored(seeds, a.people, a.subjects, values)

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
