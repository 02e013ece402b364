"""`index.html` of a comparison: which run is best in what, the same slices through each run, and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dominate import tags

from evaluation.comparison import Comparison, Mean, far_apart, means_of, pictures, verdict
from evaluation.page import tables
from evaluation.page.tables import FIRST_COLUMNS, grid, paired_cell
from evaluation.page.viewer import STYLE, add_script, viewer
from evaluation.page.words import KIND_NAMES, ROW_NAMES, higher_is_better, in_order, number, plain
from evaluation.paired import DEFINITIONS
from evaluation.people import OURS, PERSON_MEASURES, person_means
from evaluation.unpaired import MEASURES as UNPAIRED_MEASURES
from util.files import replace_text
from util.html_page import json_in_script, new_page, shown
from util.line_plot import LOOKS, Line, line_plot

FOLDER = "browser"  # beside the page
FAR_APART = 12  # slices that the page lists
SHOWN_LEFT_OUT = 5
RUN_LOOKS = tuple(look for look in LOOKS if look.startswith("c"))
ONE_TRAINING = (
    "An interval tells how much a difference would change with other people. It does not tell how much it would change "
    "with other seeds: two trainings of one method differ as well."
)
Curves = Mapping[str, Mapping[str, Mapping[str, tuple[list[float], list[float]]]]]  # run -> stage -> loss -> points


def write_comparison(out: Path, comparison: Comparison, curves: Curves, command: str) -> Path:
    """Write the page and the pictures that it shows into a folder. Returns the page. Raises: UserError, OSError."""
    subjects = _write_pictures(out, comparison)
    names = [result.name for result in comparison.results]
    page = new_page(shown(f"{', '.join(names)}: comparison"), STYLE)
    with page, tags.main():
        tags.h1(shown(" and ".join(names) if len(names) < 3 else f"{len(names)} runs"))
        tags.p(f"Comparison, {datetime.now():%Y-%m-%d %H:%M}", cls="sub")
        tags.p(tags.b(shown(verdict(comparison))), cls="verdict")
        _data(comparison)
        _against_truth(comparison)
        _differences(comparison)
        _people(comparison)
        _sets(comparison)
        if subjects:
            _key(names)
            viewer("slices", "Slices", subjects, _panels(comparison, subjects))
            _far_apart(comparison, subjects)
        else:
            tags.p("There are no pictures to browse: these results have no folder browser/.", cls="sub")
        _curves(curves)
        _origin(comparison, command)
        tags.footer("For research only, not for diagnosis.")
        if subjects:
            add_script()
    with replace_text(out / "index.html") as file:
        file.write(page.render(pretty=False))
    return out / "index.html"


def _write_pictures(out: Path, comparison: Comparison) -> list[dict[str, Any]]:
    """The subjects that every result has pictures of, each with its files, written anew as data alone."""
    found = []
    for place, subject in enumerate(comparison.subjects, start=1):
        if any(subject not in result.numbers for result in comparison.results):
            continue
        files = []
        for number_, result in enumerate(comparison.results, start=1):
            content = pictures(result, subject)
            (out / FOLDER).mkdir(parents=True, exist_ok=True)
            files.append(f"{FOLDER}/{place:04d}_{number_}.js")
            with replace_text(out / files[-1]) as file:
                file.write(f"ptaSlices({json_in_script(content)});\n")
        kinds = [kind for kind in KIND_NAMES if kind in content["sheets"]]
        found.append(
            {"name": shown(subject), "person": shown(comparison.people[subject]), "files": files, "kinds": kinds}
        )
    return found


def _panels(comparison: Comparison, subjects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Input, each run's synthesis, truth, each run's error."""
    with_truth = any("truth" in subject["kinds"] for subject in subjects)
    runs = list(enumerate(shown(result.name) for result in comparison.results))
    found = [{"label": KIND_NAMES["real_A"], "file": 0, "kind": "real_A"}]
    found += [{"label": name, "file": i, "kind": "fake_B"} for i, name in runs]
    if with_truth:
        found.append({"label": KIND_NAMES["truth"], "file": 0, "kind": "truth"})
        found += [{"label": f"error: {name} - truth", "file": i, "kind": "error"} for i, name in runs]
    return found


def _key(names: Sequence[str]) -> None:
    with tags.p(cls="key"):
        for i, name in enumerate(names):
            tags.b("● ", cls=_look(i))
            tags.span(f"{shown(name)}   ")


def _look(number_: int) -> str:
    return RUN_LOOKS[number_ % len(RUN_LOOKS)]


