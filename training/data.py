"""The slices of a run: those to train on, those to validate on, and what is left out of them."""

from __future__ import annotations

from pathlib import Path

from data.check import find_problems, settle, subjects_in_two_splits
from data.registry import DATASETS
from data.slice_folder import find_folder
from data.unaligned_dataset import UnalignedMaskDataset
from options.train_options import RunOptions
from util.problems import Problem


def open_data(run: RunOptions) -> tuple[UnalignedMaskDataset, UnalignedMaskDataset | None, list[Problem]]:
    """The slices to train on, those to validate on where both domains have some, and what --skip_bad left out.

    Raises: UserError: a bad file and no --skip_bad, see `settle`; slices that cannot be put into one batch.
    """
    dataroot, dataset_class = Path(run.train.dataroot), DATASETS[run.dataset_mode]
    dataset = dataset_class(dataroot, run.data, split="train", seed=run.train.seed)
    has_unseen = all(find_folder(dataroot, "val", domain) for domain in ("A", "B"))
    unseen = dataset_class(dataroot, run.data, split="val", seed=run.train.seed) if has_unseen else None
    parts = [part for part in (dataset, unseen) if part is not None]
    folders = [folder for part in parts for folder in part.folders]
    problems = find_problems(folders) + subjects_in_two_splits(dataroot)
    settle(problems, folders, table_in=run.run_dir, skip_bad=run.train.skip_bad)
    for part in parts:
        part.check_sizes()
    return dataset, unseen, problems
