"""Results of several tests beside each other: what they share, each one's means there, and paired differences."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.folder.people import people_of
from evaluation.metrics.intervals import mean_interval95, why_no_interval
from evaluation.page.sprites import script_name
from evaluation.page.words import higher_is_better
from evaluation.paired import MEASURES
from evaluation.people import OURS
from evaluation.provenance import describe
from evaluation.record import Scores
from evaluation.results import METRICS_NAME
from evaluation.verdict import VERDICT_MEASURES, listed
from util.errors import UserError
from util.reading import open_regular, read_json

BEGIN, END = "ptaSlices(", ");"  # around the JSON of a subject's pictures
MAX_TABLE_BYTES = 2**28
Rows = dict[str, dict[str, Scores]]  # row -> subject -> scores
Slices = dict[str, dict[str, list[float | None]]]  # subject -> measure -> a value for each slice


@dataclass(frozen=True)
class Result:
    """One test, as its folder tells.

    metrics: metrics.json. rows: metrics.csv. slices: slices.csv. people: the person of every subject.
    numbers: that of a subject's file of pictures, if there is one.
    """

    name: str
    folder: Path
    metrics: Mapping[str, Any]
    rows: Rows
    slices: Slices
    people: Mapping[str, str]
    numbers: Mapping[str, int] = field(repr=False)

    @property
    def provenance(self) -> dict[str, Any]:
        """What it was made from; empty in results of earlier versions."""
        found = self.metrics.get("provenance")
        return found if isinstance(found, dict) else {}

    @property
    def run_dir(self) -> Path | None:
        """The run's folder, if it is still where it was."""
        run = self.provenance.get("run")
        return Path(run) if isinstance(run, str) and run and Path(run).is_dir() else None


@dataclass(frozen=True)
class Mean:
    """A mean over subjects, with its 95 % interval between people; None, and the reason, if there is none."""

    mean: float
    ci95: tuple[float, float] | None
    why_none: str | None
    n_better: int = 0  # people for whom a difference is for the better
    n_people: int = 0

    @property
    def clear(self) -> bool:
        """Whether the interval of a difference excludes 0."""
        return self.ci95 is not None and not self.ci95[0] <= 0 <= self.ci95[1]


@dataclass(frozen=True)
class Comparison:
    """Several results on the subjects that they share.

    left_out: subjects that not all results have, or not with the same slices, and why. same_tests: whether all are of
    the same slices, all of them. means: result -> measure -> mean. differences: from the first result, likewise.
    """

    results: Sequence[Result]
    subjects: Sequence[str]
    left_out: Mapping[str, str]
    same_tests: bool
    means: Mapping[str, Mapping[str, Mean]]
    differences: Mapping[str, Mapping[str, Mean]]

    @property
    def people(self) -> dict[str, str]:
        """The person of every shared subject."""
        return {subject: self.results[0].people[subject] for subject in self.subjects}


# reading --------------------------------------------------------------------------------------------------------------


