"""Run networks on slices: from the slices' own grid to that of the network and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.transforms import to_native, to_network
from evaluation.subjects import SubjectSlices

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Embedder(Protocol):
    """SGP: slices (N, 1, h, w) in [-1, 1] of domain 'A' or 'B' to unit vectors (N, D)."""

    def embed(self, images: Tensor, domain: str) -> Tensor: ...


class Restorer(Protocol):
    """LSC: corruption (returns corrupted slices and masked pixels) and restoration, all (N, 1, h, w)."""

    def corrupt(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...

    def restore(self, corrupted: Tensor, masked: Tensor) -> Tensor: ...


class Synthesiser(Protocol):
    """A generator in evaluation mode: (N, 1, h, w) in [-1, 1] to (N, 1, h, w) in [-1, 1]."""

    def synthesise(self, real_A: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class MirrorAverage:
    """The mean of a generator's outputs for a slice and for its mirror image (left-right)."""

    model: Synthesiser

    def synthesise(self, real_A: Tensor) -> Tensor:
        mirrored = self.model.synthesise(real_A.flip(-1)).flip(-1)
        return (self.model.synthesise(real_A) + mirrored) / 2


@dataclass(frozen=True)
class NetworkGrid:
    """The grid of a run's networks, from its saved options; generators take sides that are multiples of `multiple`."""

    preprocess: str
    load_size: int
    multiple: int = 1

    def tensor(self, images: Floats, masks: Mask, *, padded: bool = False) -> tuple[Tensor, Mask]:
        """Slices and masks (S, H, W) as network input (S, 1, h, w) in [-1, 1] and foreground (S, h, w) bool.

        Args: padded: to the generator's `multiple`. SGP and LSC take any size; for SGP, which resizes what it is given,
            padding would make heads smaller than they were in training.
        """
        multiple = self.multiple if padded else 1
        pairs = [
            to_network(image, mask, preprocess=self.preprocess, load_size=self.load_size, multiple=multiple)
            for image, mask in zip(images, masks, strict=True)
        ]
        inputs, foregrounds = zip(*pairs, strict=True)
        return torch.stack(inputs), torch.cat(foregrounds).numpy() > 0.5

    def native(self, outputs: Tensor, shape: tuple[int, int]) -> Floats:
        """Network output (S, 1, h, w), padded or not, as slices (S, H, W) in [0, 1]."""
        back = partial(to_native, shape=shape, preprocess=self.preprocess, load_size=self.load_size)
        return np.stack([back(output) for output in outputs])


@dataclass(frozen=True)
class Device:
    """Device and batch size for running networks; results do not depend on the batch size."""

    device: torch.device
    batch_size: int

    def run(self, network: Callable[[Tensor], Tensor], slices: Sequence[Tensor]) -> list[Tensor]:
        """The output for each slice (1, c, h, w), float32 on the CPU; consecutive slices of one size form batches."""
        results: list[Tensor] = []
        for _, same in groupby(slices, key=lambda x: x.shape):
            for part in torch.cat(list(same)).split(self.batch_size):
                results += network(part.to(self.device)).float().cpu().split(1)
        return results


def synthesise(model: Synthesiser, volume: SubjectSlices, grid: NetworkGrid, on: Device) -> Floats:
    """fake_B of one subject on the slices' own grid: (S, H, W) float32 in [0, 1]."""
    inputs, _ = grid.tensor(volume.image, volume.mask, padded=True)
    outputs = on.run(model.synthesise, inputs.split(1))
    return grid.native(torch.cat(outputs), volume.image.shape[1:])


def embed(encoder: Embedder, images: Floats, masks: Mask, domain: str, grid: NetworkGrid, on: Device) -> Floats:
    """Unit vectors (S, D) float32 of slices (S, H, W) in [0, 1]."""
    inputs, _ = grid.tensor(images, masks)
    return torch.cat(on.run(lambda part: encoder.embed(part, domain), inputs.split(1))).numpy()
