"""Slices of two domains without pairs: `unaligned`, and `unaligned_mask`, which also hands masks to the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from data import sampling
from data.batch import Batch
from data.slice_folder import SliceFolder
from data.transforms import PREPROCESS, TrainTransform, to_network
from util.errors import UserError
from util.schema import flag

LEVELS = "levels"  # Stage.sampling: batches of distinct levels; anything else is the shuffled pass


@dataclass(frozen=True)
class UnalignedOptions:
    """How slices are prepared and combined."""

    load_size: int = flag(224, "side in pixels that slices are resized to", group="data", low=16)
    crop_size: int = flag(0, "side in pixels of random crops; 0: --load_size", group="data", low=0)
    preprocess: str = flag("resize", "what happens to slices at loading", group="data", choices=PREPROCESS)
    flip: bool = flag(False, "flip slices left to right at random", group="data")
    direction: str = flag("AtoB", "which domain is the source", group="data", choices=("AtoB", "BtoA"))
    serial_batches: bool = flag(False, "take A's slices in file order", group="data")
    max_dataset_size: int | None = flag(None, "use only the first slices of each domain", group="data", low=1)
    level_tolerance: float = flag(0.03, "partners differ by at most this relative level p", group="data", low=0, high=1)
    level_crop: float = flag(
        0.1, "SGP batches: random cut of each volume's level range, per end", group="data", low=0, high=0.45
    )

    @property
    def network_size(self) -> int | None:
        """Side of the images that models see; None when `none` leaves slices as they are."""
        if self.preprocess == "none":
            return None
        return self.load_size if self.preprocess == "resize" else (self.crop_size or self.load_size)


class UnalignedMaskDataset(Dataset[Batch]):
    """Slices of A and partners of B, with foreground masks. Items are asked for by `Draw`, see `batches`."""

    Options = UnalignedOptions
    gives_masks = True

    def __init__(self, dataroot: Path, options: UnalignedOptions, *, split: str = "train", seed: int = 0) -> None:
        self.options, self.seed = options, seed
        source, target = ("A", "B") if options.direction == "AtoB" else ("B", "A")
        self.A = SliceFolder(dataroot, split, source, max_size=options.max_dataset_size)
        self.B = SliceFolder(dataroot, split, target, max_size=options.max_dataset_size)
        self.partners: NDArray[np.int64] | None = None
        self.transform = TrainTransform(
            preprocess=options.preprocess,
            load_size=options.load_size,
            crop_size=options.crop_size or options.load_size,
            flip=options.flip,
        )

    @property
    def folders(self) -> tuple[SliceFolder, SliceFolder]:
        """Both domains' slices."""
        return self.A, self.B

    def check_sizes(self) -> None:
        """Raise UserError if slices go to the network as they are and differ in size."""
        if self.options.preprocess == "none":
            shapes = {folder.image(i).shape for folder in (self.A, self.B) for i in range(len(folder))}
            if len(shapes) > 1:
                raise UserError(f"--preprocess none needs slices of one size, found {sorted(shapes)[:3]}")

    def image_size(self) -> tuple[int, int]:
        """(H, W) of what models see."""
        side = self.options.network_size
        height, width = self.A.image(0).shape if side is None else (side, side)
        return height, width

    def set_partners(self, partners: NDArray[np.int64] | None) -> None:
        """From the next epoch on draw b for each a from this (len A, k) table; None: by level."""
        self.partners = partners

    def batches(self, stage: str, kind: str, epoch: int, batch_size: int) -> list[list[sampling.Draw]]:
        """All draws of one epoch of one stage, cut into batches; the last may be smaller."""
        rng = sampling.generator(self.seed, stage, epoch)
        if kind == LEVELS:
            draws = sampling.level_epoch(
                self.A.p,
                self.B.p,
                _numbered(self.A.subjects),
                _numbered(self.B.subjects),
                batch_size=batch_size,
                rng=rng,
                tolerance=self.options.level_tolerance,
                crop=self.options.level_crop,
            )
        else:
            draws = self._pass(rng)
        return [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]

    def _pass(self, rng: np.random.Generator) -> list[sampling.Draw]:
        return sampling.shuffled_epoch(
            self.A.p,
            self.B.p,
            rng=rng,
            tolerance=self.options.level_tolerance,
            serial=self.options.serial_batches,
            partners=self.partners,
        )

    def __getitem__(self, draw: sampling.Draw) -> Batch:
        """One item without batch dimension: images (1, h, w), scalars for the rest."""
        image_a, mask_a = self.transform(self.A.image(draw.a), self.A.mask(draw.a), draw.key)
        image_b, mask_b = self.transform(self.B.image(draw.b), self.B.mask(draw.b), draw.key ^ 1)
        if not self.gives_masks:
            mask_a, mask_b = torch.ones_like(mask_a), torch.ones_like(mask_b)
        return Batch(
            image_a,
            image_b,
            mask_a,
            mask_b,
            torch.tensor(draw.p_a),
            torch.tensor(draw.p_b),
            torch.tensor(draw.a),
            torch.tensor(draw.b),
            torch.tensor(draw.key),
        )

    def slices(self, domain: str, batch_size: int, *, multiple: int = 1) -> Iterator[torch.Tensor]:
        """All slices of a domain in order, as at test time: batches (n, 1, h, w) in [-1, 1]."""
        folder = self.A if domain == "A" else self.B
        o = self.options
        for start in range(0, len(folder), batch_size):
            part = range(start, min(start + batch_size, len(folder)))
            prepare = (folder.image(i) for i in part), (folder.mask(i) for i in part)
            yield torch.stack(
                [
                    to_network(image, mask, preprocess=o.preprocess, load_size=o.load_size, multiple=multiple)[0]
                    for image, mask in zip(*prepare, strict=True)
                ]
            )


class UnalignedDataset(UnalignedMaskDataset):
    """The same images; the model is given masks of ones, as if nobody knew the foreground."""

    gives_masks = False


def _numbered(names: list[str]) -> NDArray[np.int64]:
    """Names as numbers 0, 1, … in alphabetical order."""
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)


def collate(items: list[Batch]) -> Batch:
    """Stack single items into a batch."""
    return Batch(**{name: torch.stack([getattr(item, name) for item in items]) for name in Batch.__annotations__})
