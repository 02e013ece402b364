"""Confidence intervals over people, who are independent; slices of one head and several scans of one person are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

LEAST_SUBJECTS = 12  # with fewer, no interval is reported (docs/method.md section 6.6),
LEAST_PEOPLE = 4  # nor with fewer people
LEAST_SEEDS = 3  # nor, for a method, from fewer trainings


def why_no_interval(n_subjects: int, n_people: int) -> str | None:
    """Why there is no interval for so many subjects and people; None if there is one."""
    if n_subjects < LEAST_SUBJECTS:
        return f"fewer than {LEAST_SUBJECTS} test subjects"
    return f"fewer than {LEAST_PEOPLE} people in the test" if n_people < LEAST_PEOPLE else None


def mean_interval95(values: Sequence[float], people: Sequence[str]) -> tuple[float, float] | None:
    """95 % t interval of the mean over subjects, with the standard error between people (Liang and Zeger 1986).

    Every person's sum of deviations from the mean is one independent number, so that a second scan of a person counts
    as little as it tells. With one subject a person it is Student's interval.

    Args:
        values: one number per subject. people: the person of each.
    Returns: its ends, or None with fewer than 12 subjects or 4 people.
    """
    persons, person = np.unique(np.asarray(people), return_inverse=True)
    if why_no_interval(len(values), len(persons)) is not None:
        return None
    sample = np.asarray(values, dtype=np.float64)
    deviations = np.bincount(person, weights=sample - sample.mean())
    n = len(persons)
    error = np.sqrt(n / (n - 1) * (deviations**2).sum()) / len(sample)
    reach = float(student.ppf(0.975, n - 1)) * float(error)
    return float(sample.mean()) - reach, float(sample.mean()) + reach


def why_no_crossed_interval(n_subjects: int, n_people: int, n_seeds: int) -> str | None:
    """Why there is no interval over people and seeds; None if there is one."""
    return f"fewer than {LEAST_SEEDS} seeds" if n_seeds < LEAST_SEEDS else why_no_interval(n_subjects, n_people)


def crossed_interval95(values: NDArray[np.floating], people: Sequence[str]) -> tuple[float, float] | None:
    """95 % t interval of the mean over subjects and trainings: other people and other seeds together.

    The squared error is the sum of the error between people and the error between seeds, each as in `mean_interval95`
    (the two-way clustered error of Cameron, Gelbach and Miller 2011 without the term that they take off), with
    Satterthwaite's degrees of freedom. docs/method.md section 6.6 says how often it holds the true mean.

    Args:
        values: (subjects, seeds), each training tested on the same subjects. people: the person of each subject.
    Returns: its ends, or None with fewer than 12 subjects, 4 people or 3 seeds.
    """
    sample = np.asarray(values, dtype=np.float64)
    persons, person = np.unique(np.asarray(people), return_inverse=True)
    if why_no_crossed_interval(len(sample), len(persons), sample.shape[1]) is not None:
        return None
    part = (sample - sample.mean()) / sample.size
    errors, freedoms = [], []
    for sums in (np.bincount(person, weights=part.sum(1)), part.sum(0)):
        n = len(sums)
        errors.append(n / (n - 1) * float((sums**2).sum()))
        freedoms.append(n - 1)
    total = sum(errors)
    if total == 0:
        return float(sample.mean()), float(sample.mean())
    freedom = total**2 / sum(error**2 / n for error, n in zip(errors, freedoms, strict=True))
    reach = float(student.ppf(0.975, freedom)) * float(np.sqrt(total))
    return float(sample.mean()) - reach, float(sample.mean()) + reach
