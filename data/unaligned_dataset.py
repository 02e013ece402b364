"""Unpaired slices of two domains: `unaligned`, and `unaligned_mask`, which gives the model foreground masks too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data import sampling
from data.alignment import aligned_levels, looks_of
from data.batch import LEVELS, OWN, SAMPLINGS, Batch, Pairs
from data.cache.packed_slices import PackedSlices
from data.cache.slice_cache import SliceCache
from data.folder.manifest import DOMAINS
from data.raw_batch import RawBatch, RawGroup
from data.sampling import Batches, Draws
from data.transforms import TrainTransform, to_network
from data.unaligned_options import UnalignedOptions
from util.errors import UserError
from util.problems import Problem

CHUNK = 64  # slices that are read at a time


class UnalignedMaskDataset(Dataset[Batch]):
    """Slices of A with partners from B, and foreground masks. An index is a whole batch, given as `Draws`."""

    Options = UnalignedOptions
    gives_masks = True
    paired = False  # whether B's slices are the truth of A's

    def __init__(self, cache: SliceCache, options: UnalignedOptions, *, split: str = "train", seed: int = 0) -> None:
        self.options, self.seed = options, seed
        source, target = ("A", "B") if options.direction == "AtoB" else ("B", "A")
        self.A, self.B = self.opened(cache, split, source, target)
        self.partners: Pairs | None = None
        self._aligned: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self.transform = TrainTransform(
            preprocess=options.preprocess,
            load_size=options.load_size,
            crop_size=options.crop_size or options.load_size,
            flip=options.flip,
        )

    @classmethod
    def available(cls, cache: SliceCache, split: str) -> bool:
        """Whether the folders of `split` exist."""
        return all(cache.has(split, domain) for domain in DOMAINS)

    def opened(self, cache: SliceCache, split: str, source: str, target: str) -> tuple[PackedSlices, PackedSlices]:
        """The slices of A and B, at most --max_dataset_size each. Raises: UserError as `SliceCache.open`."""
        both = cache.open(split, source), cache.open(split, target)
        for folder in both:
            folder.truncate(self.options.max_dataset_size)
        return both

    @property
    def folders(self) -> tuple[PackedSlices, PackedSlices]:
        """Both domains' slices."""
        return self.A, self.B

    def problems(self) -> list[Problem]:
        """Files that cannot be used."""
        return [problem for folder in self.folders for problem in folder.problems]

    def exclude(self, problems: Iterable[Problem]) -> None:
        """Leave out the slices that `problems` name. Raises: UserError if no slice is left in a folder."""
        named = list(problems)
        for folder in self.folders:
            folder.exclude(named)

    def check_sizes(self) -> None:
        """Raise UserError if `--preprocess none` meets slices of different sizes."""
        if self.options.preprocess == "none":
            shapes = np.unique(np.concatenate([folder.shapes for folder in self.folders]), axis=0)
            if len(shapes) > 1:
                found = [tuple(shape) for shape in shapes[:3].tolist()]
                raise UserError(f"--preprocess none needs slices of one size, found {found}")

    def image_size(self) -> tuple[int, int]:
        """(H, W) of the models' input."""
        side = self.options.network_size
        height, width = self.A.image(0).shape if side is None else (side, side)
        return height, width

    def levels(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(N,), (M,) levels by which slices of A and B are paired: p, or with --align_levels those on a common axis."""
        if not self.options.align_levels:
            return self.A.p, self.B.p
        if self._aligned is None:
            low, high = (
                np.concatenate([looks_of(images).numpy() for images in self.slices(domain, CHUNK)]) for domain in "AB"
            )
            self._aligned = aligned_levels((low, high), (self.A.p, self.B.p), (self.A.volume, self.B.volume))
        return self._aligned

    def set_partners(self, partners: Pairs | None) -> None:
        """Draw the items of shuffled epochs from these pairs from the next epoch on; None: pair slices by level."""
        self.partners = partners

    def batches(self, stage: str, kind: str, epoch: int, batch_size: int, *, places: str = OWN) -> Batches:
        """The batches of one epoch of one stage; the last may be smaller.

        Args: kind: one of SAMPLINGS. places: one of PLACES (data/batch.py).
        """
        if kind not in SAMPLINGS:
            raise ValueError(f"kind is {kind!r}, allowed are {SAMPLINGS}")
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
            draws = self._shuffled_epoch(rng)
        return Batches(sampling.at_places(draws, places, batch_size), batch_size)

    def _shuffled_epoch(self, rng: np.random.Generator) -> Draws:
        return sampling.shuffled_epoch(
            *self.levels(),
            rng=rng,
            tolerance=self.options.level_tolerance,
            serial=self.options.serial_batches,
            partners=self.partners,
        )

    def __getitems__(self, draws: Draws) -> Batch:
        """The batch that `draws` select, prepared on the CPU."""
        return self.prepare(self.raw(draws))

    def raw(self, draws: Draws) -> RawBatch:
        """The slices that `draws` select, as the cache stores them: the input of `prepare`."""
        return RawBatch(
            self._gather(self.A, draws.a, draws.place_a),
            self._gather(self.B, draws.b, draws.place_b),
            torch.from_numpy(draws.p_a.astype(np.float32)),
            torch.from_numpy(draws.p_b.astype(np.float32)),
            *(torch.from_numpy(array.copy()) for array in (draws.a, draws.b, draws.key)),
        )

    def _gather(
        self, folder: PackedSlices, indices: NDArray[np.int64], places: NDArray[np.int64]
    ) -> tuple[RawGroup, ...]:
        groups = []
        for items, pixels, bits in folder.gather(indices):
            crops = self.transform.draw_crops(places[items], (pixels.shape[1], pixels.shape[2]))
            signed = pixels.view(np.int16) if pixels.dtype == np.uint16 else pixels
            groups.append(RawGroup(*map(torch.from_numpy, (items, signed, bits, crops))))
        return tuple(groups)

    def prepare(self, raw: RawBatch) -> Batch:
        """Scale, resize, crop and flip a whole batch on its own device."""
        if not len(raw):  # this process' part of a batch with fewer items than processes
            empty = torch.empty(0, 1, *self.image_size(), device=raw.p_A.device)
            image_A = image_B = mask_A = mask_B = empty
            return Batch(image_A, image_B, mask_A, mask_B, raw.p_A, raw.p_B, raw.index_A, raw.index_B, raw.key)
        (image_A, mask_A), (image_B, mask_B) = (self._prepare_groups(groups) for groups in (raw.A, raw.B))
        if not self.gives_masks:
            mask_A, mask_B = torch.ones_like(mask_A), torch.ones_like(mask_B)
        return Batch(image_A, image_B, mask_A, mask_B, raw.p_A, raw.p_B, raw.index_A, raw.index_B, raw.key)

    def _prepare_groups(self, groups: tuple[RawGroup, ...]) -> tuple[Tensor, Tensor]:
        """Images and masks (N, 1, h, w) of one domain, in the order of the batch."""
        parts = [self.transform(group) for group in groups]
        if len(parts) == 1:
            return parts[0]
        order = torch.cat([group.items for group in groups]).argsort()
        image, mask = (torch.cat(tensors)[order] for tensors in zip(*parts, strict=True))
        return image, mask

    def slices(self, domain: str, batch_size: int, *, part: slice = slice(None)) -> Iterator[Tensor]:
        """The slices of a domain, or of a `part` of it, in order and as in testing: batches (n, 1, h, w) in [-1, 1]."""
        folder, o = self.A if domain == "A" else self.B, self.options

        def prepared(indices: range) -> Tensor:
            image, mask = np.stack([folder.image(i) for i in indices]), np.stack([folder.mask(i) for i in indices])
            return to_network(image, mask, preprocess=o.preprocess, load_size=o.load_size)[0]

        selected = range(len(folder))[part]
        for indices in (selected[start : start + batch_size] for start in range(0, len(selected), batch_size)):
            same_size = len({folder.shape(i) for i in indices}) == 1
            yield prepared(indices) if same_size else torch.cat([prepared(range(i, i + 1)) for i in indices])


class UnalignedDataset(UnalignedMaskDataset):
    """The same images with masks of ones, for models that make no use of the foreground."""

    gives_masks = False
