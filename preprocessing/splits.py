"""Assign each person to one of training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np

SMALLEST_SPLIT_GROUP = 3  # from this number of people on, every requested split gets at least one


def assign_splits(
    people_A: Set[str], people_B: Set[str], *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """The split of every person: `train`, `val` or `test`; equal people, fractions and seed give equal splits.

    People in both domains, in A alone and in B alone are split separately, so that every domain has the wanted
    fractions; a person in both domains is in the same split in both. Fractions that add up to 1 leave nobody to train.
    """
    rng = np.random.default_rng(seed)
    splits: dict[str, str] = {}
    for group in (people_A & people_B, people_A - people_B, people_B - people_A):
        names = sorted(group)
        n_test, n_val = _counts(len(names), val_fraction, test_fraction)
        order = ["test"] * n_test + ["val"] * n_val + ["train"] * (len(names) - n_test - n_val)
        splits |= {names[i]: split for i, split in zip(rng.permutation(len(names)), order, strict=True)}
    return splits


def empty_splits(
    people: Mapping[str, Sequence[str]], splits: Mapping[str, str], fractions: Mapping[str, float]
) -> list[str]:
    """A sentence for each domain that has no volumes in a split that is asked for.

    Args:
        people: the person of every volume, by domain; splits: the split of every person.
        fractions: the fraction asked for, by split.
    """
    said = []
    for domain, owners in people.items():
        used = {splits[person] for person in owners}
        empty = [split for split, fraction in fractions.items() if fraction > 0 and split not in used]
        if empty and owners:
            n = len(set(owners))
            count = f"{len(owners)} volume{'s' * (len(owners) > 1)} of {n} {'people' if n > 1 else 'person'}"
            said.append(
                f"--input_{domain}: {count}, so {' and '.join(empty)} {'are' if len(empty) > 1 else 'is'} empty: "
                f"all {'goes' if len(owners) == 1 else 'go'} to {' and '.join(sorted(used))}; with "
                f"{SMALLEST_SPLIT_GROUP} people or more, in this domain alone or in both, every split gets one; "
                f"--all_test puts all into test"
            )
    return said


def _counts(n_people: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """How many people are for testing and for validation; the rest is for training.

    Each fraction is rounded by itself, so both may be rounded up: what there is too much is taken from the larger one.
    """
    n_test, n_val = _count(n_people, test_fraction), _count(n_people, val_fraction)
    to_train = val_fraction + test_fraction < 1 - 1e-9  # fractions such as 0.9 and 0.1 are not exact
    most = n_people - int(to_train and n_people >= SMALLEST_SPLIT_GROUP)  # for the two
    while n_test + n_val > most:
        n_test, n_val = (n_test - 1, n_val) if n_test > n_val else (n_test, n_val - 1)
    if not to_train:  # both may have been rounded down
        rest = n_people - n_test - n_val
        n_test, n_val = (n_test + rest, n_val) if test_fraction > 0 else (n_test, n_val + rest)
    return n_test, n_val


def _count(n_people: int, fraction: float) -> int:
    count = round(n_people * fraction)
    return max(count, 1) if fraction > 0 and n_people >= SMALLEST_SPLIT_GROUP else count
