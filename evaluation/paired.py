"""Paired measures: predictions compared with the truth per subject, then mean and interval over subjects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import image
from evaluation.metrics.intervals import LEAST_SUBJECTS, bootstrap_ci95
from evaluation.record import Record, Scores

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

IN_HEAD: dict[str, Callable[[Floats, Floats, Mask], float | None]] = {
    "psnr": image.psnr,
    "psnr_fit": image.psnr_fit,
    "ssim": image.ssim,
    "nrmse": image.nrmse,
    "mae": image.mae,
}
WHOLE_SLICE: dict[str, Callable[[Floats, Floats], float | None]] = {
    "ms_ssim": image.ms_ssim,
    "psnr_full": image.psnr_full,
    "ssim_full": image.ssim_full,
}
MEASURES = (*IN_HEAD, *WHOLE_SLICE)
HIGHER_IS_BETTER = {name: name not in ("nrmse", "mae") for name in MEASURES}
WHY_NONE = {
    "ms_ssim": f"MS-SSIM needs slices of at least {image.MS_SSIM_SIDE} px per side",
    "ssim": f"no head voxels in the truth, or slices of less than {image.WINDOW} px per side",
    "ssim_full": f"SSIM needs slices of at least {image.WINDOW} px per side",
}
WHY_NONE_ELSE = "no head voxels in the truth, or no difference from it"

DEFINITIONS = {
    "psnr": "dB; mean squared error over the head's voxels of a volume, data range 1 ([0, 1]); mean over subjects",
    "psnr_fit": "dB; psnr after the best affine intensity fit of each volume to its truth inside the head",
    "ssim": "Gaussian weights of sigma 1.5 px, population covariance, data range 1, one 2-D map per slice; mean of the "
    "map over the head's voxels of a volume; mean over subjects",
    "nrmse": "||prediction - truth|| / ||truth|| over the head's voxels of a volume; mean over subjects",
    "mae": "mean absolute error over the head's voxels of a volume, range [0, 1]; mean over subjects",
    "ms_ssim": "multi-scale SSIM (five scales, Wang et al. 2003) of whole slices, mean over a volume's slices, then "
    "subjects; only slices of at least 176 px per side",
    "psnr_full": "dB; psnr over whole slices, background included",
    "ssim_full": "ssim over whole slices without a rim of 5 px",
    "ci95": f"95 % percentile bootstrap interval of the mean over subjects; null with fewer than {LEAST_SUBJECTS}",
    "head": "foreground mask of the truth; predictions are first resampled to the slices' own grid",
}


def score(prediction: Floats, truth: Floats, mask: Mask) -> Scores:
    """All measures of one volume; prediction, truth and head mask are (S, H, W)."""
    inside = {name: measure(prediction, truth, mask) for name, measure in IN_HEAD.items()}
    return inside | {name: measure(prediction, truth) for name, measure in WHOLE_SLICE.items()}


class PairedTable:
    """Scores by row (`fake_B` and the baselines) and subject."""

    def __init__(self, rows: dict[str, dict[str, Scores]] | None = None) -> None:
        self.rows: dict[str, dict[str, Scores]] = {} if rows is None else rows

    def add(self, row: str, subject: str, scores: Scores) -> None:
        self.rows.setdefault(row, {})[subject] = scores

    def summarise(self, record: Record, *, seed: int) -> None:
        """Write `paired` into the record: mean over the subjects with the measure, and its interval."""
        for row, subjects in self.rows.items():
            for measure in MEASURES:
                values = [scores[measure] for scores in subjects.values()]
                self._summarise_one(record, ("paired", row, measure), [v for v in values if v is not None], seed)

    @staticmethod
    def _summarise_one(record: Record, path: tuple[str, str, str], values: list[float], seed: int) -> None:
        if not values:
            record.null(*path, leaves=("mean", "ci95"), why=WHY_NONE.get(path[-1], WHY_NONE_ELSE))
            return
        record.put(*path, "mean", value=float(np.mean(values)))
        interval = bootstrap_ci95(values, seed=seed)
        if interval is None:
            record.null(*path, "ci95", why=f"fewer than {LEAST_SUBJECTS} test subjects")
        else:
            record.put(*path, "ci95", value=list(interval))
