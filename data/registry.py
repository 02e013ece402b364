"""The datasets of `--dataset_mode`, by name."""

from __future__ import annotations

from data.unaligned_dataset import UnalignedDataset, UnalignedMaskDataset

DATASETS: dict[str, type[UnalignedMaskDataset]] = {
    "unaligned_mask": UnalignedMaskDataset,
    "unaligned": UnalignedDataset,
}
