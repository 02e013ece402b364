"""Which subject goes to training, validation and test; never two of them."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

SMALLEST_SPLIT_GROUP = 3  # with so many subjects every split that is asked for gets one


def assign_splits(
    subjects_A: Set[str], subjects_B: Set[str], *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """Split of every subject: `train`, `val` or `test`; the same for the same subjects, fractions and seed.

    Subjects in both domains, in A alone and in B alone are split separately, so that each domain gets its share of each
    split; a subject in both domains is in one split in both.
    """
    rng = np.random.default_rng(seed)
    splits: dict[str, str] = {}
    for group in (subjects_A & subjects_B, subjects_A - subjects_B, subjects_B - subjects_A):
        names = sorted(group)
        n_test, n_val = _share(len(names), test_fraction), _share(len(names), val_fraction)
        order = ["test"] * n_test + ["val"] * n_val + ["train"] * (len(names) - n_test - n_val)
        splits |= {names[place]: split for place, split in zip(rng.permutation(len(names)), order, strict=True)}
    return splits


def _share(count: int, fraction: float) -> int:
    wanted = round(count * fraction)
    return max(wanted, 1) if fraction > 0 and count >= SMALLEST_SPLIT_GROUP else wanted
