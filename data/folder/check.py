"""Check a data folder and find all problems at once, so nobody trains or tests on part of the data by accident."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

from numpy.typing import NDArray

from data.folder.doubts import warn_of_doubts
from data.folder.manifest import DOMAINS, MANIFEST_NAME, SPLITS, read_manifest
from data.folder.slice_folder import READERS, SiblingFolder, SliceFolder, find_folder
from data.folder.subjects import shared_subjects
from util.errors import USER_ERROR_STATUS, UserError
from util.problems import BAD_FILES_NAME, Problem, write_problems
from util.processes import ALONE, Processes

THREADS = 2  # decode in parallel: half the time, and less than 1 GB for slices of any size
SHOWN = 100  # problems that are printed; the table lists all of them

Result = TypeVar("Result")


class SupportsExclude(Protocol):
    """A collection of slices from which bad ones can be excluded."""

    def exclude(self, problems: Iterable[Problem]) -> None: ...


def check_data(dataroot: Path) -> list[Problem]:
    """All problems of a data folder: every split and domain, all kinds of files, the manifest.

    Raises: UserError if the folder does not exist or contains no slice folder.
    """
    if not dataroot.is_dir():
        raise UserError(f"--dataroot {dataroot}: no such folder")
    problems = []
    try:
        read_manifest(dataroot)
    except UserError as error:
        problems = [Problem.of(dataroot / MANIFEST_NAME, error)]
    folders, unusable = _open_folders(dataroot, use_manifest=not problems)
    if not folders and not unusable:
        raise UserError(f"--dataroot {dataroot}: no folder {SPLITS[0]}{DOMAINS[0]} or any other of slices in it")
    for folder in folders:
        problems += find_problems([folder], READERS)
        folder.clear_memory()
    return sort_problems([*problems, *unusable, *shared_subjects([folder.folder_subjects for folder in folders])])


def find_problems(
    folders: Iterable[SliceFolder], kinds: Collection[str] = ("mask",), *, processes: Processes = ALONE
) -> list[Problem]:
    """Decode every slice and its files of `kinds`, if there are folders of them, and return all problems.

    Problems are unreadable files, masks (and other kinds) that are missing, have no slice or differ from it in size,
    slices missing from the manifest, and slices of the manifest that are missing. Each of `processes` decodes its part
    of the slices; the problems are returned in every process.
    """
    return sort_problems(chain.from_iterable(_problems_in(folder, kinds, processes) for folder in folders))


def subjects_in_two_splits(dataroot: Path) -> list[Problem]:
    """Slices of validation and test whose subject is in an earlier split too, in either domain. Only names are read."""
    return sort_problems(shared_subjects([folder.folder_subjects for folder in _open_folders(dataroot)[0]]))


def refuse_or_exclude(
    problems: Sequence[Problem], folders: Iterable[SupportsExclude], *, table_in: Path, skip_bad: bool
) -> None:
    """Raise UserError for problems or, with `skip_bad`, exclude them; `bad_files.csv` in `table_in` lists them.

    Raises: UserError: problems without `skip_bad`, a folder without usable slices, a table that cannot be written.
    """
    _write_table(table_in, problems)
    if problems and not skip_bad:
        raise UserError(f"{summary(problems, table_in)}; repair or remove them, or leave them out with --skip_bad")
    for folder in folders:
        folder.exclude(problems)


def summary(problems: Sequence[Problem], table_in: Path) -> str:
    """One sentence: the number of problems, the first one, and the table that lists all."""
    return f"{_count(problems)}, the first is {problems[0]}; all are listed in {table_in / BAD_FILES_NAME}"


def print_problems(problems: Sequence[Problem], *, table_in: Path) -> int:
    """`--check_data`: print the problems and write `bad_files.csv` to `table_in`. Returns the exit status."""
    for problem in problems[:SHOWN]:
        print(problem)
    if len(problems) > SHOWN:
        print(f"and {len(problems) - SHOWN} more")
    table = _write_table(table_in, problems)
    print(f"{_count(problems)}, listed in {table}" if problems else "no bad files")
    return USER_ERROR_STATUS if problems else 0


def list_problems(dataroot: Path, *, table_in: Path) -> int:
    """`--check_data`: list all problems of a data folder and warn of what is doubtful. Returns the exit status."""
    problems = check_data(dataroot)
    warn_of_doubts(dataroot)
    return print_problems(problems, table_in=table_in)


def _count(problems: Sequence[Problem]) -> str:
    return f"{len(problems)} bad file" + "s" * (len(problems) > 1)


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Problems in the order of their paths."""
    return sorted(problems, key=lambda problem: (str(problem.path), problem.reason))


