"""Restoration of corrupted slices by LSC, and by what needs no training (docs/method.md section 6.5).

Without training, blocks are turned back by belief propagation with its initial energies, the part of LSC that is not a
network, and masked blocks are then filled by a filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from evaluation.metrics.image import psnr
from evaluation.predict import Device, Restorer
from evaluation.record import Record
from models.lsc_options import LSCTraining
from models.networks.lsc import block_side
from models.networks.unrotation import Unrotation

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]
Filling = Callable[[Floats, Mask], Floats]
Solver = Callable[[Tensor], Tensor]  # corrupted slices (N, 1, h, w) to the same with their blocks turned back

MEDIAN_RADII = (5, 9)  # pixels; of several filter sizes the best one is reported
GAUSSIAN_SIGMAS = (1.0, 2.0, 4.0)  # pixels

DEFINITIONS = {
    "lsc.psnr": "dB; inside the head, of high-field slices on the network's grid, mean over slices, range [0, 1]; "
    "test subjects unless the name says train",
    "restored": "the slice as LSC restores it; restored_train: training slices",
    "corrupted": "the slice with blocks rotated and masked, the input of LSC",
    "unrotated": "the corrupted slice after the untrained solver has turned its blocks back; masked blocks stay",
    "solver": "the untrained solver, then biharmonic filling of the masked blocks: what LSC must beat",
    "best_filter": "the untrained solver, then the best of median, normalised-Gaussian and biharmonic filling",
    "memorised_db": "dB; restored_train - restored: above 1 the network has memorised its training slices",
}


def gaussian_fill(image: Floats, masked: Mask, *, sigma: float) -> Floats:
    """Masked pixels become the Gaussian-weighted mean of unmasked ones; all (H, W)."""
    weight = gaussian_filter((~masked).astype(np.float64), sigma, mode="constant")
    total = gaussian_filter(np.where(masked, 0, image).astype(np.float64), sigma, mode="constant")
    return np.where(masked, total / np.maximum(weight, 1e-12), image)


def median_fill(image: Floats, masked: Mask, *, radius: int) -> Floats:
    """Masked pixels become the median of unmasked ones in a square window, or their Gaussian mean if it has none."""
    filled = gaussian_fill(image, masked, sigma=float(radius))
    known = np.pad(np.where(masked, np.nan, image), radius, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(known, (2 * radius + 1, 2 * radius + 1))
    rows, columns = np.nonzero(masked)
    window = windows[rows, columns].reshape(len(rows), (2 * radius + 1) ** 2)  # there may be none
    usable = ~np.isnan(window).all(axis=1)
    filled[rows[usable], columns[usable]] = np.nanmedian(window[usable], axis=1)
    return filled


def biharmonic_fill(image: Floats, masked: Mask) -> Floats:
    """Masked pixels solve the biharmonic equation with the unmasked ones as boundary."""
    return np.clip(inpaint_biharmonic(image.astype(np.float64), masked), 0, 1) if masked.any() else image


FILLINGS: dict[str, Filling] = {
    "biharmonic": biharmonic_fill,
    **{f"median_{radius}": partial(median_fill, radius=radius) for radius in MEDIAN_RADII},
    **{f"gaussian_{sigma:g}": partial(gaussian_fill, sigma=sigma) for sigma in GAUSSIAN_SIGMAS},
}


SOLVER_FILLING = "biharmonic"


def untrained_solver(options: LSCTraining) -> Solver | None:
    """The solver that LSC starts from, without any training; None if C turns no blocks."""
    if options.rotate_ratio == 0:
        return None
    unrotation = Unrotation(options.rotate_ratio)

    @torch.no_grad()
    def solve(corrupted: Tensor) -> Tensor:
        return unrotation(corrupted, block_side((corrupted.shape[-2], corrupted.shape[-1]), options.lsc_blocks))

    return solve


def _unit(x: Tensor) -> Floats:
    """One slice (1, 1, h, w) in [-1, 1] as (h, w) float32 in [0, 1]."""
    return ((x[0, 0].float() + 1) / 2).clamp(0, 1).cpu().numpy()


def _mean_psnr(predictions: Iterable[Floats], truths: Sequence[Floats], heads: Sequence[Mask]) -> float:
    """Mean PSNR inside the head over slices (h, w); slices without head or without error are left out."""
    values = [psnr(p, t, head) for p, t, head in zip(predictions, truths, heads, strict=True)]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _fill(task: tuple[Floats, Mask], fill: Filling) -> Floats:
    return fill(*task)


class Restoration:
    """A seeded corruption of N slices and its restoration by LSC."""

    def __init__(
        self,
        lsc: Restorer,
        slices: Sequence[Tensor],
        heads: Sequence[Mask],
        on: Device,
        *,
        seed: int,
        solve: Solver | None = None,
    ) -> None:
        """`slices`: N times (1, 1, h, w) in [-1, 1], sizes may differ; `heads`: N times (1, h, w) bool.

        solve: turns blocks back without training, see `untrained_solver`; None if C turns none.
        """
        generator = torch.Generator().manual_seed(seed)
        self.truth = [_unit(x) for x in slices]
        self.heads = [head[0] for head in heads]
        pairs = [lsc.corrupt(x, generator) for x in slices]  # one by one, so draws do not depend on the batch size
        self.corrupted = [_unit(corrupted) for corrupted, _ in pairs]
        self.masked: list[Mask] = [masked[0, 0].numpy() > 0 for _, masked in pairs]
        turned = [corrupted if solve is None else solve(corrupted) for corrupted, _ in pairs]
        self.unrotated = [_unit(x) for x in turned]
        both = [torch.cat([corrupted, masked.to(corrupted)], 1) for corrupted, masked in pairs]
        self.restored = [_unit(x) for x in on.run(lambda x: lsc.restore(x[:, :1], x[:, 1:] > 0), both)]

    def psnr(self) -> dict[str, float]:
        """PSNR in dB of LSC's restoration, of the corrupted slices, and of these with their blocks turned back."""
        kinds = {"restored": self.restored, "corrupted": self.corrupted, "unrotated": self.unrotated}
        return {name: _mean_psnr(images, self.truth, self.heads) for name, images in kinds.items()}

    def filter_psnr(self, pool: Executor) -> dict[str, float]:
        """PSNR in dB of every filter after the solver; only masked pixels in the head are filled: these are scored."""
        tasks = [(c, m & h) for c, m, h in zip(self.unrotated, self.masked, self.heads, strict=True)]
        return {
            name: _mean_psnr(pool.map(partial(_fill, fill=fill), tasks), self.truth, self.heads)
            for name, fill in FILLINGS.items()
        }


def summarise(record: Record, test: Restoration, train: Restoration | None, pool: Executor) -> None:
    """Write `lsc` into the record."""
    scores = test.psnr()
    if math.isnan(scores["corrupted"]):
        record.null("lsc", why="no high-field test slice has pixels of a head that the corruption changes, need one")
        return
    fillings = test.filter_psnr(pool)
    best = max(fillings, key=lambda name: fillings[name])
    for name, value in {**scores, "solver": fillings[SOLVER_FILLING], "best_filter": fillings[best]}.items():
        record.put("lsc", "psnr", name, value=value)
    if train is None:
        for name in ("restored_train", "memorised_db"):
            record.null("lsc", "psnr", name, why="no high-field training slices")
    else:
        seen = train.psnr()["restored"]
        for name, value in (("restored_train", seen), ("memorised_db", seen - scores["restored"])):
            if math.isnan(value):
                record.null("lsc", "psnr", name, why="no high-field training slice has pixels of a head")
            else:
                record.put("lsc", "psnr", name, value=value)
    record.put("lsc", "best_filter_name", value=best)
    for name, value in fillings.items():
        record.put("lsc", "filter_psnr", name, value=value)
