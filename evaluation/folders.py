"""What lies in the data folder for a test, opened and checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.manifest import VolumeEntry, read_manifest
from data.slice_folder import SliceFolder, find_folder
from evaluation.subjects import positions_by_subject
from evaluation.volumes import volume_entries
from util.errors import UserError


@dataclass(frozen=True)
class TestData:
    """Folders of a test; what is None is not there.

    source: slices to synthesise from. target: real slices of the domain synthesised, in general of other anatomy.
    train_target: the same domain's training slices, of which opponents know the histogram.
    subjects: positions in `source` by subject. entries: manifest entries of the source volumes by subject.
    """

    __test__ = False

    source: SliceFolder
    target: SliceFolder | None
    train_target: SliceFolder | None
    target_domain: str
    has_truth: bool
    subjects: Mapping[str, list[int]]
    entries: Mapping[str, VolumeEntry]

    @property
    def n_slices(self) -> int:
        return sum(map(len, self.subjects.values()))


def _optional(dataroot: Path, split: str, domain: str) -> SliceFolder | None:
    return None if find_folder(dataroot, split, domain) is None else SliceFolder(dataroot, split, domain)


def _check_truth(source: SliceFolder, subjects: Mapping[str, list[int]]) -> bool:
    """Whether there are truths; UserError where one is missing, unreadable or of another size than its slice."""
    truths, masks = source.sibling("truth"), source.sibling("truth_mask")
    if truths is None:
        return False
    for i in (position for rows in subjects.values() for position in rows):
        shape = source.image(i).shape
        for files, found in ((truths, truths.image(i).shape), (masks, masks.mask(i).shape if masks else shape)):
            if files is not None and found != shape:
                raise UserError(f"{files.files[i]}: {found[0]}x{found[1]} pixels, its slice has {shape[0]}x{shape[1]}")
    return True


def open_test_data(dataroot: Path, split: str, *, direction: str = "AtoB", limit: int = 0) -> TestData:
    """Open the folders of `split`.

    Args:
        direction: of the run; `BtoA` synthesises A from B.
        limit: use the first so many source slices; 0: all.
    Raises:
        UserError: no source folder, an unreadable slice or mask, a truth that is missing or of another size.
    """
    source_domain, target_domain = ("A", "B") if direction == "AtoB" else ("B", "A")
    source = SliceFolder(dataroot, split, source_domain)
    source.check()
    subjects = positions_by_subject(source, limit)
    has_truth = _check_truth(source, subjects)
    target = _optional(dataroot, split, target_domain)
    if target is not None:
        target.check()
    return TestData(
        source=source,
        target=target,
        train_target=_optional(dataroot, "train", target_domain),
        target_domain=target_domain,
        has_truth=has_truth,
        subjects=subjects,
        entries=volume_entries(read_manifest(dataroot), split, source_domain),
    )
