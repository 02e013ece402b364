"""`--protocol pta`: how the authors of PTA and CSS-Diff compute their tables (docs/facts.md section 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from evaluation.metrics.features import frechet_distance
from evaluation.metrics.image import psnr_full
from evaluation.protocols.base import NO_TRUTH, Floats, Part, Parts, Protocol
from evaluation.subjects import SubjectSlices
from evaluation.unpaired import LEAST_FOR_FID, LEAST_FOR_IS, NO_INCEPTION

if TYPE_CHECKING:
    from evaluation.metrics.inception import FIDInception

SIDE = 224  # pixels: FID and IS see slices of this size,
LEAST_SIDE = 160  # and MS-SSIM those that are smaller than this
LEAST_FOR_MS_SSIM = 176  # below, torchmetrics refuses
LEAST_FOR_SSIM = 6  # pixels a side, for torchmetrics to mirror the rim
BATCHES = 5  # of slices in the order of file names; MS-SSIM compares no slices of different batches
IMAGES_AT_ONCE = 16
GREY = "8-bit grey levels"


class PTA(Protocol):
    name = "pta"
    title = "PTA and CSS-Diff"
    needs_truth = False
    measures = ("fid", "is", "ms_ssim", "ms_ssim_sd", "psnr", "psnr_sd", "ssim", "ssim_sd")
    definitions: ClassVar = {
        "fid": "Frechet inception distance (torchmetrics, 2048 features) of all slices of the row to all real_B, "
        f"whoever they show and however many there are; {GREY}, bicubically resized to {SIDE} x {SIDE} px; lower is "
        "better",
        "is": f"Inception score (torchmetrics, 10 splits) of all slices of the row, {GREY}, {SIDE} px as for fid; mean "
        "over splits",
        "ms_ssim": f"multi-scale SSIM (torchmetrics, data range 1) of every slice and the next one in the order of "
        f"file names, in {BATCHES} batches of equal size, the remainder left out; {GREY}, slices under {LEAST_SIDE} px "
        f"resized to {SIDE} x {SIDE} px; mean over pairs; diversity, not fidelity",
        "psnr": f"dB; whole slices, {GREY}, data range 1; mean over slices (CSS-Diff's, for pairs; slices equal to "
        "their truth are left out)",
        "ssim": f"whole slices, {GREY}, data range 1, Gaussian window of sigma 1.5 px, rim included (torchmetrics); "
        "mean over slices (CSS-Diff's, for pairs)",
        "ms_ssim_sd": "standard deviation of ms_ssim over pairs",
        "psnr_sd": "standard deviation of psnr over slices",
        "ssim_sd": "standard deviation of ssim over slices",
    }
    why_none: ClassVar = {
        "psnr": NO_TRUTH,
        "ssim": f"{NO_TRUTH}, or slices of less than {LEAST_FOR_SSIM} px per side",
    }

    def __init__(self, network: FIDInception | None, *, seed: int) -> None:
        self.network, self.seed = network, seed

    def part(self, slices: Floats, volume: SubjectSlices) -> Part:
        grey = _grey(slices[np.argsort(volume.stems)])
        enlarged = grey if min(grey.shape[1:]) >= LEAST_SIDE else _resized(grey)
        shown: Floats = enlarged.astype(np.float32) / np.float32(255)
        values: dict[str, list[float]] = {}
        if (neighbours := _ms_ssim(shown[1:], shown[:-1])) is not None:
            values["ms_ssim"] = neighbours
        if volume.truth is not None:
            values |= against_truth(_grey(slices) / 255, _grey(volume.truth) / 255)
        return Part(values, self._features(grey), (shown[0], shown[-1]))

    def real(self, slices: Floats) -> Part:
        return Part(inception=self._features(_grey(slices)))

    def _features(self, grey: NDArray[np.uint8]) -> list[torch.Tensor]:
        if self.network is None:
            return []
        images = torch.from_numpy(_resized(grey).astype(np.float32) / 255)[:, None]
        return [self.network(batch).cpu() for batch in images.split(IMAGES_AT_ONCE)]

    def scores(self, parts: Parts, real: Parts) -> dict[str, float | str]:
        found: dict[str, float | str] = {"fid": self._fid(parts, real), "is": self._inception_score(parts)}
        pairs = neighbours(parts)
        for name in ("ms_ssim", "ms_ssim_sd"):
            summary = np.mean if name == "ms_ssim" else np.std
            found[name] = pairs if isinstance(pairs, str) else float(summary(pairs))
        return found | {name: self._mean(name, parts) for name in self.measures if name not in found}

    def _fid(self, parts: Parts, real: Parts) -> float | str:
        if self.network is None:
            return NO_INCEPTION
        sides = [[features for part in side.values() for features in part.inception] for side in (parts, real)]
        if min(sum(map(len, side)) for side in sides) < LEAST_FOR_FID:
            return f"fewer than {LEAST_FOR_FID} slices, or no real high-field slices"
        return frechet_distance(*(torch.cat(side).numpy() for side in sides))

    def _inception_score(self, parts: Parts) -> float | str:
        if self.network is None:
            return NO_INCEPTION
        features = [features for part in parts.values() for features in part.inception]
        if (count := sum(map(len, features))) < LEAST_FOR_IS:
            return f"{count} slices, need at least {LEAST_FOR_IS}"
        from evaluation.metrics.inception import inception_score  # late: it takes a second and is rarely needed

        return inception_score(self.network.logits(torch.cat(features)), seed=self.seed)


def against_truth(prediction: NDArray[np.floating], truth: NDArray[np.floating]) -> dict[str, list[float]]:
    """PSNR and SSIM of every slice, both (S, H, W) in [0, 1]; what cannot be had is missing."""
    every = (psnr_full(p[None], t[None]) for p, t in zip(prediction, truth, strict=True))
    found = {"psnr": [value for value in every if value is not None]}
    if min(truth.shape[1:]) >= LEAST_FOR_SSIM:
        from torchmetrics.functional import image  # late: it takes seconds

        found["ssim"] = _alike(image.structural_similarity_index_measure, prediction, truth)
    return found


def neighbours(parts: Parts) -> list[float] | str:
    """MS-SSIM of all pairs of neighbours in the order of file names, batch by batch; or why there are none.

    Pairs of different size, of the last slice of a subject and the first one of the next, are left out.
    """
    ordered = [parts[subject] for subject in sorted(parts)]
    every: list[float | None] = []
    for number, part in enumerate(ordered):
        if "ms_ssim" not in part.values or part.ends is None:
            return f"slices of {LEAST_SIDE} to {LEAST_FOR_MS_SSIM - 1} px per side are too small for MS-SSIM"
        if number:
            every.append(_between(ordered[number - 1], part))
        every += part.values["ms_ssim"]
    size = (len(every) + 1) // BATCHES
    found = [every[batch * size + i] for batch in range(BATCHES) for i in range(size - 1)]
    known = [value for value in found if value is not None]
    return known or f"fewer than {2 * BATCHES} slices, two in each of {BATCHES} batches"


def _between(one: Part, following: Part) -> float | None:
    assert one.ends is not None and following.ends is not None
    last, first = one.ends[1], following.ends[0]
    found = None if last.shape != first.shape else _ms_ssim(first[None], last[None])
    return None if found is None else found[0]


def _ms_ssim(prediction: Floats, truth: Floats) -> list[float] | None:
    """MS-SSIM of each pair of slices; empty for none, None for slices that are too small."""
    if min(truth.shape[1:]) < LEAST_FOR_MS_SSIM:
        return None
    from torchmetrics.functional import image  # late, as above

    return _alike(image.multiscale_structural_similarity_index_measure, prediction, truth)


def _alike(measure: Callable[..., Any], prediction: NDArray[np.floating], truth: NDArray[np.floating]) -> list[float]:
    """A measure of torchmetrics for each pair of slices, both (S, H, W) float32 in [0, 1]."""
    pairs = (torch.from_numpy(x.astype(np.float32))[:, None].split(IMAGES_AT_ONCE) for x in (prediction, truth))
    parts = [measure(x, y, data_range=1.0, reduction="none") for x, y in zip(*pairs, strict=True) if len(x)]
    return torch.cat(parts).tolist() if parts else []


def _grey(slices: Floats) -> NDArray[np.uint8]:
    return np.round(np.clip(slices, 0, 1) * 255).astype(np.uint8)


def _resized(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Slices (S, H, W) as (S, 224, 224), by Pillow's default for images, bicubic."""
    return np.stack([np.asarray(Image.fromarray(plane).resize((SIDE, SIDE))) for plane in grey])
