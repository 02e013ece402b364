"""Measures of each person apart: an average over people hides the one for whom a synthesis is worse than its input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from data.folder.people import people_of
from data.folder.slice_folder import SliceFolder
from evaluation.record import Record, Scores

People = Mapping[str, str]  # subject -> person
OURS, OPPONENT = "fake_B", "classical"
PERSON_MEASURES = ("psnr_fit", "psnr", "ssim")  # of all of them, higher is better
DIFFERENCE = f"{OURS} - {OPPONENT}"

DEFINITIONS = {
    "by_person": "means over each person's subjects (people as the manifest names them, else as told by the names), of "
    "every row and of the difference between fake_B and classical; n_better: number of people for whom fake_B has the "
    "higher mean, by baseline and measure",
}


def people_in(folder: SliceFolder, subjects: Iterable[str]) -> dict[str, str]:
    """The person of every subject: as the manifest names it, else as its name tells."""
    return {subject: folder.people.get(subject) or person for subject, person in people_of(subjects).items()}


def person_means(rows: Mapping[str, Mapping[str, Scores]], people: People) -> dict[str, dict[str, dict[str, float]]]:
    """Person -> measure -> row -> mean over the person's subjects; without what no subject has.

    Args: rows: row -> subject -> scores.
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row, subjects in rows.items():
        for subject, scores in subjects.items():
            for measure in PERSON_MEASURES:
                if (value := scores.get(measure)) is not None:
                    by_row = found.setdefault(people[subject], {}).setdefault(measure, {})
                    by_row.setdefault(row, []).append(value)
    return {
        person: {name: {row: float(np.mean(v)) for row, v in by_row.items()} for name, by_row in measures.items()}
        for person, measures in found.items()
    }


def put_people(record: Record, rows: Mapping[str, Mapping[str, Scores]], people: People) -> None:
    """Write `by_person` into the record: every person's means, and for how many people fake_B is better."""
    means = person_means(rows, people)
    if not means:
        record.null("by_person", why="no subject could be measured")
        return
    record.put("by_person", "n_people", value=len(means))
    for row in (row for row in rows if row != OURS):
        for measure in PERSON_MEASURES:
            pairs = [
                (m[OURS], m[row]) for found in means.values() if OURS in (m := found.get(measure, {})) and row in m
            ]
            if pairs:
                record.put("by_person", "n_better", row, measure, value=sum(ours > theirs for ours, theirs in pairs))
    for person, measures in means.items():
        record.put("by_person", "people", person, "n_subjects", value=sum(people[s] == person for s in _subjects(rows)))
        for measure, by_row in measures.items():
            for row, mean in by_row.items():
                record.put("by_person", "people", person, measure, row, value=mean)
            if OURS in by_row and OPPONENT in by_row:
                difference = by_row[OURS] - by_row[OPPONENT]
                record.put("by_person", "people", person, measure, DIFFERENCE, value=difference)


def _subjects(rows: Mapping[str, Mapping[str, Scores]]) -> set[str]:
    return {subject for subjects in rows.values() for subject in subjects}