def _data(comparison: Comparison) -> None:
    """Whether all were tested on the same slices, and what is left out."""
    if comparison.same_tests and not comparison.left_out:
        tags.p("All runs were tested on the same slices.", cls="sub")
        return
    n = len(comparison.left_out)
    if not comparison.same_tests:
        tags.p(
            "These tests are not of the same data: their fingerprints differ. Only subjects whose input and truth are "
            "the same, pixel by pixel, in all of them are compared.",
            cls="alert",
        )
    if n:
        some = list(comparison.left_out.items())[:SHOWN_LEFT_OUT]
        listed = "; ".join(f"{shown(subject)} ({shown(why)})" for subject, why in some)
        tags.p(f"Left out: {listed}{f'; and {n - len(some)} more' if n > len(some) else ''}.", cls="sub")


def _against_truth(comparison: Comparison) -> None:
    """Means of all runs on the shared subjects, and of the simple methods."""
    rows: dict[str, dict[str, Any]] = {name: _as_paired(means) for name, means in comparison.means.items()}
    with tags.section():
        tags.h2("Against the truth")
        if not any(rows.values()):
            tags.p("Not measured: these tests have no truth.", cls="sub")
            return
        runs = list(rows)
        rows |= {name: values for name, values in _baselines(comparison).items() if name not in rows}
        names = {name: shown(name) for name in runs} | {name: ROW_NAMES[name] for name in rows if name not in runs}
        columns = in_order(measure for measures in rows.values() for measure in measures)
        hints = {column: plain(column, DEFINITIONS) for column in columns}
        for some, caption in ((columns[:FIRST_COLUMNS], ""), (columns[FIRST_COLUMNS:], "Further measures")):
            if not some:
                continue
            if caption:
                tags.h3(caption)
            grid(
                some,
                list(rows),
                lambda row, column: paired_cell(rows, row, column),
                caption=f"{caption or 'measures'} against the truth, by run",
                names=names,
                hints=hints,
                ours=runs,
            )
        tags.p(
            f"Mean over the {len(comparison.subjects)} shared subjects, with its 95 % interval below; the best value "
            "of a column is green. The other rows are simple methods without a network.",
            cls="sub",
        )


def _as_paired(means: Mapping[str, Mean]) -> dict[str, Any]:
    return {measure: {"mean": mean.mean, "ci95": mean.ci95} for measure, mean in means.items()}


