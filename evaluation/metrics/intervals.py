"""Confidence intervals over subjects, which are independent; slices of one head are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST_SUBJECTS = 12  # with fewer, no interval is reported (docs/method.md section 6.6)
RESAMPLES = 4000


def bootstrap_ci95(values: Sequence[float], *, seed: int) -> tuple[float, float] | None:
    """Percentile bootstrap of the mean over subjects.

    Args:
        values: one number per subject.
        seed: seed of the resampling.
    Returns: (2.5 %, 97.5 %) of the resampled means, or None with fewer than 12 subjects.
    """
    if len(values) < LEAST_SUBJECTS:
        return None
    sample = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(sample), size=(RESAMPLES, len(sample)))
    low, high = np.percentile(sample[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
