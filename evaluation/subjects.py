"""The test set, one subject at a time, on the slices' own grid with intensities in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.folder.masks import head_mask_slice
from data.folder.slice_folder import SliceFolder
from util.errors import UserError
from util.processes import Processes

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SubjectSlices:
    """S slices of one subject, in the order of the volume.

    stems: file names without suffix. index: (S,) slice number in the volume. p: (S,) relative level.
    level_mm: (S,) true template level, known only for simulated heads.
    image: (S, H, W) float32 in [0, 1]. mask: (S, H, W) bool, foreground given to the model.
    truth, truth_mask: the same for the true high-field slices if known; never given to a model.
    """

    subject: str
    stems: list[str]
    index: NDArray[np.int64]
    p: Floats
    level_mm: Floats | None
    image: Floats
    mask: Mask
    truth: Floats | None = None
    truth_mask: Mask | None = None

    @property
    def visible(self) -> Floats:
        """The model's input: the image on a background of 0."""
        return np.where(self.mask, self.image, np.float32(0))


def positions_by_subject(folder: SliceFolder, limit: int = 0) -> dict[str, list[int]]:
    """Positions of each subject's slices in the order of the volume, among the first `limit` files (0: all)."""
    positions: dict[str, list[int]] = {}
    for position, subject in enumerate(folder.subjects[: limit or None]):
        positions.setdefault(subject, []).append(position)
    return {subject: sorted(found, key=lambda i: int(folder.index[i])) for subject, found in positions.items()}


def part_of(positions: Mapping[str, list[int]], processes: Processes) -> dict[str, list[int]]:
    """This process' subjects: the largest first, each is assigned to the process with the fewest slices so far."""
    slices, mine = [0] * processes.size, set()
    for subject in sorted(positions, key=lambda name: -len(positions[name])):
        rank = slices.index(min(slices))
        slices[rank] += len(positions[subject])
        if rank == processes.rank:
            mine.add(subject)
    return {subject: found for subject, found in positions.items() if subject in mine}


def read_subject(folder: SliceFolder, positions: Sequence[int], *, with_truth: bool = False) -> SubjectSlices:
    """Read one subject's slices and, with `with_truth`, their truth and its head mask, computed if none is stored.

    Raises: UserError if the slices differ in size or cannot be read.
    """
    where, subject = folder.folder.name, folder.subjects[positions[0]]
    indices = np.asarray(positions)
    image = _stack([folder.image(i) for i in positions], where, subject)
    truth, truth_mask = _read_truth(folder, positions, subject) if with_truth else (None, None)
    return SubjectSlices(
        subject=subject,
        stems=[folder.files[i].stem for i in positions],
        index=folder.index[indices],
        p=folder.p[indices],
        level_mm=None if folder.level_mm is None else folder.level_mm[indices],
        image=image,
        mask=_stack([folder.mask(i) for i in positions], where, subject),
        truth=truth,
        truth_mask=truth_mask,
    )


def _read_truth(folder: SliceFolder, positions: Sequence[int], subject: str) -> tuple[Floats, Mask]:
    images, masks = folder.sibling("truth"), folder.sibling("truth_mask")
    if images is None:
        raise ValueError(f"{folder.folder} has no truth")
    truth = _stack([images.read(i) for i in positions], images.folder.name, subject)
    if masks is None:
        return truth, np.stack([head_mask_slice(plane) for plane in truth])
    return truth, _stack([masks.read(i) for i in positions], masks.folder.name, subject)


def _stack(slices: list[NDArray], where: str, subject: str) -> NDArray:
    shapes = sorted({plane.shape for plane in slices})
    if len(shapes) > 1:
        raise UserError(f"{where}: slices of subject '{subject}' differ in size ({shapes}), need one size per subject")
    return np.stack(slices)
