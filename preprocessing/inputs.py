"""Find the volumes to slice, and those that cannot be used according to their names and headers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.folder.people import joined_people, people_of
from data.folder.slices import clean_subject
from preprocessing.dicom import Converter
from preprocessing.geometry import SourceGeometry, ras_geometry, spacing_mm
from preprocessing.nifti import find_contrast, read_geometry
from preprocessing.other_formats import holds_dicom, ignored_files, refuse_mixed, wrongly_named
from util.errors import UserError
from util.problems import Problem

SAME_GRID = 0.5  # largest distance in voxels between the corners of a volume and its truth
FLAGS = {"A": "--input_A", "B": "--input_B"}  # that name a domain's volumes
CHOICES = {"A": "--contrast_A", "B": "--contrast_B"}  # that take some of them
MAX_NAME = 200  # characters of a subject's name; file systems allow 255, and slices add to it


@dataclass(frozen=True)
class Source:
    """One volume to slice. `subject` is its file name without suffix; `truth` a registered high-field volume.

    place: the folder of the DICOM files that became `path`; None: it was NIfTI.
    """

    path: Path
    subject: str
    domain: str
    geometry: SourceGeometry
    truth: Path | None = None
    place: Path | None = None

    def problem(self, reason: str) -> Problem:
        """A problem of this volume, at the place that the user knows."""
        if self.place is None:
            return Problem(self.path, reason)
        told = f"{self.subject}: {reason}"
        return Problem(self.place, told, anonymous=told)


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


@dataclass(frozen=True)
class Given:
    """What a user gave for one domain, and with which options.

    Attributes:
        contrast: the ending of names that are taken, as `T2w`; None: all. flag, choice: the options of both.
        bids: whether BIDS folders are read.
    """

    location: str | None
    contrast: str | None
    flag: str
    choice: str = "--contrast"
    bids: bool = False


def find_inputs(
    given: Mapping[str, tuple[str | None, str | None]], truth_A: str | None, converter: Converter
) -> Inputs:
    """Find every volume and check every name and header; nothing is written but what `converter` makes of DICOM.

    Args: given: of each domain a folder or file, and the ending of names that are taken, None for all.
    Raises: UserError naming the flag if nothing is found, see `find_contrast` and `Converter.convert`.
    """
    wanted = {domain: Given(*given[domain], FLAGS[domain], CHOICES[domain]) for domain in given}
    found = _find(wanted, truth_A, converter)
    _refuse_same(found, wanted)
    if joined := joined_people(people_of({source.subject for source in found.sources})):
        found.notes.append(joined)
    return found


def find_scans(location: str, domain: str, flag: str, contrast: str | None, converter: Converter) -> Inputs:
    """The volumes of one domain to be synthesised from: a file, a folder, DICOM, or a BIDS folder of any level.

    Args: flag: the option that named them. contrast: the ending of names, as `T2w`; None: any.
    Raises: UserError, see `find_inputs`.
    """
    return _find({domain: Given(location, contrast, flag, bids=True)}, None, converter)


def _refuse_same(found: Inputs, given: Mapping[str, Given]) -> None:
    """Raise UserError if a volume is given for both domains: a model would learn to change nothing.

    A folder of DICOM may hold both contrasts, so there the same folder is the same volume by one contrast alone.
    """
    owners: dict[tuple[str, ...], Source] = {}
    for source in found.sources:
        series = (source.subject, given[source.domain].contrast or "") if source.place else ()
        other = owners.setdefault((os.path.realpath(source.place or source.path), *series), source)
        if other.domain != source.domain:
            first, second = (given[domain] for domain in (other.domain, source.domain))
            raise UserError(
                f"{first.flag} and {second.flag}: both name {source.place or source.path}, need volumes of two "
                f"scanners; {first.choice} and {second.choice} tell contrasts in one folder apart"
            )


def _find(given: Mapping[str, Given], truth_A: str | None, converter: Converter) -> Inputs:
    flags = {domain: one.flag for domain, one in given.items()}
    found = Inputs(tuple(domain for domain, one in given.items() if one.location), flags=flags)
    truths = _readable(Given(truth_A, None, "--truth_A"), found, None)
    owners: dict[str, tuple[str, Path]] = {}
    for domain, one in given.items():
        volumes = _readable(one, found, converter)
        for subject, (path, geometry) in volumes.items():
            truth = truths.get(subject) if truth_A and domain == "A" else None
            place = converter.place_of(path)
            source = Source(path, subject, domain, geometry, truth[0] if truth else None, place)
            try:
                _check_name(subject, path, owners)
                if truth_A and domain == "A":
                    _check_truth(path, geometry, truth)
                found.sources.append(source)
            except UserError as error:
                found.problems.append(source.problem(Problem.of(path, error).reason))
        if truth_A and domain == "A":
            found.problems += _unmatched(truths, volumes)
    return found


Readable = dict[str, tuple[Path, SourceGeometry]]


def _readable(given: Given, found: Inputs, converter: Converter | None) -> Readable:
    """Volumes with a valid header, by subject; `found` gets the problems of the others, and what is ignored.

    Args: converter: of DICOM; None: it is refused.
    """
    readable: Readable = {}
    if not given.location:
        return readable
    location, named = Path(given.location), f"{given.flag} {given.location}"
    if converter is not None and holds_dicom(location):
        converted = converter.convert(location, given.flag, given.contrast, given.choice)
        volumes = converted.volumes
        found.problems += converted.problems
        found.notes += converted.notes
    else:
        volumes, not_files, others = find_contrast(
            location, given.flag, given.contrast, choice=given.choice, bids=given.bids
        )
        refuse_mixed(volumes.values(), others, named)
        found.problems += not_files
        if others:
            found.notes.append(f"{named}: ignored {ignored_files(others)}; only .nii and .nii.gz are read")
    for subject, path in volumes.items():
        try:
            readable[subject] = path, read_geometry(path)
        except UserError as error:
            reason = wrongly_named(path) or Problem.of(path, error).reason
            place = None if converter is None else converter.place_of(path)
            told = "" if place is None else f"{subject}: {reason}"
            found.problems.append(Problem(place or path, told or reason, anonymous=told))
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
