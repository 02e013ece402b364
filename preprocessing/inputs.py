"""Find the volumes to slice, and those that cannot be used according to their names and headers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.folder.people import joined_people, people_of
from data.folder.slices import clean_subject
from preprocessing.geometry import SourceGeometry, ras_geometry, spacing_mm
from preprocessing.nifti import find_contrast, find_volumes, read_geometry
from preprocessing.other_formats import ignored_files, wrongly_named
from util.errors import UserError
from util.problems import Problem

SAME_GRID = 0.5  # largest distance in voxels between the corners of a volume and its truth
FLAGS = {"A": "--input_A", "B": "--input_B"}  # that name a domain's volumes
MAX_NAME = 200  # characters of a subject's name; file systems allow 255, and slices add to it


@dataclass(frozen=True)
class Source:
    """One volume to slice. `subject` is its file name without suffix; `truth` a registered high-field volume."""

    path: Path
    subject: str
    domain: str
    geometry: SourceGeometry
    truth: Path | None = None


@dataclass
class Inputs:
    """The volumes of --input_A, --input_B and --truth_A.

    Attributes:
        sources: volumes with valid names and headers.
        problems: all others, in the order of options and names.
        domains: the domains given by the user.
        notes: sentences on what is ignored, and on names that belong to one person.
        flags: the option that named each domain's volumes.
    """

    domains: tuple[str, ...]
    sources: list[Source] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flags: Mapping[str, str] = field(default_factory=lambda: FLAGS)

    @property
    def n_files(self) -> int:
        """Number of files, good and bad; a truth counts only if it is bad."""
        return len(self.sources) + len(self.problems)


def find_inputs(input_A: str | None, input_B: str | None, truth_A: str | None) -> Inputs:
    """Find every volume and check every name and header; nothing is written.

    Raises: UserError naming the flag if nothing is found, see `find_volumes`.
    """
    inputs = {"A": input_A, "B": input_B}
    found = Inputs(tuple(domain for domain in inputs if inputs[domain]))
    truths = _readable(truth_A, "--truth_A", found)
    owners: dict[str, tuple[str, Path]] = {}
    for domain, location in inputs.items():
        volumes = _readable(location, FLAGS[domain], found)
        for subject, (path, geometry) in volumes.items():
            truth = truths.get(subject) if truth_A and domain == "A" else None
            try:
                _check_name(subject, path, owners)
                if truth_A and domain == "A":
                    _check_truth(path, geometry, truth)
                found.sources.append(Source(path, subject, domain, geometry, truth[0] if truth else None))
            except UserError as error:
                found.problems.append(Problem.of(path, error))
        if truth_A and domain == "A":
            found.problems += _unmatched(truths, volumes)
    if joined := joined_people(people_of({source.subject for source in found.sources})):
        found.notes.append(joined)
    return found


def find_scans(location: str, domain: str, flag: str, contrast: str | None) -> Inputs:
    """The volumes of one domain to be synthesised from: a file, a folder, or a BIDS folder of any level.

    Args: flag: the option that named them. contrast: the ending of names, as `T2w`; None: any.
    Raises: UserError, see `find_contrast`.
    """
    found = Inputs((domain,), flags={domain: flag})
    owners: dict[str, tuple[str, Path]] = {}
    for subject, (path, geometry) in _readable(location, flag, found, contrast=contrast, deep=True).items():
        try:
            _check_name(subject, path, owners)
            found.sources.append(Source(path, subject, domain, geometry))
        except UserError as error:
            found.problems.append(Problem.of(path, error))
    return found


Readable = dict[str, tuple[Path, SourceGeometry]]


def _readable(
    location: str | None, flag: str, found: Inputs, *, contrast: str | None = None, deep: bool = False
) -> Readable:
    """Volumes with a valid header, by subject; `found` gets the problems of the others, and what is ignored.

    Args: deep: read BIDS folders too, and `contrast` alone of any folder.
    """
    readable: Readable = {}
    if not location:
        return readable
    place = Path(location)
    volumes, not_files, others = find_contrast(place, flag, contrast) if deep else find_volumes(place, flag)
    found.problems += not_files
    if others:
        found.notes.append(f"{flag} {location}: ignored {ignored_files(others)}; only .nii and .nii.gz are read")
    for subject, path in volumes.items():
        try:
            readable[subject] = path, read_geometry(path)
        except UserError as error:
            other = wrongly_named(path)
            found.problems.append(Problem(path, other) if other else Problem.of(path, error))
    return readable


def _check_name(subject: str, path: Path, owners: dict[str, tuple[str, Path]]) -> None:
    """Raise UserError if another subject has the same name on disk: its slices would be overwritten or mixed up."""
    cleaned = clean_subject(subject)
    if len(cleaned) > MAX_NAME:
        raise UserError(f"{path}: the name has {len(cleaned)} characters, at most {MAX_NAME} are allowed")
    name, owner = owners.setdefault(cleaned.lower(), (subject, path))
    if name != subject:
        raise UserError(f"{path}: becomes the same subject name as {owner.name}, rename one of them")


def _unmatched(truths: Readable, volumes: Readable) -> Iterator[Problem]:
    for subject, (path, _) in truths.items():
        if subject not in volumes:
            yield Problem(path, "no usable volume of this name in --input_A")


def _check_truth(path: Path, volume: SourceGeometry, truth: tuple[Path, SourceGeometry] | None) -> None:
    """Raise UserError unless the truth is on the same grid: equal RAS shape, corners within half a voxel."""
    if truth is None:
        raise UserError(
            f"{path}: --truth_A has no usable volume of this name; give volumes without truth another --out"
        )
    shape, affine = ras_geometry(volume)
    truth_shape, truth_affine = ras_geometry(truth[1])
    if shape != truth_shape:
        raise UserError(f"{path}: RAS shape {shape}, its truth has {truth_shape}; they must be equal")
    corners = np.array([[*corner, 1.0] for corner in np.ndindex(2, 2, 2)]) * [*np.subtract(shape, 1), 1]
    apart = np.linalg.norm(corners @ (affine - truth_affine).T, axis=1).max()
    if apart > SAME_GRID * max(spacing_mm(affine)):
        raise UserError(f"{path}: its truth is displaced by {apart:.1f} mm; resample it to the volume's grid first")
