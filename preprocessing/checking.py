"""`--check_data` and the checks before slicing: all bad files are reported at once, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from data.folder.manifest import VolumeEntry
from preprocessing.dicom import Converter, converting
from preprocessing.folder import USUAL_FLAGS, Flags
from preprocessing.inputs import Inputs, Source
from preprocessing.nifti import read_nifti
from preprocessing.parallel import run_jobs
from preprocessing.plausible import doubts_of, refuse_masks
from preprocessing.slicing import SlicingSettings, find_head
from util.errors import USER_ERROR_STATUS, UserError, printable, warn
from util.problems import BAD_FILES_NAME, Problem, listed, write_problems
from util.processes import ALONE, Processes

SHOWN = 10  # doubtful volumes that slicing names

Find = Callable[[Converter], tuple[Inputs, SlicingSettings]]  # finds the volumes, and how they are sliced


def check_data(
    find: Find, dataroot: Path, *, table_in: Path, workers: int | None, processes: Processes, flags: Flags = USUAL_FLAGS
) -> int:
    """`--check_data`: read everything and write nothing but the table of what cannot be used.

    Args: dataroot: where slices would go. table_in: the folder that gets BAD_FILES_NAME.
    Returns: 2 in the first process if there is a bad file, else 0; torchrun ends the first process as soon as another
        one fails.
    """
    with converting(dataroot, processes) as converter:
        found, settings = processes.alone(partial(find, converter))
        processes.alone(partial(print_notes, found.notes))
        problems, doubtful = check_volumes(found.sources, settings, workers=workers, processes=processes, flags=flags)
    every = found.problems + problems
    status = processes.alone(partial(print_problems, every, found.n_files, table_in, doubtful, flags.out))
    return status if processes.first else 0


def check_volumes(
    sources: Sequence[Source],
    settings: SlicingSettings,
    *,
    workers: int | None,
    processes: Processes = ALONE,
    flags: Flags = USUAL_FLAGS,
) -> tuple[list[Problem], list[Problem]]:
    """Read every volume and its truth as slicing does.

    Returns: the problems of those that cannot be sliced, and what is doubtful about the others; nothing in other
        processes than the first.
    """
    work = partial(check_volume, settings)
    title, instead = "checking volumes", flags.one_worker
    results = run_jobs(work, sources, workers=workers, title=title, processes=processes, instead=instead)
    problems = [result for result in results if isinstance(result, Problem)]
    return problems, [doubt for result in results if not isinstance(result, Problem) for doubt in result]


def check_volume(settings: SlicingSettings, source: Source) -> Problem | list[Problem]:
    """The problem of one volume, or what is doubtful about it; see `check_volumes`."""
    doubtful: list[Problem] = []
    try:
        for path in filter(None, (source.path, source.truth)):
            volume, affine, _ = read_nifti(path)
            refuse_masks(volume, str(path))
            head = find_head(volume, settings.layout.slice_axis, str(path), settings.percentiles)
            doubts = doubts_of(volume, head, settings.layout, affine)
            doubtful += [source.problem(doubt) if path == source.path else Problem(path, doubt) for doubt in doubts]
    except UserError as error:
        return problem_of(source, error)
    return doubtful


def problem_of(source: Source, error: UserError) -> Problem:
    """The error as a problem of the volume or of its truth, with a reason that does not repeat the path."""
    for path in filter(None, (source.path, source.truth)):
        for name in (str(path), path.name):
            if str(error).startswith(printable(f"{name}: ")):
                reason = str(error).removeprefix(printable(f"{name}: "))
                return source.problem(reason) if path == source.path else Problem(path, reason)
    return source.problem(str(error))


def warn_of(doubtful: Sequence[Problem]) -> None:
    """Warn of volumes that may be wrong; a few by name, the others by number."""
    for doubt in doubtful[:SHOWN]:
        warn(str(doubt))
    if len(doubtful) > SHOWN:
        warn(f"{len(doubtful) - SHOWN} more volumes are doubtful; --check_data lists all")


def print_problems(
    problems: Sequence[Problem], n_files: int, table_in: Path, doubtful: Sequence[Problem], flag: str
) -> int:
    """Print all problems, write BAD_FILES_NAME, warn of doubtful volumes. Returns the exit status."""
    for doubt in doubtful:
        warn(str(doubt))
    table = save_problems(table_in, problems, flag)
    print("\n".join([*map(str, problems), f"{len(problems)} of {n_files} files cannot be used: {table}"]))
    return USER_ERROR_STATUS if problems else 0


def print_notes(notes: Iterable[str]) -> None:
    """Print what the user should know before any work, a line each."""
    for note in notes:
        print(printable(f"note: {note}"), flush=True)


def check_inputs(found: Inputs, dataroot: Path, *, skip_bad: bool, flag: str = USUAL_FLAGS.out) -> None:
    """Raise UserError unless slicing may begin: no problems or `skip_bad`, and a usable volume in every domain."""
    if not skip_bad:
        refuse_problems(found.problems, found.n_files, dataroot, flag)
    require_domains(found, found.sources, found.problems)


def refuse_problems(problems: Sequence[Problem], n_files: int, dataroot: Path, flag: str) -> None:
    """Raise UserError if there are problems; several are summarised in one sentence and listed in BAD_FILES_NAME."""
    if len(problems) == 1:
        raise UserError(f"{problems[0]}")
    if problems:
        table = save_problems(dataroot, problems, flag)
        raise UserError(
            f"{len(problems)} of {n_files} files cannot be used: {listed(problems)}; all are listed in {table}, "
            f"--skip_bad leaves them out"
        )


def save_problems(folder: Path, problems: Sequence[Problem], flag: str) -> Path:
    """Write BAD_FILES_NAME into the folder that `flag` names, and return its path.

    Raises: UserError: it cannot be written.
    """
    table = folder / BAD_FILES_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_problems(table, problems)
    except OSError as error:
        raise UserError(f"{flag} {folder}: {BAD_FILES_NAME} cannot be written ({error.strerror or error})") from error
    return table


def require_domains(found: Inputs, usable: Iterable[Source | VolumeEntry], problems: Sequence[Problem]) -> None:
    """Raise UserError for a domain of `found` without usable volumes."""
    for domain in sorted(set(found.domains) - {volume.domain for volume in usable}):
        raise UserError(f"{found.flags[domain]}: no usable volumes: {listed(problems)}")
