"""DICOM series to NIfTI files, which lie in a folder of the output while they are sliced, and are removed then.

dcm2niix converts, one folder of DICOM files after another. What it writes beside the volumes names patients; it is read
here to tell people and series apart, and never leaves the temporary folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from preprocessing.dicom_series import People, Series, choose_series, named, read_series, unsuited
from preprocessing.other_formats import DICOM, HEAD_BYTES, NIFTI_SUFFIXES, format_of_name, ignored_files, mixed, walk
from preprocessing.parallel import run_jobs
from util.errors import UserError
from util.problems import Problem
from util.processes import Processes
from util.reading import open_regular

FOLDER = ".dicom"  # in the output folder, which all machines of a run share and which has room for volumes
DIRECTORY = "dicomdir"  # the name of the file that lists the others
SECONDS = 3600  # that dcm2niix may take for one folder
SHOWN = 3  # places named for each reason why series are left out
MR_IMAGES = {f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "4.1", "4.3", "4.4")}  # DICOM PS3.4, table B.5-1
SOP_CLASS = b"\x02\x00\x02\x00UI"  # (0002,0002) of the file meta information, always explicit little-endian
# no gzip; sidecars with UIDs and patients; this folder alone; 3-D scans neither cropped nor turned; no defaults file
OPTIONS = ("-g", "i", "-z", "n", "-b", "y", "-ba", "n", "-d", "0", "-x", "i", "-f", "s%s")
CONVERTED = re.compile(r"^Convert (\d+) DICOM as ", re.MULTILINE)
DUPLICATES = re.compile(r"^(\d+) images have identical .*DUPLICATES REMOVED", re.MULTILINE)
COMPLAINT = re.compile(r"^(?:Warning|Error): *(.+)$", re.MULTILINE)


@dataclass
class Folder:
    """The DICOM files of one folder: how many are MR images, and how many say that they are something else."""

    path: Path
    files: list[Path] = field(default_factory=list)
    n_images: int = 0
    n_others: int = 0


@dataclass(frozen=True)
class Run:
    """What dcm2niix is given, a folder or one file, and what it made of it.

    reason: why not of everything. n_twice: images that were there twice, of which one was taken.
    """

    folder: Folder
    given: Path
    out: Path
    series: list[Series] = field(default_factory=list)
    reason: str = ""
    n_twice: int = 0


@dataclass
class Converted:
    """NIfTI files by subject, the problems of folders and series, and what the user should know."""

    volumes: dict[str, Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Converter:
    """Converts DICOM for one program; people are numbered through all of its inputs. It does nothing without DICOM.

    Args: dataroot: the folder that slices are written to.
    """

    def __init__(self, dataroot: Path) -> None:
        self._folder = dataroot / FOLDER
        self._made: list[Path] = []  # folders that were not there before
        self._places: dict[Path, Path] = {}
        self._people = People()
        self._terminate: Any = None
        self._n_inputs = 0

    def place_of(self, path: Path) -> Path | None:
        """The folder of the DICOM files that became `path`; None of other files."""
        return self._places.get(path)

    def convert(self, location: Path, flag: str, contrast: str | None, choice: str) -> Converted:
        """The series of a DICOM file or folder, at any depth, that are volumes of one kind.

        Args: contrast: the ending of names, as `T2w`; None: all, which must be of one kind. choice: its option.
        Raises: UserError naming flag and location: no series that can be used, or several kinds; no dcm2niix.
        """
        if location.name.lower() == DIRECTORY and not location.is_dir():
            location = location.parent
        folders, others = dicom_folders(location, flag)
        self._begin()
        self._n_inputs += 1
        out = self._folder / str(self._n_inputs)
        jobs = [Run(folder, _given(folder, location), out / f"raw{n}") for n, folder in enumerate(folders)]
        runs = run_jobs(_convert, jobs, workers=1, title="converting DICOM")
        runs = _with_joined(runs, out)
        found = Converted()
        usable, left_out = _sorted_out(runs, found)
        known = named(usable, self._people)
        notes = [f"{flag} {location}: left out {told}" for told in _told(left_out, location)]
        if others:
            notes.append(f"{flag} {location}: ignored {ignored_files(others)} beside DICOM")
        if not usable and not found.problems:
            raise UserError(f"{flag} {location}: no DICOM series that can be used; left out {_summed(left_out)}")
        for subject, one in choose_series(known, f"{flag} {location}", contrast, choice).items():
            if one.reason:
                told = f"series {one.number}: {one.reason}"
                found.problems.append(Problem(one.place, told, anonymous=told))
                continue
            path = one.nifti.rename(out / f"{subject}.nii")
            self._places[path] = one.place
            found.volumes[subject] = path
            found.notes.append(f"{subject}: {one.n_slices} slices, from {_relative(one.place, location)}")
        found.notes += notes
        for path in filter(Path.is_dir, out.iterdir()):
            shutil.rmtree(path)  # the sidecars, which name patients, and what is left out
        return found

    def _begin(self) -> None:
        """Make the temporary folder; SIGTERM becomes an exception from now on, so that it is removed."""
        if self._n_inputs:
            return
        self._terminate = signal.signal(signal.SIGTERM, _exit_on_signal)
        try:
            shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
            self._made = [path for path in self._folder.parents if not path.exists()]
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            raise UserError(f"{self._folder}: DICOM cannot be converted there ({error.strerror or error})") from error

    def remove(self) -> None:
        """Remove everything that was converted, and the folders that hold nothing else."""
        if self._terminate is None:
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        shutil.rmtree(self._folder, ignore_errors=True)
        for path in self._made:
            with suppress(OSError):
                path.rmdir()
        signal.signal(signal.SIGTERM, self._terminate)


@contextmanager
def converting(dataroot: Path, processes: Processes) -> Iterator[Converter]:
    """A converter whose files live as long as the block; the first process alone uses it."""
    converter = Converter(dataroot)
    try:
        yield converter
    finally:
        if processes.first:
            converter.remove()


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def dicom_folders(location: Path, flag: str) -> tuple[list[Folder], list[Path]]:
    """The folders with DICOM files, `location` and below, by name, and all other files; a file is a folder of one.

    Raises: UserError naming flag and location: NIfTI volumes beside them, or no image.
    """
    found: dict[Path, Folder] = {}
    others: list[Path] = []
    for path in walk(location) if location.is_dir() else [location]:
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            raise UserError(f"{flag} {location}: {mixed(path.relative_to(location))}")
        kind = format_of_name(path)
        if path.name.lower() == DIRECTORY:
            continue
        sop_class = _sop_class(path) if kind in (None, DICOM) else None
        if sop_class is None and kind is not DICOM:
            others.append(path)
            continue
        folder = found.setdefault(path.parent, Folder(path.parent))
        folder.files.append(path)
        folder.n_images += sop_class in MR_IMAGES
        folder.n_others += bool(sop_class) and sop_class not in MR_IMAGES
    if not found:
        raise UserError(f"{flag} {location}: a DICOMDIR, and none of the images that it lists")
    return [found[path] for path in sorted(found)], others


def _sop_class(path: Path) -> str | None:
    """What the file says that it is, empty if it says nothing; None if it does not begin as DICOM files do."""
    try:
        with open_regular(path) as file:
            start = file.read(HEAD_BYTES)
    except (OSError, UserError):
        return None
    if start[128:132] != b"DICM":
        return None
    place = start.find(SOP_CLASS)
    if place < 0 or place + 8 > len(start):
        return ""
    (length,) = struct.unpack_from("<H", start, place + 6)
    return start[place + 8 : place + 8 + length].rstrip(b"\0 ").decode("ascii", "replace")


def _given(folder: Folder, location: Path) -> Path:
    return (folder.path if location.is_dir() else location).absolute()  # a name that begins with `-` would be an option


def _convert(job: Run) -> Run:
    """Run dcm2niix, and read what it wrote."""
    try:
        import dcm2niix
    except ImportError as error:
        raise UserError(
            "DICOM needs dcm2niix, which is not installed: pip install -r requirements.txt (or pip install dcm2niix)"
        ) from error
    job.out.mkdir(parents=True, mode=0o700)
    alone = () if job.given.is_dir() else ("-s", "y")
    command = [dcm2niix.bin, *OPTIONS, *alone, "-o", str(job.out), str(job.given)]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Run(job.folder, job.given, job.out, [], f"dcm2niix has not finished in {SECONDS} seconds")
    except OSError as error:
        raise UserError(f"{dcm2niix.bin} cannot be run ({error.strerror or error})") from error
    told = done.stdout.decode("utf-8", "replace") + "\n" + done.stderr.decode("utf-8", "replace")
    series, reasons = [], []
    for path in sorted(job.out.glob("*.nii")):
        try:
            series += read_series(path, job.folder.path)
        except UserError as error:
            reasons.append(str(Problem.of(path, error).reason))
    reason = _failure(job, done.returncode, told, series)
    n_twice = sum(map(int, DUPLICATES.findall(told)))
    return Run(job.folder, job.given, job.out, series, "; ".join([*filter(None, [reason]), *reasons]), n_twice)


def _failure(job: Run, status: int, told: str, series: Sequence[Series]) -> str:
    """Why not all images of a folder were converted; empty if they were, or if it holds no images but reports."""
    n_images = job.folder.n_images
    if not n_images and not series and job.folder.n_others:
        return ""
    read = sum(map(int, CONVERTED.findall(told))) + sum(map(int, DUPLICATES.findall(told)))
    if status == 0 and read >= n_images and series:
        return ""
    if status < 0:
        return f"dcm2niix was ended by signal {-status}"
    complaints = COMPLAINT.findall(told)
    own = [text for text in complaints if str(job.given) in text] or COMPLAINT.findall(
        "\n".join(line for line in told.splitlines() if line.startswith("Error"))
    )
    said = f": {own[0].replace(f'{job.given}/', '')[:200].strip()}" if own else ""
    if n_images and 0 < read < n_images:
        return f"dcm2niix could not read {n_images - read} of {n_images} DICOM images{said}"
    if not (read or said):
        return "dcm2niix finds no image in its DICOM files"
    return f"dcm2niix could not convert its DICOM files{said}"


def _with_joined(runs: list[Run], out: Path) -> list[Run]:
    """Convert the folders over which a series is spread once more, together.

    If images are there twice then, or whole volumes more often, these were no parts of one series but copies of it, or
    others whose UIDs were made equal.
    """
    groups: list[list[Run]] = []
    for run in runs:
        own = {(one.uid, one.patient) for one in run.series if one.uid}
        same = [group for group in groups if own & {(one.uid, one.patient) for other in group for one in other.series}]
        for group in same:
            groups.remove(group)
        groups.append([other for group in same for other in group] + [run])
    joined = []
    for number, group in enumerate(groups):
        if len(group) > 1:
            together = _convert(_together(group, out / f"links{number}"))
            apart = max(one.n_volumes for run in group for one in run.series)
            whole = together.n_twice or any(one.n_volumes > apart for one in together.series)
            joined += group if whole else [together]
        else:
            joined += group
    return joined


def _together(group: list[Run], links: Path) -> Run:
    """A folder of links to all files of several folders."""
    links.mkdir(mode=0o700)
    folders = [run.folder for run in group]
    files = [path for folder in folders for path in folder.files]
    for number, path in enumerate(files):
        (links / f"{number:06}_{path.name}").symlink_to(path.absolute())
    place = Path(os.path.commonpath([folder.path for folder in folders]))
    every = Folder(place, files, sum(f.n_images for f in folders), sum(f.n_others for f in folders))
    return Run(every, links, links.with_name(f"{links.name}_raw"))


LeftOut = list[tuple[str, str, Path]]  # reason, which, place


def _sorted_out(runs: Sequence[Run], found: Converted) -> tuple[list[Series], LeftOut]:
    """The series that are volumes, and those that are not with the reason; `found` gets the folders' problems."""
    usable: list[Series] = []
    left_out: LeftOut = []
    contents = set()
    for run in runs:
        if run.n_twice:
            left_out.append(("there twice", f"{run.n_twice} images", run.folder.path))
        if run.reason:
            found.problems.append(
                Problem(run.folder.path, run.reason, anonymous="a folder that was not converted whole")
            )
        elif not run.series:
            left_out.append(("no images, but reports and the like", "files", run.folder.path))
        for one in run.series:
            reason = unsuited(one, [other for other in run.series if other.uid == one.uid])
            with one.nifti.open("rb") as file:
                content = one.uid, hashlib.file_digest(file, "sha256").digest()
            if not reason and content in contents:
                reason = "a copy of another series"
            contents.add(content)
            if reason:
                left_out.append((reason, f"series {one.number}", one.place))
            else:
                usable.append(one)
    return usable, left_out


def _told(left_out: LeftOut, location: Path) -> Iterator[str]:
    """A sentence for each reason why series are left out."""
    reasons = dict.fromkeys(reason for reason, _, _ in left_out)
    for reason in reasons:
        where = [f"{which} of {_relative(place, location)}" for why, which, place in left_out if why == reason]
        where = list(dict.fromkeys(where))
        more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
        yield f"{', '.join(where[:SHOWN])}{more}: {reason}"


def _summed(left_out: LeftOut) -> str:
    reasons = list(dict.fromkeys(f"{which} ({reason})" for reason, which, _ in left_out))
    return ", ".join(reasons[:6]) + (f" and {len(reasons) - 6} more" if len(reasons) > 6 else "")


def _relative(place: Path, location: Path) -> str:
    if place == location or not place.is_relative_to(location):
        return str(place)
    return str(place.relative_to(location))