def _baselines(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The simple methods, from the first result that has them for all shared subjects."""
    for result in comparison.results:
        rows = {row: scores for row, scores in result.rows.items() if row != OURS and row in ROW_NAMES}
        if rows and all(subject in scores for scores in rows.values() for subject in comparison.subjects):
            return {row: _as_paired(means_of(scores, comparison.people)) for row, scores in rows.items()}
    return {}


def _differences(comparison: Comparison) -> None:
    """Paired differences from the first run."""
    first, rows = comparison.results[0].name, comparison.differences
    columns = in_order(measure for measures in rows.values() for measure in measures)
    if not columns:
        return

    def cell(row: str, column: str) -> None:
        found = rows[row].get(column)
        if found is None:
            tags.td("-")
            return
        good = found.mean > 0 if higher_is_better(column) else found.mean < 0
        with tags.td(f"{found.mean:+.3g}", cls=("best" if good else "worse") if found.clear else ""):
            if found.ci95 is not None:
                with tags.small():
                    tags.span(f"{found.ci95[0]:+.3g} to ")
                    tags.wbr()
                    tags.span(f"{found.ci95[1]:+.3g}")
            with tags.small():
                tags.span("better for ")
                tags.wbr()
                tags.span(f"{found.n_better} of {found.n_people}")

    with tags.section():
        tags.h2(f"Differences from {shown(first)}")
        for some, caption in ((columns[:FIRST_COLUMNS], ""), (columns[FIRST_COLUMNS:], "Further measures")):
            if some:
                if caption:
                    tags.h3(caption)
                words = f"{caption or 'differences'}, run by run"
                grid(some, list(rows), cell, caption=words, names={}, ours=())
        why = next((m.why_none for found in rows.values() for m in found.values() if m.ci95 is None), None)
        tags.p(
            "Subject by subject on the shared subjects, then the mean; below it the 95 % interval between people, and "
            "for how many people the run is better. Green: better, red: worse, where the interval does not hold 0. "
            + (f"There is no interval with {why}. " if why else "")
            + ONE_TRAINING,
            cls="sub",
        )


def _people(comparison: Comparison) -> None:
    """Each person's means of every run, in the first measure that there is."""
    measure = next((m for m in PERSON_MEASURES if all(m in comparison.means[r.name] for r in comparison.results)), None)
    if measure is None:
        return
    shared = comparison.subjects
    rows = {r.name: {s: r.rows[OURS][s] for s in shared if s in r.rows[OURS]} for r in comparison.results}
    means = person_means(rows, comparison.people)
    people = list(means)

    def cell(person: str, run: str) -> None:
        values = means[person].get(measure, {})
        value = values.get(run)
        tags.td(number(value), cls="best" if value is not None and value == max(values.values()) else "")

    with tags.section():
        tags.h2(f"Person by person: {measure}")
        with tags.details(**({"open": True} if len(people) <= tables.OPEN_ROWS else {})):
            tags.summary(f"{len(people)} people; the best value of a row is green")
            with tags.div(cls="runs"):
                grid(list(rows), people, cell, caption=f"{measure} of each person", names={}, ours=())


def _sets(comparison: Comparison) -> None:
    """Distances between sets of slices, where all tests are of the same slices."""
    found = {result.name: (result.metrics.get("unpaired") or {}) for result in comparison.results}
    rows = {name: sets[OURS] for name, sets in found.items() if isinstance(sets.get(OURS), dict)}
    columns = [name for name in UNPAIRED_MEASURES if any(row.get(name) is not None for row in rows.values())]
    if not comparison.same_tests or len(rows) < 2 or not columns:
        return
    real = next((sets["real_B"] for sets in found.values() if isinstance(sets.get("real_B"), dict)), None)
    if real is not None and "real_B" not in rows:
        rows["real_B"] = real
    with tags.section():
        tags.h2("Against real high-field slices as a set")
        grid(
            columns,
            list(rows),
            lambda row, column: tags.td(number(rows[row].get(column))),
            caption="distances between sets, by run",
            names={"real_B": ROW_NAMES["real_B"]},
            ours=(),
        )
        tags.p(
            "Lower is better. Row real_B is what a perfect synthesis would reach; sd is the spread over draws.",
            cls="sub",
        )


def _far_apart(comparison: Comparison, subjects: Sequence[Mapping[str, Any]]) -> None:
    """The slices in which the runs differ most; each button opens the browser there."""
    numbers = {subject["name"]: i for i, subject in enumerate(subjects)}
    found = [one for one in far_apart(comparison, FAR_APART) if shown(one[0]) in numbers]
    if not found:
        return
    with tags.section():
        tags.h2("Where the runs differ most")
        tags.p("Slices by the difference in slice_psnr, in dB. A click opens the slice above.", cls="sub")
        with tags.div(cls="picks"):
            for subject, place, scores in found:
                data = {"data-subject": str(numbers[shown(subject)]), "data-slice": str(place), "data-viewer": "slices"}
                index = comparison.results[0].slices[subject]["slice"][place]
                with tags.button(type="button", cls="pick", **data):
                    tags.b(f"{shown(subject)}, slice {index:.0f}")
                    tags.small("; ".join(f"{shown(name)} {number(value)}" for name, value in scores.items()))


def _curves(curves: Curves) -> None:
    """Each loss of every stage, all runs on common axes; the last stage is open."""
    names = list(curves)
    stages = list(dict.fromkeys(stage for found in curves.values() for stage in found))
    if not stages:
        return
    with tags.section():
        tags.h2("Trainings")
        _key(names)
        for stage in reversed(stages):
            losses = list(dict.fromkeys(loss for found in curves.values() for loss in found.get(stage, {})))
            with tags.details(**({"open": True} if stage == stages[-1] else {})):
                tags.summary(f"Stage {shown(stage)}")
                with tags.div(cls="curves"):
                    for loss in losses:
                        every = [(i, curves[name].get(stage, {}).get(loss)) for i, name in enumerate(names)]
                        line_plot(
                            [Line(shown(names[i]), *points, _look(i)) for i, points in every if points], shown(loss)
                        )
        tags.p("Thin: as logged, thick: smoothed; beside a name, each run's last value.", cls="sub")


def _origin(comparison: Comparison, command: str) -> None:
    with tags.section():
        tags.h2("How it was made")
        for result in comparison.results:
            tags.h3(shown(result.name))
            facts = result.provenance
            texts = {
                "results": str(result.folder),
                **{
                    name: str(facts[name]) for name in ("run", "epoch", "checkpoint", "data", "date") if facts.get(name)
                },
                "data fingerprint": str(facts.get("data_fingerprint") or "unknown"),
                "command": str(facts.get("command") or "unknown"),
            }
            tables.texts(texts)
        tags.h3("This page")
        tags.p(tags.code(shown(command)))
        with tags.p():
            tags.span("All numbers: ")
            tags.a("comparison.json", href="comparison.json")
