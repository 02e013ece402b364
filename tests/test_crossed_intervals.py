"""Intervals over people and seeds: against a formula of their own, how often they hold, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from evaluation.metrics.intervals import crossed_interval95, mean_interval95, why_no_crossed_interval

PEOPLE = [f"p{i % 4}" for i in range(12)]


def test_against_the_variances_of_means() -> None:
    values = np.random.default_rng(0).normal(20, 1, (12, 3)) + np.arange(12)[:, None] % 4 + np.arange(3)
    by_person = [values[person::4].mean() for person in range(4)]  # every person has three subjects
    of_people, of_seeds = np.var(by_person, ddof=1) / 4, np.var(values.mean(0), ddof=1) / 3
    freedom = (of_people + of_seeds) ** 2 / (of_people**2 / 3 + of_seeds**2 / 2)
    reach = t.ppf(0.975, freedom) * np.sqrt(of_people + of_seeds)
    expected = values.mean() - reach, values.mean() + reach
    assert crossed_interval95(values, PEOPLE) == pytest.approx(expected)


def test_seeds_that_agree_leave_the_interval_over_people() -> None:
    one = np.random.default_rng(1).normal(size=12)
    expected = mean_interval95(one.tolist(), PEOPLE)
    assert crossed_interval95(np.repeat(one[:, None], 3, 1), PEOPLE) == pytest.approx(expected)
    assert crossed_interval95(np.ones((12, 3)), PEOPLE) == (1, 1)


def test_they_hold_the_true_mean_about_95_times_in_100() -> None:
    rng, held = np.random.default_rng(2), 0
    for _ in range(600):
        people, seeds = rng.normal(size=(4, 1)), rng.normal(size=(1, 3))
        values = np.tile(people, (3, 1)) + seeds + rng.normal(size=(12, 1)) + 0.3 * rng.normal(size=(12, 3))
        low, high = crossed_interval95(values, PEOPLE) or (0.0, 0.0)
        held += low < 0 < high
    assert 0.93 < held / 600 <= 0.99


@pytest.mark.parametrize(
    ("subjects", "people", "seeds", "why"),
    [
        (12, 4, 2, "fewer than 3 seeds"),
        (11, 4, 3, "fewer than 12 test subjects"),
        (12, 3, 3, "fewer than 4 people in the test"),
        (12, 4, 3, None),
    ],
)
def test_with_too_few_there_is_none(subjects: int, people: int, seeds: int, why: str | None) -> None:
    names = [f"p{i % people}" for i in range(subjects)]
    found = crossed_interval95(np.random.default_rng(3).normal(size=(subjects, seeds)), names)
    assert why_no_crossed_interval(subjects, people, seeds) == why
    assert (found is None) == (why is not None)
