"""Paired measures: predictions compared with the truth per subject, then mean and interval over subjects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import image, lpips, structure
from evaluation.metrics.intervals import LEAST_PEOPLE, LEAST_SUBJECTS, mean_interval95, why_no_interval
from evaluation.people import People
from evaluation.record import Record, Scores

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

IN_HEAD: dict[str, Callable[[Floats, Floats, Mask], float | None]] = {
    "psnr_fit": image.psnr_fit,  # first: psnr holds an error of windowing that no model can avoid
    "psnr": image.psnr,
    "ssim": image.ssim,
    "nrmse": image.nrmse,
    "mae": image.mae,
}
STRUCTURE: dict[str, Callable[[Floats, Floats, Mask], float | None]] = {
    "edge_corr": structure.edge_corr,
    "slice_consistency": structure.slice_consistency,
    "air_leak": structure.air_leak,
}
WHOLE_SLICE: dict[str, Callable[[Floats, Floats], float | None]] = {
    "ms_ssim": image.ms_ssim,
    "psnr_full": image.psnr_full,
    "ssim_full": image.ssim_full,
}
SCORED = (*IN_HEAD, *STRUCTURE, *WHOLE_SLICE)  # without a network
MEASURES = (*SCORED, "lpips")
HIGHER_IS_BETTER = {name: name not in ("nrmse", "mae", "air_leak", "lpips") for name in MEASURES}
WHY_NONE = {
    "ms_ssim": f"MS-SSIM needs slices of at least {image.MS_SSIM_SIDE} px per side",
    "ssim": f"no head voxels in the truth, or slices of less than {image.WINDOW} px per side",
    "edge_corr": "fewer than two head voxels, or an image without any edge",
    "slice_consistency": "fewer than two slices with the head, or no change between them",
    "air_leak": "no air beside the head, or nothing in it",
    "ssim_full": f"SSIM needs slices of at least {image.WINDOW} px per side",
    "lpips": lpips.WHY_NONE,
}
WHY_NONE_ELSE = "no head voxels in the truth, or no difference from it"

DEFINITIONS = {
    "psnr_fit": "dB; psnr after the best affine intensity fit of each volume to its truth inside the head, so that the "
    "window of intensities decides nothing",
    "psnr": "dB; mean squared error over the head's voxels of a volume, data range 1 ([0, 1]); mean over subjects; "
    "holds an error of windowing, as a volume's window depends on its own extreme intensities",
    "ssim": "Gaussian weights of sigma 1.5 px, population covariance, data range 1, one 2-D map per slice; mean of the "
    "map over the head's voxels of a volume; mean over subjects",
    "nrmse": "||prediction - truth|| / ||truth|| over the head's voxels of a volume; mean over subjects",
    "mae": "mean absolute error over the head's voxels of a volume, range [0, 1]; mean over subjects",
    "edge_corr": "Pearson correlation between the in-plane gradient magnitudes (central differences) of prediction and "
    "truth over the head's voxels of a volume; mean over subjects",
    "slice_consistency": "Pearson correlation between the differences of neighbouring slices in prediction and truth, "
    "over voxels that are head in both slices of a volume; mean over subjects",
    "air_leak": "mean intensity in the air, as a part of the mean in the head of the same prediction; air begins "
    f"{structure.RIM:.0%} of a slice's longer side beyond the truth's head mask; mean over subjects",
    "ms_ssim": "multi-scale SSIM (five scales, Wang et al. 2003) of whole slices, mean over a volume's slices, then "
    "subjects; only slices of at least 176 px per side",
    "psnr_full": "dB; psnr over whole slices, background included",
    "ssim_full": "ssim over whole slices without a rim of 5 px",
    "lpips": "LPIPS 0.1 with AlexNet of whole slices, in [-1, 1] and repeated over three channels; mean over a "
    "volume's slices, then subjects; lower is better",
    "ci95": "95 % t interval of the mean over subjects, from the spread between people (as the manifest names them, "
    f"else as told by the names); null with fewer than {LEAST_SUBJECTS} subjects or {LEAST_PEOPLE} people",
    "head": "foreground mask of the truth; predictions are first resampled to the slices' own grid",
}


def score(prediction: Floats, truth: Floats, mask: Mask) -> Scores:
    """All measures of one volume that need no network; prediction, truth and head mask are (S, H, W)."""
    inside = {name: measure(prediction, truth, mask) for name, measure in (IN_HEAD | STRUCTURE).items()}
    return inside | {name: measure(prediction, truth) for name, measure in WHOLE_SLICE.items()}


class PairedTable:
    """Scores by row (`fake_B` and the baselines) and subject."""

    def __init__(self, rows: dict[str, dict[str, Scores]] | None = None) -> None:
        self.rows: dict[str, dict[str, Scores]] = {} if rows is None else rows

    def add(self, row: str, subject: str, scores: Scores) -> None:
        self.rows.setdefault(row, {})[subject] = scores

    def summarise(self, record: Record, people: People) -> None:
        """Write `paired` into the record: mean over the subjects with the measure, and its interval."""
        for row, subjects in self.rows.items():
            for measure in MEASURES:
                found = {name: value for name, scores in subjects.items() if (value := scores.get(measure)) is not None}
                self._summarise_one(record, ("paired", row, measure), found, people)

    @staticmethod
    def _summarise_one(record: Record, path: tuple[str, str, str], found: dict[str, float], people: People) -> None:
        if not found:
            record.null(*path, leaves=("mean", "ci95"), why=WHY_NONE.get(path[-1], WHY_NONE_ELSE))
            return
        values, persons = list(found.values()), [people[subject] for subject in found]
        record.put(*path, "mean", value=float(np.mean(values)))
        interval = mean_interval95(values, persons)
        if interval is None:
            record.null(*path, "ci95", why=why_no_interval(len(values), len(set(persons))) or "")
        else:
            record.put(*path, "ci95", value=list(interval))