def results_folder(place: Path) -> Path:
    """The folder with metrics.json: `place` itself, or the only one in it (`RESULTS/NAME` has `test_latest`).

    Raises: UserError: there is none, or more than one.
    """
    if (place / METRICS_NAME).is_file():
        return place
    found = sorted(path.parent for path in place.glob(f"*/{METRICS_NAME}"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(folder.name for folder in found)
        raise UserError(f"{place}: holds the results of {len(found)} tests ({names}); name one of them")
    unfinished = "; its test has not ended" if (place / "images").is_dir() else ""
    raise UserError(f"{place}: no results of test.py, there is no {METRICS_NAME}{unfinished}")


def read_result(folder: Path, name: str) -> Result:
    """Read a results folder. Raises: UserError: a file is missing, or not what a test writes."""
    metrics = read_json(folder / METRICS_NAME)
    if not isinstance(metrics, dict):
        raise UserError(f"{folder / METRICS_NAME}: not the results of a test")
    try:
        rows: Rows = {}
        for line in _table(folder / "metrics.csv"):
            values = {measure: _number(line.get(measure)) for measure in MEASURES}
            rows.setdefault(line["row"], {})[line["subject"]] = values
        slices: Slices = {}
        people: dict[str, str] = {}
        for line in _table(folder / "slices.csv") if (folder / "slices.csv").is_file() else []:
            subject = line["subject"]
            people[subject] = line["person"] or subject
            of_subject = slices.setdefault(subject, {})
            for measure in (key for key in line if key not in ("subject", "person", "file")):
                of_subject.setdefault(measure, []).append(_number(line[measure]))
    except (KeyError, ValueError, csv.Error) as error:
        raise UserError(f"{folder}: metrics.csv or slices.csv is not a table of test.py ({error})") from error
    for subject, person in people_of({s for subjects in rows.values() for s in subjects}).items():
        people.setdefault(subject, person)
    numbers = {subject: number for number, subject in enumerate(slices, start=1)}
    numbers = {subject: number for subject, number in numbers.items() if (folder / script_name(number)).is_file()}
    return Result(name, folder, metrics, rows, slices, people, numbers)


def _table(path: Path) -> list[dict[str, str]]:
    try:
        with open_regular(path) as file:
            text = file.read(MAX_TABLE_BYTES).decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    if any(None in line or None in line.values() for line in lines):
        raise ValueError("a line with too many or too few cells")
    return lines


def _number(text: str | None) -> float | None:
    value = float(text) if text else None
    return value if value is None or np.isfinite(value) else None


def pictures(result: Result, subject: str) -> dict[str, Any]:
    """What a subject's file in `browser/` holds. Raises: UserError: it is missing, or not what a test writes."""
    path = result.folder / script_name(result.numbers[subject])
    try:
        text = path.read_text(encoding="utf-8").strip()
        if not (text.startswith(BEGIN) and text.endswith(END)):
            raise ValueError("it does not begin and end as such a file does")
        content = json.loads(text[len(BEGIN) : -len(END)])
        if not isinstance(content["sheets"], dict) or not isinstance(content["index"], list):
            raise ValueError("no sheets of slices")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the pictures of a subject ({error})") from error
    return content


# what is shared -------------------------------------------------------------------------------------------------------


def compare(results: Sequence[Result]) -> Comparison:
    """Compare results on the subjects of which all have tested the same slices.

    Raises: UserError: they share none.
    """
    prints = {str(result.provenance.get("data_fingerprint") or "") for result in results}
    same_data = len(prints) == 1 and "" not in prints
    everyone = list(dict.fromkeys(subject for result in results for subject in _subjects(result)))
    left_out, shared = {}, []
    for subject in everyone:
        lacking = [result.name for result in results if subject not in _subjects(result)]
        why = f"not tested by {listed(lacking)}" if lacking else "" if same_data else _other_slices(results, subject)
        if why:
            left_out[subject] = why
        else:
            shared.append(subject)
    if not shared:
        tested = "; ".join(f"{result.name}: {describe(result.provenance)}" for result in results)
        why = next(iter(left_out.values()), "they have no subject")
        raise UserError(
            f"these results cannot be compared, they share no subject with the same slices ({why}): {tested}"
        )
    people = {subject: results[0].people[subject] for subject in shared}
    means = {result.name: means_of(result.rows.get(OURS, {}), people) for result in results}
    differences = {result.name: _differences(result, results[0], people) for result in results[1:]}
    return Comparison(results, shared, left_out, same_data, means, differences)


def _subjects(result: Result) -> dict[str, Any]:
    return {**dict.fromkeys(result.slices), **result.rows.get(OURS, {})}


def _other_slices(results: Sequence[Result], subject: str) -> str:
    """Why a subject cannot be compared where the data differ; empty if its input and truth are the same in all."""
    unknown = [result.name for result in results if subject not in result.numbers]
    if unknown:
        return f"the data differ, and {listed(unknown)} has no pictures to tell whether these slices do"
    first = _content(results[0], subject)
    different = [result.name for result in results[1:] if _content(result, subject) != first]
    return f"other slices in {listed(different)} than in {results[0].name}" if different else ""


def _content(result: Result, subject: str) -> str:
    """SHA-256 of a subject's input and truth, pixel by pixel."""
    content, digest = pictures(result, subject), hashlib.sha256()
    digest.update(json.dumps(content["index"]).encode())
    for kind in ("real_A", "truth"):
        if (address := content["sheets"].get(kind)) is not None:
            try:
                with Image.open(io.BytesIO(base64.b64decode(str(address).partition(",")[2]))) as image:
                    digest.update(f"{kind} {image.size}".encode() + image.tobytes())
            except (OSError, ValueError, binascii.Error) as error:
                raise UserError(f"{result.folder}: the pictures of '{subject}' cannot be read ({error})") from error
    return digest.hexdigest()


# numbers --------------------------------------------------------------------------------------------------------------


def means_of(scores: Mapping[str, Scores], people: Mapping[str, str]) -> dict[str, Mean]:
    found = {}
    for measure in MEASURES:
        values = {s: value for s in people if (value := scores.get(s, {}).get(measure)) is not None}
        if values:
            found[measure] = mean_of(values, people)
    return found


def _differences(result: Result, first: Result, people: Mapping[str, str]) -> dict[str, Mean]:
    ours, theirs = result.rows.get(OURS, {}), first.rows.get(OURS, {})
    found = {}
    for measure in MEASURES:
        values = {}
        for subject in people:
            a, b = theirs.get(subject, {}).get(measure), ours.get(subject, {}).get(measure)
            if a is not None and b is not None:
                values[subject] = b - a
        if values:
            found[measure] = mean_of(values, people, 1 if higher_is_better(measure) else -1)
    return found


def mean_of(values: Mapping[str, float], people: Mapping[str, str], better: int = 1) -> Mean:
    """The mean over subjects, its interval, and for how many people their mean times `better` is above 0."""
    persons = [people[subject] for subject in values]
    by_person: dict[str, list[float]] = {}
    for person, value in zip(persons, values.values(), strict=True):
        by_person.setdefault(person, []).append(value)
    numbers = list(values.values())
    return Mean(
        float(np.mean(numbers)),
        mean_interval95(numbers, persons),
        why_no_interval(len(numbers), len(by_person)),
        sum(better * float(np.mean(v)) > 0 for v in by_person.values()),
        len(by_person),
    )


def verdict(comparison: Comparison) -> str:
    """Which result is best in what, and by how much it beats the next."""
    n, people = len(comparison.subjects), len(set(comparison.people.values()))
    where = f"On {_counted(n, 'shared subject')} of {_counted(people, 'person')}"
    best = {measure: _ranked(comparison, measure) for measure in VERDICT_MEASURES}
    first = next((measure for measure in VERDICT_MEASURES if len(best[measure]) > 1), None)
    if first is None:
        return f"{where} nothing says which run is better, because there is no truth; look at the slices."
    top, second = best[first][:2]
    difference = _between(comparison, top, second, first)
    sentence = (
        f"{where} {top.name} has the best {first}, {comparison.means[top.name][first].mean:.4g}{_unit(first)}, "
        f"{difference.mean:.3g}{_unit(first)} more than {second.name}{_sure(difference)}."
    )
    others = {m: best[m][0].name for m in VERDICT_MEASURES if m != first and len(best[m]) > 1}
    too = [m for m, name in others.items() if name == top.name]
    elsewhere = [f"in {m} {name} is best" for m, name in others.items() if name != top.name]
    parts = [*([f"it is best in {listed(too)} too"] if too else []), *elsewhere]
    more = "; ".join(parts)
    return f"{sentence} {more[0].upper()}{more[1:]}." if parts else sentence


def _ranked(comparison: Comparison, measure: str) -> list[Result]:
    """The results that have a measure, the best first; of all VERDICT_MEASURES, higher is better."""
    found = [result for result in comparison.results if measure in comparison.means[result.name]]
    return sorted(found, key=lambda result: -comparison.means[result.name][measure].mean)


def _between(comparison: Comparison, better: Result, other: Result, measure: str) -> Mean:
    return _differences(better, other, comparison.people)[measure]


def _unit(measure: str) -> str:
    return " dB" if measure.startswith("psnr") else ""


def _sure(difference: Mean) -> str:
    if difference.ci95 is None:
        return f" (no interval: {difference.why_none})"
    interval = f" (95 % interval {difference.ci95[0]:.3g} to {difference.ci95[1]:.3g})"
    if not difference.clear:
        return f"{interval}; it holds 0, so this shows no difference"
    return f"{interval}, better for {difference.n_better} of {_counted(difference.n_people, 'person')}"


def _counted(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {'people' if word == 'person' else word + 's'}"


def far_apart(comparison: Comparison, most: int) -> list[tuple[str, int, dict[str, float]]]:
    """Slices whose slice_psnr differs most between results: subject, place in the volume, and each result's score."""
    found = []
    for subject in comparison.subjects:
        columns = {r.name: r.slices.get(subject, {}).get("slice_psnr", []) for r in comparison.results}
        for place in range(min(map(len, columns.values()))):
            scores = {name: value for name, column in columns.items() if (value := column[place]) is not None}
            if len(scores) == len(columns):
                found.append((subject, place, scores))
    return sorted(found, key=lambda one: min(one[2].values()) - max(one[2].values()))[:most]
