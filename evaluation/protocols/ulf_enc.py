"""`--protocol ulf_enc`: the final script of the challenge ULF-EnC 2025 (docs/facts.md section 6)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from evaluation.protocols.base import Floats, Part, Parts, Protocol
from evaluation.subjects import SubjectSlices

WINDOW = 7  # voxels a side, scikit-image's default; a volume must hold one
MOST_DB = 32.0
VOLUME = "each volume, the subject's slices, is scaled to [0, 1] by its minimum and maximum and is 0 outside the mask"
MASK = "mask: the truth's head (published: a brain mask from T1w, which this repository does not make)"


class ULFEnC(Protocol):
    name = "ulf_enc"
    title = "the challenge ULF-EnC 2025 (64 mT to 3 T)"
    measures = ("score", "ssim", "psnr", "mae", "nmse")
    definitions: ClassVar = {
        "score": f"0.7 ssim + 0.1 psnr / {MOST_DB:g} + 0.1 (1 - mae) + 0.1 (1 - nmse) of the means over volumes, the "
        "challenge's ranking; higher is better",
        "ssim": f"{VOLUME}; mean over the mask of a 3-D SSIM map, uniform window of {WINDOW} voxels a side, sample "
        f"covariance, data range 1; {MASK}; mean over volumes",
        "psnr": "dB; the same volumes; mean over the mask of 10 log10(1 / (error^2 + 1e-8)) of every voxel, which is "
        "not the logarithm of a mean and is higher; mean over volumes",
        "mae": "mean absolute error of the same volumes over the mask; mean over volumes; lower is better",
        "nmse": "mean squared error of the same volumes over the mask, by the mean square of the truth there, at most "
        "1; mean over volumes; lower is better",
    }
    why_none: ClassVar = dict.fromkeys(
        ("psnr", "mae", "nmse"), "no head voxels in the truth, or a volume of one intensity"
    ) | {"ssim": f"fewer than {WINDOW} slices, less than {WINDOW} px per side, no head, or a volume of one intensity"}

    def part(self, slices: Floats, volume: SubjectSlices) -> Part:
        assert volume.truth is not None and volume.truth_mask is not None
        scored = scores(slices, volume.truth, volume.truth_mask)
        return Part({name: [value] for name, value in scored.items()})

    def scores(self, parts: Parts, real: Parts) -> dict[str, float | str]:
        means = {name: self._mean(name, parts) for name in self.measures if name != "score"}
        return {"score": self._score(means), **means}

    @staticmethod
    def _score(means: dict[str, float | str]) -> float | str:
        known = {name: value for name, value in means.items() if not isinstance(value, str)}
        if len(known) < len(means):
            return "one of its parts is missing"
        errors = 0.1 * (1 - known["mae"]) + 0.1 * (1 - known["nmse"])
        return 0.7 * known["ssim"] + 0.1 * known["psnr"] / MOST_DB + errors


def scores(prediction: Floats, truth: Floats, mask: NDArray[np.bool_]) -> dict[str, float]:
    """The four measures of a volume, all (S, H, W); what cannot be had is missing."""
    if not mask.any() or np.ptp(prediction) == 0 or np.ptp(truth) == 0:
        return {}
    p, t = (np.where(mask, _scaled(image), 0) for image in (prediction, truth))
    squared = (p - t)[mask] ** 2
    found = {"psnr": float(np.mean(-10 * np.log10(squared + 1e-8))), "mae": float(np.mean(np.abs(p - t)[mask]))}
    if (size := float(np.mean(t[mask] ** 2))) > 0:
        found["nmse"] = min(1.0, float(np.mean(squared)) / size)
    if min(truth.shape) >= WINDOW:
        _, every = structural_similarity(p, t, win_size=WINDOW, data_range=1.0, full=True)
        found["ssim"] = float(np.mean(every[mask]))
    return found


def _scaled(volume: Floats) -> NDArray[np.float64]:
    """A volume from its minimum to its maximum, as [0, 1]."""
    volume = volume.astype(np.float64)
    return (volume - volume.min()) / (volume.max() - volume.min())
