"""Assign each subject to one of training, validation and test."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

SMALLEST_SPLIT_GROUP = 3  # from this number of subjects on, every requested split gets at least one


def assign_splits(
    subjects_A: Set[str], subjects_B: Set[str], *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """The split of every subject: `train`, `val` or `test`; equal subjects, fractions and seed give equal splits.

    Subjects in both domains, in A alone and in B alone are split separately, so that every domain has the wanted
    fractions; a subject in both domains is in the same split in both. Fractions that add up to 1 leave none to train.
    """
    rng = np.random.default_rng(seed)
    splits: dict[str, str] = {}
    for group in (subjects_A & subjects_B, subjects_A - subjects_B, subjects_B - subjects_A):
        names = sorted(group)
        n_test, n_val = _counts(len(names), val_fraction, test_fraction)
        order = ["test"] * n_test + ["val"] * n_val + ["train"] * (len(names) - n_test - n_val)
        splits |= {names[i]: split for i, split in zip(rng.permutation(len(names)), order, strict=True)}
    return splits


def _counts(n_subjects: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """How many subjects are for testing and for validation; the rest is for training.

    Each fraction is rounded by itself, so both may be rounded up: what there is too much is taken from the larger one.
    """
    n_test, n_val = _count(n_subjects, test_fraction), _count(n_subjects, val_fraction)
    to_train = val_fraction + test_fraction < 1 - 1e-9  # fractions such as 0.9 and 0.1 are not exact
    most = n_subjects - int(to_train and n_subjects >= SMALLEST_SPLIT_GROUP)  # for the two
    while n_test + n_val > most:
        n_test, n_val = (n_test - 1, n_val) if n_test > n_val else (n_test, n_val - 1)
    if not to_train:  # both may have been rounded down
        rest = n_subjects - n_test - n_val
        n_test, n_val = (n_test + rest, n_val) if test_fraction > 0 else (n_test, n_val + rest)
    return n_test, n_val


def _count(n_subjects: int, fraction: float) -> int:
    count = round(n_subjects * fraction)
    return max(count, 1) if fraction > 0 and n_subjects >= SMALLEST_SPLIT_GROUP else count
