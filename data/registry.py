"""The datasets of `--dataset_mode`, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.unaligned_options import UnalignedOptions
from util.lazy import Lazy

if TYPE_CHECKING:
    from data.unaligned_dataset import UnalignedMaskDataset

DATASETS: dict[str, Lazy[UnalignedMaskDataset]] = {
    "unaligned_mask": Lazy("data.unaligned_dataset.UnalignedMaskDataset", UnalignedOptions),
    "unaligned": Lazy("data.unaligned_dataset.UnalignedDataset", UnalignedOptions),
    "aligned": Lazy("data.aligned_dataset.AlignedDataset", UnalignedOptions),
}
PAIRED = frozenset({"aligned"})  # those whose slices of B are the truth of A's
