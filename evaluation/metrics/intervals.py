"""Confidence intervals over people, who are independent; slices of one head and several scans of one person are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

LEAST_SUBJECTS = 12  # with fewer, no interval is reported (docs/method.md section 6.6),
LEAST_PEOPLE = 4  # nor with fewer people


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
