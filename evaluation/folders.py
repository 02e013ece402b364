"""The data folder of a test, opened and checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.cache.packed_slices import PackedSlices
from data.cache.slice_cache import CacheNotWritable, SliceCache
from data.folder.check import find_problems, refuse_or_exclude, subjects_in_two_splits
from data.folder.doubts import warn_of_doubts
from data.folder.manifest import VolumeEntry, read_manifest
from data.folder.slice_folder import SliceFolder, find_folder
from evaluation.subjects import positions_by_subject
from evaluation.volumes import volume_entries
from util.problems import Problem
from util.processes import ALONE, Processes


@dataclass(frozen=True)
class TestData:
    """Folders of a test; None if a folder does not exist.

    source: slices to synthesise from. target: real slices of the target domain, generally of other subjects.
    train_source, train_target: training slices of the two domains, which the baselines learn from.
    subjects: positions in `source` by subject. entries: manifest entries of the source volumes by subject.
    skipped: bad files that were left out.
    """

    __test__ = False

    source: SliceFolder
    target: SliceFolder | None
    train_source: SliceFolder | PackedSlices | None
    train_target: SliceFolder | PackedSlices | None
    target_domain: str
    has_truth: bool
    subjects: Mapping[str, list[int]]
    entries: Mapping[str, VolumeEntry]
    skipped: Sequence[Problem] = ()

    @property
    def n_slices(self) -> int:
        return sum(map(len, self.subjects.values()))


def _optional(dataroot: Path, split: str, domain: str) -> SliceFolder | None:
    return None if find_folder(dataroot, split, domain) is None else SliceFolder(dataroot, split, domain)


def _training_slices(
    dataroot: Path, domains: tuple[str, str], cache: SliceCache | None
) -> tuple[list[SliceFolder | PackedSlices | None], list[Problem]]:
    """Training slices of each domain, if any, and the problems of subjects in two splits."""
    if cache is not None:
        try:
            packs = [cache.open("train", domain) if cache.has("train", domain) else None for domain in domains]
            return [*packs], cache.shared_subjects()
        except CacheNotWritable:
            pass  # the run folder may belong to another user
    return [_optional(dataroot, "train", domain) for domain in domains], subjects_in_two_splits(dataroot)


def open_test_data(
    dataroot: Path,
    split: str,
    *,
    table_in: Path,
    direction: str = "AtoB",
    limit: int = 0,
    skip_bad: bool = False,
    cache: SliceCache | None = None,
    processes: Processes = ALONE,
) -> TestData:
    """Open the folders of `split` and check all files that a test reads; each process checks a part.

    Args:
        table_in: folder for `bad_files.csv`, written if there are bad files.
        direction: that of the run; `BtoA` synthesises A from B.
        limit: number of source slices to use; 0: all.
        skip_bad: leave out bad files, and slices whose mask or truth is bad.
        cache: source of the training slices; they are decoded without a cache or if it cannot be written.
    Raises:
        UserError: no source folder; bad files, see `refuse_or_exclude`.
    """
    source_domain, target_domain = ("A", "B") if direction == "AtoB" else ("B", "A")
    source, target = processes.together(partial(_open, dataroot, split, source_domain, target_domain))
    domains = (source_domain, target_domain)
    (train_source, train_target), shared = processes.first_alone(partial(_training_slices, dataroot, domains, cache))
    trained = [folder for folder in (train_source, train_target) if folder is not None]
    others = [*([] if target is None else [target]), *trained]
    used = {folder.folder for folder in (source, *others)}
    problems = find_problems([source], ("mask", "truth", "truth_mask"), processes=processes)
    problems += find_problems([folder for folder in others if isinstance(folder, SliceFolder)], processes=processes)
    problems += [problem for folder in trained if isinstance(folder, PackedSlices) for problem in folder.problems]
    problems += [problem for problem in shared if problem.path.parent in used]
    folders = (source, *others)
    processes.alone(partial(refuse_or_exclude, problems, folders, table_in=table_in, skip_bad=skip_bad))
    processes.alone(partial(warn_of_doubts, dataroot, (split,)))
    if not processes.first:
        for folder in folders:
            folder.exclude(problems)
    return TestData(
        source=source,
        target=target,
        train_source=train_source,
        train_target=train_target,
        target_domain=target_domain,
        has_truth=source.sibling("truth") is not None,
        subjects=positions_by_subject(source, limit),
        entries=volume_entries(read_manifest(dataroot), split, source_domain),
        skipped=problems,
    )


def _open(dataroot: Path, split: str, source: str, target: str) -> tuple[SliceFolder, SliceFolder | None]:
    """The folders `source` and `target` of a test."""
    return SliceFolder(dataroot, split, source), _optional(dataroot, split, target)
