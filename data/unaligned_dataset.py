"""Slices of two domains without pairs: `unaligned`, and `unaligned_mask`, which also hands masks to the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data import sampling
from data.batch import Batch
from data.cache.packed_slices import PackedSlices
from data.cache.slice_cache import SliceCache
from data.raw_batch import RawBatch, RawGroup
from data.sampling import Batches, Draws
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
    """Slices of A and partners of B, with foreground masks. Whole batches are asked for by `Draws`, see `batches`."""

    Options = UnalignedOptions
    gives_masks = True

    def __init__(self, cache: SliceCache, options: UnalignedOptions, *, split: str = "train", seed: int = 0) -> None:
        self.options, self.seed = options, seed
        source, target = ("A", "B") if options.direction == "AtoB" else ("B", "A")
        self.A, self.B = cache.open(split, source), cache.open(split, target)
        for folder in self.folders:
            folder.keep_first(options.max_dataset_size)
        self.partners: NDArray[np.int64] | None = None
        self.transform = TrainTransform(
            preprocess=options.preprocess,
            load_size=options.load_size,
            crop_size=options.crop_size or options.load_size,
            flip=options.flip,
        )

    @property
    def folders(self) -> tuple[PackedSlices, PackedSlices]:
        """Both domains' slices."""
        return self.A, self.B

    def check_sizes(self) -> None:
        """Raise UserError if slices go to the network as they are and differ in size."""
        if self.options.preprocess == "none":
            shapes = np.unique(np.concatenate([folder.shapes for folder in self.folders]), axis=0)
            if len(shapes) > 1:
                found = [tuple(shape) for shape in shapes[:3].tolist()]
                raise UserError(f"--preprocess none needs slices of one size, found {found}")

    def image_size(self) -> tuple[int, int]:
        """(H, W) of what models see."""
        side = self.options.network_size
        height, width = self.A.image(0).shape if side is None else (side, side)
        return height, width

    def set_partners(self, partners: NDArray[np.int64] | None) -> None:
        """From the next epoch on draw b for each a from this (len A, k) table; None: by level."""
        self.partners = partners

    def batches(self, stage: str, kind: str, epoch: int, batch_size: int) -> Batches:
        """All draws of one epoch of one stage, cut into batches; the last may be smaller."""
        rng = sampling.generator(self.seed, stage, epoch)
        if kind == LEVELS:
            draws = sampling.level_epoch(
                self.A.p,
                self.B.p,
                self.A.volume,
                self.B.volume,
                batch_size=batch_size,
                rng=rng,
                tolerance=self.options.level_tolerance,
                crop=self.options.level_crop,
            )
        else:
            draws = self._pass(rng)
        return Batches(draws, batch_size)

    def _pass(self, rng: np.random.Generator) -> Draws:
        return sampling.shuffled_epoch(
            self.A.p,
            self.B.p,
            rng=rng,
            tolerance=self.options.level_tolerance,
            serial=self.options.serial_batches,
            partners=self.partners,
        )

    def __getitems__(self, draws: Draws) -> Batch:
        """The batch that `draws` ask for, prepared on the CPU."""
        return self.prepare(self.raw(draws))

    def raw(self, draws: Draws) -> RawBatch:
        """What `prepare` makes a batch of, as the cache holds it."""
        return RawBatch(
            self._gathered(self.A, draws.a, draws.key, 0),
            self._gathered(self.B, draws.b, draws.key, 1),
            torch.from_numpy(draws.p_a.astype(np.float32)),
            torch.from_numpy(draws.p_b.astype(np.float32)),
            *(torch.from_numpy(numbers.copy()) for numbers in (draws.a, draws.b, draws.key)),
        )

    def _gathered(
        self, folder: PackedSlices, wanted: NDArray[np.int64], keys: NDArray[np.int64], domain: int
    ) -> tuple[RawGroup, ...]:
        groups = []
        for rows, pixels, bits in folder.gather(wanted):
            places = self.transform.places(keys[rows], (pixels.shape[1], pixels.shape[2]), domain)
            signed = pixels.view(np.int16) if pixels.dtype == np.uint16 else pixels
            groups.append(RawGroup(*map(torch.from_numpy, (rows, signed, bits, places))))
        return tuple(groups)

    def prepare(self, raw: RawBatch) -> Batch:
        """Scale, resize, crop and flip a whole batch, on the device where it is."""
        if not len(raw):  # of a batch that is shared by more processes than it has items
            nothing = torch.empty(0, 1, *self.image_size(), device=raw.p_A.device)
            image_A = image_B = mask_A = mask_B = nothing
            return Batch(image_A, image_B, mask_A, mask_B, raw.p_A, raw.p_B, raw.index_A, raw.index_B, raw.key)
        (image_A, mask_A), (image_B, mask_B) = (self._prepared(groups) for groups in (raw.A, raw.B))
        if not self.gives_masks:
            mask_A, mask_B = torch.ones_like(mask_A), torch.ones_like(mask_B)
        return Batch(image_A, image_B, mask_A, mask_B, raw.p_A, raw.p_B, raw.index_A, raw.index_B, raw.key)

    def _prepared(self, groups: tuple[RawGroup, ...]) -> tuple[Tensor, Tensor]:
        """Image and mask (N, 1, h, w) of a batch's slices of one domain, in the batch's order."""
        parts = [self.transform(group) for group in groups]
        if len(parts) == 1:
            return parts[0]
        place = torch.cat([group.rows for group in groups]).argsort()
        image, mask = (torch.cat(tensors)[place] for tensors in zip(*parts, strict=True))
        return image, mask

    def slices(self, domain: str, batch_size: int, *, part: slice = slice(None), multiple: int = 1) -> Iterator[Tensor]:
        """The slices of a domain, or those of `part`, in order, as at test time: batches (n, 1, h, w) in [-1, 1]."""
        folder, o = self.A if domain == "A" else self.B, self.options

        def prepared(rows: range) -> Tensor:
            image, mask = np.stack([folder.image(i) for i in rows]), np.stack([folder.mask(i) for i in rows])
            return to_network(image, mask, preprocess=o.preprocess, load_size=o.load_size, multiple=multiple)[0]

        wanted = range(len(folder))[part]
        for rows in (wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size)):
            same_size = len({folder.shape(i) for i in rows}) == 1
            yield prepared(rows) if same_size else torch.cat([prepared(range(i, i + 1)) for i in rows])


class UnalignedDataset(UnalignedMaskDataset):
    """The same images; the model is given masks of ones, as if nobody knew the foreground."""

    gives_masks = False
