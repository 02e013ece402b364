"""`--protocol mrixfields`: the evaluation of the challenge MRIxFields 2026 (docs/facts.md section 6)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from evaluation.metrics import lpips
from evaluation.protocols.base import Floats, Part, Protocol
from evaluation.subjects import SubjectSlices

WINDOW = 7  # pixels a side, scikit-image's default
BRIGHTEST = 99.5  # percentile of a truth that becomes 1
SCALED = (
    f"the truth is divided by its {BRIGHTEST}th percentile and cut at [0, 1], the synthesis is taken as it is; whole "
    "volumes, no mask (here: the slices that preprocessing kept)"
)
NO_SYNTHSEG = "it needs SynthSeg 2.0's segmentation of 14 deep grey structures, which is not part of this repository"


class MRIxFields(Protocol):
    name = "mrixfields"
    title = "the challenge MRIxFields 2026"
    measures = ("nrmse", "nrmse_sd", "ssim", "ssim_sd", "lpips", "lpips_sd", "dice", "volume")
    definitions: ClassVar = {
        "nrmse": f"||synthesis - truth|| / ||truth||; {SCALED}; mean over volumes; lower is better",
        "ssim": f"{SCALED}; 2-D SSIM of every slice whose truth is not of one intensity, uniform window of {WINDOW} "
        "px, sample covariance, data range: the truth's maximum minus its minimum; mean over slices, then volumes",
        "lpips": f"{SCALED}; LPIPS 0.1 with AlexNet of every slice, in [-1, 1]; mean over slices, then volumes; lower "
        "is better",
        "dice": "mean Dice coefficient of 14 deep grey structures segmented by SynthSeg 2.0; not computed here",
        "volume": "mean of 1 - |volume found - true volume| / true volume of the same structures; not computed here",
    } | {f"{name}_sd": f"standard deviation of {name} over volumes" for name in ("nrmse", "ssim", "lpips")}
    why_none: ClassVar = {
        "nrmse": "a truth of zeros",
        "ssim": f"slices of less than {WINDOW} px per side, or of one intensity",
        "lpips": lpips.WHY_NONE,
        "dice": NO_SYNTHSEG,
        "volume": NO_SYNTHSEG,
    }

    def __init__(self, network: lpips.LPIPS | None) -> None:
        self.network = network

    def part(self, slices: Floats, volume: SubjectSlices) -> Part:
        assert volume.truth is not None
        truth = scaled(volume.truth)
        found = {"nrmse": nrmse(slices, truth), "ssim": ssim(slices, truth)}
        distances = None if self.network is None else self.network.slices(slices, truth)
        found["lpips"] = None if distances is None else float(distances.mean())
        return Part({name: [value] for name, value in found.items() if value is not None})


def scaled(volume: Floats) -> NDArray[np.float64]:
    """A truth (S, H, W) as [0, 1], its brightest half per cent as 1."""
    most = float(np.percentile(volume, BRIGHTEST))
    exact = volume.astype(np.float64)
    return np.clip(exact, 0, most) / most if most > 1e-8 else exact


def nrmse(prediction: Floats, truth: NDArray[np.float64]) -> float | None:
    """||p - t|| / ||t|| of whole volumes; None for a truth of zeros, which the published code scores 0."""
    size = float(np.linalg.norm(truth))
    return float(np.linalg.norm(prediction - truth)) / size if size > 1e-10 else None


def ssim(prediction: Floats, truth: NDArray[np.float64]) -> float | None:
    """Mean over the slices that are not of one intensity; None if there are none, which the published code scores 1."""
    spread = float(np.ptp(truth))
    pairs = [(p.astype(np.float64), t) for p, t in zip(prediction, truth, strict=True) if np.ptp(t) >= 1e-10]
    if not pairs or min(truth.shape[1:]) < WINDOW:
        return None
    return float(np.mean([structural_similarity(p, t, win_size=WINDOW, data_range=spread) for p, t in pairs]))
