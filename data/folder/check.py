"""All that is wrong with a data folder, found at once: nothing is trained or tested on a part of it by accident."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

from numpy.typing import NDArray

from data.folder.manifest import DOMAINS, MANIFEST_NAME, SPLITS, read_manifest
from data.folder.slice_folder import READERS, SiblingFolder, SliceFolder, find_folder
from data.folder.subjects import shared_subjects
from util.errors import USER_ERROR_STATUS, UserError
from util.problems import BAD_FILES_NAME, Problem, write_problems
from util.processes import ALONE, Processes

THREADS = 2  # that decode at once: it halves the time, and takes less than 1 GB whatever the slices
SHOWN = 100  # problems printed; the table has them all

Result = TypeVar("Result")


class Reducible(Protocol):
    """Slices of which some can be left out."""

    def leave_out(self, problems: Iterable[Problem]) -> None: ...


def check_data(dataroot: Path) -> list[Problem]:
    """Everything wrong with a data folder: every split and domain, all kinds of files, the manifest.

    Raises: UserError if there is no such folder, or no slice folder in it.
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
        folder.forget()
    return ordered([*problems, *unusable, *shared_subjects([folder.people for folder in folders])])


def find_problems(
    folders: Iterable[SliceFolder], kinds: Collection[str] = ("mask",), *, processes: Processes = ALONE
) -> list[Problem]:
    """Decode every slice, and its files of `kinds` where there are folders of them: all that cannot be used.

    That is what cannot be read, a file that a slice lacks, one without slice, one of another size than its slice, a
    slice that the manifest does not know, and one that it names and that is not there. Each of `processes` decodes a
    part of the slices, and all know all problems in the end.
    """
    return ordered(chain.from_iterable(_problems_in(folder, kinds, processes) for folder in folders))


def subjects_in_two_splits(dataroot: Path) -> list[Problem]:
    """Slices for validation or testing whose subject is in an earlier split too, of either domain; by names alone."""
    return ordered(shared_subjects([folder.people for folder in _open_folders(dataroot)[0]]))


def settle(problems: Sequence[Problem], folders: Iterable[Reducible], *, table_in: Path, skip_bad: bool) -> None:
    """Refuse to go on with problems, or with `skip_bad` go on without them; `bad_files.csv` lists them in `table_in`.

    Raises: UserError: there are problems and not `skip_bad`, no slice is left in a folder, the table cannot be written.
    """
    _write_table(table_in, problems)
    if problems and not skip_bad:
        raise UserError(f"{told(problems, table_in)}; mend or remove them, or go on without them by --skip_bad")
    for folder in folders:
        folder.leave_out(problems)


def told(problems: Sequence[Problem], table_in: Path) -> str:
    """How many problems there are, the first, and where all are listed, in one sentence."""
    return f"{_count(problems)}, the first is {problems[0]}; all are listed in {table_in / BAD_FILES_NAME}"


def print_problems(problems: Sequence[Problem], *, table_in: Path) -> int:
    """Print all problems and list them in `table_in`: what `--check_data` does. Returns the exit status."""
    for problem in problems[:SHOWN]:
        print(problem)
    if len(problems) > SHOWN:
        print(f"and {len(problems) - SHOWN} more")
    table = _write_table(table_in, problems)
    print(f"{_count(problems)}, listed in {table}" if problems else "no bad files")
    return USER_ERROR_STATUS if problems else 0


def _count(problems: Sequence[Problem]) -> str:
    return f"{len(problems)} bad file" + "s" * (len(problems) > 1)


def ordered(problems: Iterable[Problem]) -> list[Problem]:
    """Problems as they are told: by path."""
    return sorted(problems, key=lambda problem: (str(problem.path), problem.reason))


def _write_table(folder: Path, problems: Sequence[Problem]) -> Path:
    """Write `bad_files.csv`; without problems, remove that of an earlier check."""
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
    """All slice folders there are, and those that are empty or cannot be listed."""
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
    mine = processes.part(len(folder))
    found = in_order(lambda i: check_slice(folder, siblings, mine.start + i).problems, mine.stop - mine.start)
    parts = processes.gathered(list(chain.from_iterable(found)))
    return [*chain.from_iterable(parts), *problems_of_folder(folder, siblings)]


def siblings_of(folder: SliceFolder, kinds: Collection[str]) -> dict[str, SiblingFolder]:
    """The folders beside `folder` that there are."""
    return {kind: sibling for kind in kinds if (sibling := folder.sibling(kind)) is not None}


def problems_of_folder(folder: SliceFolder, siblings: Mapping[str, SiblingFolder]) -> list[Problem]:
    """What is wrong by names alone: with a folder, those beside it, and the manifest."""
    found = [folder.listing.problems, _disagreements(folder)]
    for kind, sibling in siblings.items():
        alone = (path for path in sibling.listing.files if path.stem not in folder.listing.stems)
        found.append(sibling.listing.problems)
        found.append([Problem(path, f"a {kind} without image in {folder.folder}") for path in alone])
    return list(chain.from_iterable(found))


def in_order(work: Callable[[int], Result], count: int) -> Iterator[Result]:
    """`work` of 0, 1, ..., by `THREADS` threads that run a few ahead: results of all would fill the memory."""
    with ThreadPoolExecutor(THREADS) as pool:
        ahead: deque[Future[Result]] = deque()
        for i in range(count):
            ahead.append(pool.submit(work, i))
            if len(ahead) > 2 * THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@dataclass(frozen=True)
class Checked:
    """One slice: its pixels and mask, None where they cannot be read or there is no file, and what is wrong."""

    pixels: NDArray | None
    mask: NDArray | None
    problems: list[Problem] = field(default_factory=list)


def check_slice(folder: SliceFolder, siblings: Mapping[str, SiblingFolder], i: int) -> Checked:
    """Decode slice i and what belongs to it."""
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
    return Checked(pixels, mask, problems)


def _disagreements(folder: SliceFolder) -> list[Problem]:
    """Where the files and the manifest differ."""
    if not folder.entries:
        return []
    manifest, here = folder.dataroot / MANIFEST_NAME, {path.name for path in folder.listing.files}
    here |= {path.name for path in folder.listing.refused}
    strangers = (path for path in folder.listing.files if path.name not in folder.entries)
    missing = (folder.folder / name for name in folder.entries if name not in here)
    return [
        *(Problem(path, f"not in {manifest}; remove the file or the manifest") for path in strangers),
        *(Problem(path, f"in {manifest}, but not there") for path in missing),
    ]
