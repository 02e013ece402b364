"""Opens the training and validation slices of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.cache.slice_cache import SliceCache
from data.folder.check import refuse_or_exclude, sort_problems, summary
from data.folder.doubts import doubts
from data.folder.manifest import read_placements
from data.registry import DATASETS
from data.scale import unlike_domains
from data.unaligned_dataset import UnalignedMaskDataset
from options.train_options import RunOptions
from util.problems import Problem
from util.processes import ALONE, Processes


def open_data(
    run: RunOptions, processes: Processes = ALONE
) -> tuple[UnalignedMaskDataset, UnalignedMaskDataset | None, list[Problem]]:
    """The training slices, the validation slices if both domains have some, and the files that --skip_bad left out.

    Slices are read from the cache, which is built if it is missing. The first of several processes must call this
    before the others: it alone handles --revalidate and lists bad files.

    Raises: UserError: a bad file and no --skip_bad, see `refuse_or_exclude`; slices that cannot be put into one batch;
        a cache that cannot be written.
    """
    train, dataset_class = run.train, DATASETS[run.dataset_mode]
    again = train.revalidate and processes.first
    cache = SliceCache(Path(train.dataroot), run.cache_dir, skip_bad=train.skip_bad, revalidate=again)
    dataset = dataset_class(cache, run.data, split="train", seed=train.seed)
    has_unseen = dataset_class.load().available(cache, "val")
    unseen = dataset_class(cache, run.data, split="val", seed=train.seed) if has_unseen else None
    parts = [part for part in (dataset, unseen) if part is not None]
    problems = sort_problems(problem for part in parts for problem in part.problems()) + cache.shared_subjects()
    if processes.first:
        refuse_or_exclude(problems, parts, table_in=run.run_dir, skip_bad=train.skip_bad)
    else:
        for part in parts:
            part.exclude(problems)
    for part in parts:
        part.check_sizes()
    return dataset, unseen, problems


def warnings_of_data(run: RunOptions, dataset: UnalignedMaskDataset, skipped: Sequence[Problem]) -> list[str]:
    """Sentences on bad files that were left out, on domains that differ in scale, and on probable mistakes."""
    dataroot = Path(run.train.dataroot)
    left_out = [f"--skip_bad left out {summary(skipped, run.run_dir)}"] if skipped else []
    return [*left_out, unlike_domains(dataset, read_placements(dataroot)), *doubts(dataroot, ("train", "val"))]
