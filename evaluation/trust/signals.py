"""What a trained model itself tells of where its synthesis may be wrong: three signals, none of which needs a truth.

disagreement: how much fake_B changes when the input is mirrored, shifted, or gets its own noise once more.
cycle: how far G_BA(fake_B) is from the input, where the model has G_BA.
sgp: how far apart SGP finds the input and fake_B, one number a slice, where the model has SGP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from evaluation.predict import Device, NetworkGrid, embed
from evaluation.subjects import SubjectSlices
from models.base_model import BaseModel
from models.low_field import noise

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIGNALS = ("disagreement", "cycle", "sgp")
NOISY_PASSES = 8  # AUC of their standard deviation on validation people: 0.64 with 2, 0.68 with 4, 0.71 with 8 or 12
SHIFT = 1 / 64  # of the longer side, once down and once to the right
UNIT = 1 / 128  # of the longer side: what lengths below are multiples of, one pixel of the slices of the demo
DISAGREEMENT_SIGMA = 1.0  # standard deviation of the smoothing
CYCLE_BAND = (2.0, 12.0)  # finer is noise, which G_BA does not make; coarser is the receive field
CYCLE_SIGMA = 3.0
PASSES = NOISY_PASSES + 3  # beside fake_B itself


class BothWays(Protocol):
    """A model with G_BA: fake_B (N, 1, h, w) in [-1, 1] back to the source domain."""

    def synthesise_back(self, fake_B: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class InputNoise:
    """The noise of the slices tested, in the network's input [-1, 1], and the fraction of k-space that it fills."""

    deviation: float
    band: float


def unit_of(shape: tuple[int, ...]) -> float:
    """Pixels that one unit of length has in slices (..., H, W)."""
    return UNIT * max(shape[-2:])


def smooth(images: Floats, mask: Mask, sigma: float) -> Floats:
    """Gaussian means within the mask, (S, H, W) float32, 0 outside; sigma in pixels, in plane only."""
    inside = mask.astype(np.float32)
    weight = gaussian_filter(inside, (0, sigma, sigma))
    total = gaussian_filter((images * inside).astype(np.float32), (0, sigma, sigma))
    return np.where(mask, total / np.maximum(weight, 1e-3), np.float32(0)).astype(np.float32)


def signals_of(model: BaseModel) -> tuple[str, ...]:
    """The signals that this model can give."""
    has = {"cycle": hasattr(model, "synthesise_back"), "sgp": model.sgp is not None}
    return tuple(name for name in SIGNALS if has.get(name, True))


def find_signals(
    model: BaseModel, volume: SubjectSlices, fake_B: Floats, grid: NetworkGrid, on: Device, added: InputNoise, seed: int
) -> dict[str, Floats]:
    """The model's signals for one subject: (S, H, W) float32, at least 0, more is worse; 0 outside the head.

    Args:
        fake_B: (S, H, W) in [0, 1], the synthesis that is judged.
        seed: of the added noise, which follows from it and each slice alone, whatever batch or process it is in.
    """
    has, unit = signals_of(model), unit_of(fake_B.shape)
    variance = _variance(fake_B, _passes(model, volume, grid, on, added, seed))
    found = {"disagreement": np.sqrt(smooth(variance, volume.mask, DISAGREEMENT_SIGMA * unit))}
    if "cycle" in has:
        found["cycle"] = _cycle(model, volume, fake_B, grid, on)
    if "sgp" in has:
        found["sgp"] = _sgp(model, volume, fake_B, grid, on)
    return found


def _variance(reference: Floats, others: Iterable[Floats]) -> Floats:
    """The variance of `reference` and all `others`, pixel by pixel. Only their sums are in memory."""
    total, squares, n = np.zeros_like(reference), np.zeros_like(reference), 1
    for other in others:
        apart = other - reference
        total += apart
        squares += apart**2
        n += 1
    return (np.maximum(squares - total**2 / n, 0) / (n - 1)).astype(np.float32)


def _passes(
    model: BaseModel, volume: SubjectSlices, grid: NetworkGrid, on: Device, added: InputNoise, seed: int
) -> Iterator[Floats]:
    """The syntheses of changed inputs, turned and shifted back, (S, H, W) each.

    Shifts go round the edges, where there is air. The noise is as strong as the input's own and has its spectrum.
    """
    inputs, heads = grid.tensor(volume.image, volume.mask, padded=True)
    mask, keys = torch.from_numpy(heads)[:, None].float(), _keys(volume, seed)
    step = max(1, round(SHIFT * max(inputs.shape[-2:])))

    def made(changed: Tensor, back: Callable[[Tensor], Tensor]) -> Floats:
        outputs = torch.cat(on.run(model.synthesise, changed.split(1)))
        return grid.native(back(outputs), (volume.image.shape[1], volume.image.shape[2]))

    yield made(inputs.flip(-1), lambda x: x.flip(-1))
    for side in (-2, -1):
        yield made(inputs.roll(step, side), lambda x, side=side: x.roll(-step, side))  # type: ignore[misc]
    for number in range(NOISY_PASSES):
        drawn = noise(mask, added.deviation, added.band, keys, f"trust {number}")
        yield made((inputs + drawn).clamp(-1, 1), lambda x: x)


def _keys(volume: SubjectSlices, seed: int) -> Tensor:
    """A key (S,) for the random numbers of every slice."""
    names = (f"{seed} {volume.subject} {index}".encode("utf-8", "surrogateescape") for index in volume.index.tolist())
    return torch.tensor([int.from_bytes(hashlib.blake2b(name, digest_size=7).digest()) for name in names])


def _cycle(model: BaseModel, volume: SubjectSlices, fake_B: Floats, grid: NetworkGrid, on: Device) -> Floats:
    """Local root mean square of a - G_BA(fake_B) within `CYCLE_BAND`.

    G_BA draws images without the noise and the receive field that a has, so neither is compared.
    """
    unit, mask = unit_of(fake_B.shape), volume.mask
    whole, _ = grid.tensor(fake_B, np.ones_like(mask), padded=True)  # G_BA was trained on images whose air is theirs
    back = torch.cat(on.run(cast(BothWays, model).synthesise_back, whole.split(1)))
    apart = volume.image - grid.native(back, (fake_B.shape[1], fake_B.shape[2]))
    fine, coarse = (smooth(apart, mask, sigma * unit) for sigma in CYCLE_BAND)
    return np.sqrt(smooth((fine - coarse) ** 2, mask, CYCLE_SIGMA * unit))


def _sgp(model: BaseModel, volume: SubjectSlices, fake_B: Floats, grid: NetworkGrid, on: Device) -> Floats:
    """1 - the cosine between SGP's embeddings of the input and of fake_B, the same in all of a slice's head."""
    assert model.sgp is not None
    low = embed(model.sgp, volume.image, volume.mask, "A", grid, on)
    high = embed(model.sgp, fake_B, volume.mask, "B", grid, on)
    apart = np.maximum(1 - (low * high).sum(1), 0)
    return np.where(volume.mask, apart[:, None, None], np.float32(0)).astype(np.float32)
