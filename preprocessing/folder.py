"""The output folder of preprocessing: when it may be written to, and which files may be removed from it."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.markup import escape
from rich.table import Table

from data.folder.manifest import DOMAINS, MANIFEST_NAME, SPLITS, Manifest
from data.folder.people import person_of
from preprocessing.parallel import WITHOUT_WORKERS
from util.errors import UserError
from util.problems import BAD_FILES_NAME
from util.processes import ALONE, Processes
from util.shared_folder import require_shared

FILES = (MANIFEST_NAME, "simulation.json", BAD_FILES_NAME)
NIFTI_FOLDER = "nifti"  # for whole simulated volumes
SIMULATED = re.compile(rf"({'|'.join(SPLITS)})_sim\d{{6}}_[AB](_[a-z]+)?\.nii\.gz")  # other files there are not removed
CLEARED = "cleared"  # announced by the first process
SUFFIXES = ("", "_mask", "_truth", "_truth_mask", "_labels", "_lesions")


@dataclass(frozen=True)
class Flags:
    """What the program that slices calls two options, for messages: the folder written to, and to use no workers."""

    out: str = "--out"
    one_worker: str = WITHOUT_WORKERS


USUAL_FLAGS = Flags()  # of preprocessing_images.py


def _slice_folders(dataroot: Path) -> list[Path]:
    names = (f"{split}{domain}{suffix}" for split in SPLITS for domain in DOMAINS for suffix in SUFFIXES)
    return [dataroot / name for name in names if (dataroot / name).exists()]


def check_writable(dataroot: Path, overwrite: bool, flag: str = USUAL_FLAGS.out) -> None:
    """Raise UserError, which names `flag`, unless `dataroot` may be written to.

    It must be absent, empty except for a list of bad files, or a data folder of preprocessing with `overwrite` set.
    Slice folders without a manifest were made by hand and are never overwritten.
    """
    if not dataroot.exists():
        return
    if not dataroot.is_dir():
        raise UserError(f"{flag} {dataroot}: is a file, need a folder")
    if {path.name for path in dataroot.iterdir()} - {BAD_FILES_NAME} and not overwrite:
        raise UserError(f"{flag} {dataroot}: is not empty, give another folder or --overwrite")
    if _slice_folders(dataroot) and not (dataroot / MANIFEST_NAME).exists():
        raise UserError(f"{flag} {dataroot}: holds slices without a {MANIFEST_NAME}, made by hand; give another folder")


@contextmanager
def fresh_folder(dataroot: Path, processes: Processes = ALONE, flag: str = USUAL_FLAGS.out) -> Iterator[None]:
    """Remove earlier output of preprocessing from `dataroot`, and remove all output if the block fails.

    Both are done by the first process, the latter once no other process writes any more. SIGTERM counts as failure:
    torchrun sends it when another process was killed, a scheduler when the time is up. Errors name `flag`.
    """

    def clear() -> None:
        dataroot.mkdir(parents=True, exist_ok=True)
        _remove_outputs(dataroot)

    terminate = signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        processes.alone(clear)
        require_shared(dataroot, flag, processes)
        yield
    except BaseException as error:
        if processes.first:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # do not interrupt the removal
            if dataroot.is_dir():
                _remove_outputs(dataroot)
            processes.announce(CLEARED)
        else:  # torchrun kills the first process once another one has ended
            with suppress(SystemExit, UserError):
                while not processes.announced(CLEARED):
                    time.sleep(0.1)
        if isinstance(error, OSError):
            raise UserError(f"{flag} {dataroot}: cannot be written ({error.strerror or error})") from error
        raise
    finally:
        signal.signal(signal.SIGTERM, terminate)


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _remove_outputs(dataroot: Path) -> None:
    for name in FILES:
        (dataroot / name).unlink(missing_ok=True)
    for folder in _slice_folders(dataroot):
        shutil.rmtree(folder)
    volumes = dataroot / NIFTI_FOLDER
    if volumes.is_dir():
        for path in volumes.iterdir():
            if SIMULATED.fullmatch(path.name):
                path.unlink()
        if not any(volumes.iterdir()):
            volumes.rmdir()


def summary(dataroot: Path, manifest: Manifest) -> Table:
    """A table of volumes, people and slices per split and domain."""
    table = Table(title=escape(f"{dataroot}: {len(manifest.volumes)} volumes"), title_justify="left")
    table.add_column("split")
    for domain in DOMAINS:
        for what in ("volumes", "people", "slices"):
            table.add_column(f"{what} {domain}", justify="right")
    for split in SPLITS:
        counts = []
        for domain in DOMAINS:
            volumes = [volume for volume in manifest.volumes if (volume.split, volume.domain) == (split, domain)]
            people = {(volume.person or person_of(volume.subject)).casefold() for volume in volumes}
            n_slices = sum(len(volume.slices) for volume in volumes)
            counts += [str(len(volumes)), str(len(people)), str(n_slices)]
        table.add_row(split, *counts)
    return table