def _write_table(folder: Path, problems: Sequence[Problem]) -> Path:
    """Write `bad_files.csv`, or remove an earlier one if there are no problems."""
    table = folder / BAD_FILES_NAME
    try:
        if problems:
            folder.mkdir(parents=True, exist_ok=True)
            write_problems(table, problems)
        elif folder.is_dir():
            table.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{table}: cannot be written ({error.strerror})") from error
    return table


def _open_folders(dataroot: Path, *, use_manifest: bool = True) -> tuple[list[SliceFolder], list[Problem]]:
    """All slice folders, and a problem for each one that is empty or cannot be listed."""
    opened: list[SliceFolder] = []
    problems = []
    for split in SPLITS:
        for domain in DOMAINS:
            folder = find_folder(dataroot, split, domain)
            if folder is None:
                continue
            try:
                opened.append(SliceFolder(dataroot, split, domain, use_manifest=use_manifest))
            except UserError as error:
                problems.append(Problem.of(folder, error))
    return opened, problems


def _problems_in(folder: SliceFolder, kinds: Collection[str], processes: Processes = ALONE) -> list[Problem]:
    siblings = siblings_of(folder, kinds)
    part = processes.part(len(folder))
    found = threaded_map(lambda i: check_slice(folder, siblings, part.start + i).problems, part.stop - part.start)
    parts = processes.gathered(list(chain.from_iterable(found)))
    return [*chain.from_iterable(parts), *problems_of_folder(folder, siblings)]


def siblings_of(folder: SliceFolder, kinds: Collection[str]) -> dict[str, SiblingFolder]:
    """The existing folders of `kinds` beside `folder`."""
    return {kind: sibling for kind in kinds if (sibling := folder.sibling(kind)) is not None}


def problems_of_folder(folder: SliceFolder, siblings: Mapping[str, SiblingFolder]) -> list[Problem]:
    """Problems that file names alone show: in the folder, its siblings and the manifest."""
    found = [folder.listing.problems, _manifest_mismatches(folder)]
    for kind, sibling in siblings.items():
        unmatched = (path for path in sibling.listing.files if path.stem not in folder.listing.stems)
        found.append(sibling.listing.problems)
        found.append([Problem(path, f"a {kind} without image in {folder.folder}") for path in unmatched])
    return list(chain.from_iterable(found))


def threaded_map(work: Callable[[int], Result], count: int) -> Iterator[Result]:
    """`work(0), work(1), ...` in order. The threads run only a few items ahead, to bound memory."""
    with ThreadPoolExecutor(THREADS) as pool:
        ahead: deque[Future[Result]] = deque()
        for i in range(count):
            ahead.append(pool.submit(work, i))
            if len(ahead) > 2 * THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@dataclass(frozen=True)
class CheckedSlice:
    """A decoded slice and its problems; `pixels` and `mask` are None if missing or unreadable."""

    pixels: NDArray | None
    mask: NDArray | None
    problems: list[Problem] = field(default_factory=list)


def check_slice(folder: SliceFolder, siblings: Mapping[str, SiblingFolder], i: int) -> CheckedSlice:
    """Decode slice i and its files in `siblings`."""
    problems: list[Problem] = []
    pixels = mask = None
    try:
        pixels = folder.pixels(i)
    except UserError as error:
        problems.append(Problem.of(folder.files[i], error))
    for kind, sibling in siblings.items():
        path = sibling.files[i]
        if path.stem not in sibling.listing.stems:
            problems.append(Problem(folder.files[i], f"no {kind} {path.name} in {sibling.folder}"))
        elif path not in sibling.listing.refused:
            try:
                found = folder.mask(i) if kind == "mask" else sibling.read(i)
            except UserError as error:
                problems.append(Problem.of(path, error))
                continue
            if pixels is not None and found.shape != pixels.shape:
                size = "{}x{} pixels, its slice has {}x{}".format(*found.shape, *pixels.shape)
                problems.append(Problem(path, size))
            mask = found if kind == "mask" else mask
    return CheckedSlice(pixels, mask, problems)


def _manifest_mismatches(folder: SliceFolder) -> list[Problem]:
    """Files missing from the manifest, and files of the manifest missing from the folder."""
    if not folder.entries:
        return []
    manifest, present = folder.dataroot / MANIFEST_NAME, {path.name for path in folder.listing.files}
    present |= {path.name for path in folder.listing.refused}
    unlisted = (path for path in folder.listing.files if path.name not in folder.entries)
    missing = (folder.folder / name for name in folder.entries if name not in present)
    return [
        *(Problem(path, f"not in {manifest}; remove the file or the manifest") for path in unlisted),
        *(Problem(path, f"in {manifest}, but the file is missing") for path in missing),
    ]
