"""Baselines without learning on the same input: identity, histogram and classical.

See docs/method.md section 6.2.

All start from the model's input, and none reads the truth. What they learn they learn from unpaired training slices.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.cache.packed_slices import PackedSlices
from data.folder.slice_folder import SliceFolder
from evaluation.classical import Classical, fit_classical
from evaluation.intensities import match_histogram, pooled_quantiles
from evaluation.subjects import SubjectSlices
from util.processes import ALONE, Processes

BASELINES = ("identity", "histogram", "classical")


@dataclass(frozen=True)
class Fitted:
    """What the baselines know of the two domains. target: quantiles (1001,) of B's foreground."""

    target: NDArray[np.float32]
    classical: Classical


def fit(
    source: SliceFolder | PackedSlices, target: SliceFolder | PackedSlices, pool: Executor, processes: Processes = ALONE
) -> Fitted:
    """Learn from slices `source` of A and `target` of B, unpaired."""
    quantiles = pooled_quantiles(target, processes)
    return Fitted(quantiles, fit_classical(source, target, quantiles, pool, processes))


def synthesise(volume: SubjectSlices, fitted: Fitted | None, pool: Executor) -> dict[str, NDArray[np.float32]]:
    """The baselines' slices (S, H, W) in [0, 1]; only identity if nothing could be fitted."""
    rows = {"identity": volume.visible}
    if fitted is not None:
        rows["histogram"] = match_histogram(volume.image, volume.mask, fitted.target)
        rows["classical"] = fitted.classical.synthesise(volume, pool)
    return rows
