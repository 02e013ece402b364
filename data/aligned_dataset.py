"""`aligned`: slices of A, each with the true high-field slice of the same place, for models that learn from pairs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from data import sampling
from data.batch import BATCH, PAIR
from data.cache.packed_slices import PackedSlices
from data.cache.slice_cache import SliceCache
from data.sampling import Batches
from data.unaligned_dataset import UnalignedMaskDataset
from util.errors import UserError
from util.problems import Problem

TRUTH = "truth"


class AlignedDataset(UnalignedMaskDataset):
    """Slices of `trainA` as A and those of `trainA_truth` as B: slice i of both shows the same anatomy.

    Both have their own masks, and every pair has one crop and flip.
    """

    paired = True

    @classmethod
    def available(cls, cache: SliceCache, split: str) -> bool:
        return cache.has(split, "A") and cache.has(split, "A", TRUTH)

    def opened(self, cache: SliceCache, split: str, source: str, target: str) -> tuple[PackedSlices, PackedSlices]:
        """A and its truth.

        Raises: UserError as `SliceCache.open`; there is no truth; no slice has one.
        """
        low = cache.open(split, source)
        if not cache.has(split, source, TRUTH):
            raise UserError(
                f"--dataset_mode aligned: no folder {split}{source}_truth in {cache.dataroot}, and pairs need one; "
                "preprocessing_images.py writes it with --simulate or --truth_A"
            )
        high = cache.open(split, source, TRUTH)
        high.domain = target  # it stands in B's place
        self._unpaired = _unpaired(low, high)
        low.truncate(self.options.max_dataset_size)
        _pair(low, high)
        return low, high

    def problems(self) -> list[Problem]:
        """Files that cannot be used, and slices whose truth is missing or of another size."""
        return [*super().problems(), *self._unpaired]

    def exclude(self, problems: Iterable[Problem]) -> None:
        super().exclude(problems)
        _pair(self.A, self.B)

    def batches(self, stage: str, kind: str, epoch: int, batch_size: int, *, places: str = PAIR) -> Batches:
        """As of the base class; both slices of an item share crop and flip, whatever `places` says."""
        shared = BATCH if places == BATCH else PAIR
        return super().batches(stage, kind, epoch, batch_size, places=shared)

    def _shuffled_epoch(self, rng: np.random.Generator) -> sampling.Draws:
        return sampling.paired_epoch(self.A.p, rng=rng, serial=self.options.serial_batches)


def _places(folder: PackedSlices) -> dict[str, int]:
    """The position in `folder` of every slice, by its name without suffix."""
    return {folder.name(i).rpartition(".")[0]: i for i in range(len(folder))}


def _unpaired(low: PackedSlices, high: PackedSlices) -> list[Problem]:
    """Slices of A without truth, and truths of another size than their slice."""
    truths, told, found = _places(high), {problem.path.stem for problem in high.problems}, list[Problem]()
    for stem, i in _places(low).items():
        if stem not in truths:
            if stem not in told:
                found.append(Problem(low.folder / low.name(i), f"no truth of that name in {high.folder}"))
        elif high.shape(truths[stem]) != low.shape(i):
            sizes = (*high.shape(truths[stem]), *low.shape(i))
            path = high.folder / high.name(truths[stem])
            found.append(Problem(path, "{}x{} pixels, its slice has {}x{}".format(*sizes)))
    alone = truths.keys() - _places(low).keys() - {problem.path.stem for problem in low.problems}
    names = [high.name(truths[stem]) for stem in sorted(alone)]
    return found + [Problem(high.folder / name, f"a truth without image in {low.folder}") for name in names]


def _pair(low: PackedSlices, high: PackedSlices) -> None:
    """Keep the slices that have a truth, and their truths in the same order. Raises: UserError: there is none."""
    places, truths = _places(low), _places(high)
    both = [stem for stem in places if stem in truths]
    if not both:
        raise UserError(f"{high.folder}: no slice in {low.folder} has a truth there, need at least one")
    for folder, found in ((low, places), (high, truths)):
        folder.indices = np.array([folder.pack_index(found[stem]) for stem in both], dtype=np.int64)
