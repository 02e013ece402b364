"""What scripts/benchmark_fidelity.py does once its command line is parsed."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fidelity.assemble import Assembly
from benchmarks.fidelity.budgets import BUDGETS, Budget
from benchmarks.fidelity.figure import keep_slices, write_figure
from benchmarks.fidelity.plan import Plan
from benchmarks.fidelity.rows import NAMES, ROWS
from benchmarks.fidelity.schedule import Launch, Scheduler, start
from benchmarks.fidelity.store import LESIONS, TABLES, Place, machine, now, write_json
from benchmarks.fidelity.tables import markdown, printed
from benchmarks.fidelity.verify import TOLERANCE, differences, measure_again, verify_units
from util.errors import UserError
from util.reading import read_json

NOTES_NAME = f"{TABLES}_notes_{{budget}}.md"  # written by hand, and part of the page


def benchmark(options: Namespace, launch: Launch = start) -> int:
    """Run the benchmark, or a part of it. Returns 1 if a step has failed, else 0."""
    budget = BUDGETS[options.budget]
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}, need at least 1")
    if options.minutes is not None and not options.minutes > 0:
        raise UserError(f"--minutes is {options.minutes}, it must be above 0")
    place = Place(Path(options.out).resolve(), options.budget, Path(options.docs).resolve())
    plan = Plan(place, budget, chosen_rows(options.models), chosen_tasks(options.tasks, budget), options.amp)
    if options.verify:
        return verify(plan)
    if options.remeasure:
        print(f"measured again: {measure_again(place, list(plan.units()))} results")
        plan.publish()
    if options.assemble or options.remeasure:
        assemble(plan, {})
        return 0
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    scheduler = Scheduler(options.jobs, say=_say, launch=launch, deadline=deadline)
    finished = scheduler.run(plan.steps("val"))
    plan.publish()
    if not (finished or scheduler.failed):
        print("not finished: the same command goes on")
    elif options.read_test or all_trained(plan):
        for phase in ("test", LESIONS):
            scheduler.run(plan.steps(phase))
        plan.publish()
    elif finished:
        print("the test people are not read: other rows of the budget are not trained yet (--read_test reads them now)")
    assemble(plan, scheduler.failed)
    for step, why in scheduler.failed.items():
        print(f"failed: {step}: {why}")
    return 1 if scheduler.failed else 0


def chosen_rows(names: str | None) -> list[str] | None:
    """The rows that --models names: a row, or all rows of a model. None: all.

    Raises: UserError: an unknown name.
    """
    if names is None:
        return None
    found: list[str] = []
    for name in names.split(","):
        rows = [row for row in NAMES if name == row or (row in ROWS and ROWS[row].model == name and name not in NAMES)]
        if not rows:
            raise UserError(f"--models {name}: unknown, choose from {', '.join(NAMES)}")
        found += rows
    return found


def chosen_tasks(names: str | None, budget: Budget) -> list[str] | None:
    """The tasks that --tasks names. None: all.

    Raises: UserError: an unknown name.
    """
    if names is None:
        return None
    chosen = names.split(",")
    for name in chosen:
        if name not in budget.rows:
            raise UserError(f"--tasks {name}: unknown, choose from {', '.join(budget.rows)}")
    return chosen


def all_trained(plan: Plan) -> bool:
    """Whether all rows of the budget that can be had are trained and tested on validation people."""
    return all(step.done.is_file() for step in plan.steps("val", all_rows=True))


def assemble(plan: Plan, failed: Mapping[str, str]) -> dict[str, Any] | None:
    """Write the tables from the units, if any is tested; print what there is."""
    place, budget = plan.place, plan.budget
    units = place.published_units()
    _print_validation(units)
    if not any("test" in unit for unit in units):
        return None
    content = content_of(place.budget, budget, units, failed)
    page = place.tables(".md")
    write_json(place.tables(".json"), content)
    figures = _figures(place, budget, units)
    notes = place.published / NOTES_NAME.format(budget=place.budget)
    written = notes.read_text(encoding="utf-8") if notes.is_file() else ""
    page.write_text(markdown(content, figures, written), encoding="utf-8")
    print("test people: PSNR after fit, PSNR, SSIM")
    for line in printed(content):
        print(line)
    print(f"written: {page}")
    return content


def _figures(place: Place, budget: Budget, units: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Keep the slices that are here and draw all that are kept. Returns the names of the figures, by task."""
    tested = {(unit["task"], unit["row"]) for unit in units if "test" in unit}
    for task, rows in budget.rows.items():
        there = [row for row in rows if (task, row) in tested]
        keep_slices(place, task, there, budget.seeds[0])
        write_figure(place, task, there, budget.seeds[0], place.figure(task))
    return {task: path.name for task in budget.rows if (path := place.figure(task)).is_file()}


def verify(plan: Plan) -> int:
    """Compute the chosen units' numbers from their predictions and all tables from all units. 1: they differ."""
    place = plan.place
    if not (units := place.published_units()):
        raise UserError(f"--verify: {place.units} holds no units of --budget {place.budget}")
    verdict = verify_units(place, [unit for unit in units if plan.names(unit["task"], unit["row"])])
    path = place.tables(".json")
    written = read_json(path) if path.is_file() else {}
    if written.get("budget") == place.budget:
        again = content_of(place.budget, plan.budget, units, {})
        for part in ("tasks", "images_seen", "seeds", "units"):
            verdict.differences += [f"{path.name}: {text}" for text in differences(written[part], again[part])]
    else:
        verdict.unverified.append(f"{path}: not of --budget {place.budget}")
    for line in verdict.unverified:
        print(f"not verified: {line}")
    for line in verdict.differences:
        print(f"DIFFERENT: {line}")
    print(
        f"{verdict.checked} of {verdict.checked + len(verdict.unverified)} parts verified from predictions and truth "
        f"(tolerance {TOLERANCE:g}, relative, absolute below 1): {len(verdict.differences)} differences"
    )
    return 1 if verdict.differences else 0


def content_of(
    name: str, budget: Budget, units: Sequence[Mapping[str, Any]], failed: Mapping[str, str]
) -> dict[str, Any]:
    """The content of fidelity.json. Machine and date are those of the units."""
    tested = [unit["test"] for unit in units if "test" in unit]
    machines = "; ".join(sorted({test["machine"] for test in tested})) or machine()
    dates = sorted(test["date"][:10] for test in tested) or [now()[:10]]
    date = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    command = f"python scripts/benchmark_fidelity.py --budget {name}"
    return Assembly(name, budget, units, failed).content(machine=machines, date=date, command=command)


def _print_validation(units: Sequence[Mapping[str, Any]]) -> None:
    """A line for every unit on validation people."""
    there = [unit for unit in units if "val" in unit]
    if there:
        print("validation people: PSNR after fit, PSNR, SSIM")
    for unit in there:
        scores = unit["val"]["subjects"].values()
        means = [sum(one[name] for one in scores) / len(scores) for name in ("psnr_fit", "psnr", "ssim")]
        print(f"{unit['task']:14} {unit['row']:28} {unit['seed']}  {means[0]:.2f}  {means[1]:.2f}  {means[2]:.4f}")


def _say(line: str) -> None:
    print(line, flush=True)
