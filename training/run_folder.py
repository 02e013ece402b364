"""A run's folder: may it be used, what is in it, and the files that describe the run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from data.unaligned_dataset import UnalignedMaskDataset
from models.base_model import Stage
from models.weights import weights_files
from options.train_options import RunOptions, differences
from training.position import position_in
from training.run_lock import run_lock
from util.checkpoint import OPTIONS_NAME, NewestCheckpoint, checkpoint_path, read_newest
from util.errors import UserError
from util.files import PART, replace_text
from util.problems import Problem, as_rows
from util.reading import read_json
from util.run_info import write_run_info

DAMAGED = ".damaged"  # ends the name of a checkpoint that could not be read


def requeued(run: RunOptions, environment: Mapping[str, str]) -> RunOptions:
    """The run as it goes on by itself when slurm has started its job again (SLURM_RESTART_COUNT above 0)."""
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    if not (restarts.isdecimal() and int(restarts) and _checkpoints(run.run_dir)):
        return run
    return dataclasses.replace(run, train=dataclasses.replace(run.train, continue_train=True, overwrite=False))


@contextmanager
def open_run_folder(
    run: RunOptions, image_size: tuple[int, int], stages: Sequence[Stage]
) -> Iterator[NewestCheckpoint | None]:
    """Hold the run folder, made if need be, within the block; gives the checkpoint to continue from, if asked for.

    `stages` are those that the run's model would go through now.

    Raises:
        UserError: another process holds the folder; nothing to continue; an earlier run would be lost; the continued
            run has other options; the folder cannot be written.
    """
    folder = run.run_dir
    if run.train.continue_train and not folder.is_dir():
        raise _nothing_to_continue(folder)
    with ExitStack() as held:
        with writable(run):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(run_lock(folder))
        yield _take_up(run, {**run.flat(), "image_size": list(image_size)}, stages)


def _take_up(run: RunOptions, options: Mapping[str, Any], stages: Sequence[Stage]) -> NewestCheckpoint | None:
    """Check that the folder is this run's to use, clear what is left over, and write the options."""
    folder, wanted = run.run_dir, json.loads(json.dumps(options))  # as JSON gives them back
    newest = None
    if run.train.continue_train:
        if not _checkpoints(folder):
            raise _nothing_to_continue(folder)
        newest = read_newest(folder)
        _check_same_run(folder, wanted, newest, stages)
    elif _checkpoints(folder) and not run.train.overwrite:
        raise UserError(
            f"--name {run.train.name}: {folder} holds a trained run; add --continue_train to go on with it, "
            "--overwrite to start afresh, or give another --name"
        )
    with writable(run):
        for path in folder.rglob("*" + PART):
            path.unlink()
        if newest is None:
            for path in [*_checkpoints(folder), *weights_files(folder), *folder.glob("*" + DAMAGED)]:
                path.unlink()
        else:
            for path in newest.unusable:  # or the next save would keep it in the good one's place
                if path.exists():
                    path.replace(path.with_name(path.name + DAMAGED))
        with replace_text(folder / OPTIONS_NAME) as file:
            json.dump(wanted, file, indent=1, sort_keys=True)
            file.write("\n")
    return newest


def _check_same_run(folder: Path, wanted: Mapping[str, Any], newest: NewestCheckpoint, stages: Sequence[Stage]) -> None:
    """Raise UserError unless the run in the folder is the one wanted, perhaps with more epochs."""
    earlier = read_json(folder / OPTIONS_NAME)
    if not isinstance(earlier, dict):
        raise UserError(f"{folder / OPTIONS_NAME}: not the options of a run")
    changed = differences(earlier, wanted)
    if changed:
        raise UserError(
            f"--continue_train: {folder} was trained with other options ({'; '.join(changed)}); repeat them, "
            "start afresh with --overwrite, or give another --name"
        )
    reached = position_in(newest.content, newest.path)["stage"]
    if reached >= len(stages) or stages[reached].epochs_before != newest.content.get("epochs_before"):
        raise UserError(
            "--continue_train: the run's last stage, refine, has begun; --n_epochs and --n_epochs_decay "
            "can no longer change, and --n_epochs_refine must be at least 1"
        )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pt"))


def _nothing_to_continue(folder: Path) -> UserError:
    return UserError(
        f"--continue_train: nothing to continue, {checkpoint_path(folder, 'latest')} does not exist; "
        "start the run without it"
    )


@contextmanager
def writable(run: RunOptions) -> Iterator[None]:
    """Turns an OSError within the block into the UserError that names the file."""
    try:
        yield
    except OSError as error:
        path = error.filename or run.run_dir
        raise UserError(
            f"--checkpoints_dir {run.train.checkpoints_dir}: {path} cannot be written ({error.strerror})"
        ) from error


def describe_run(
    run: RunOptions,
    argv: Sequence[str],
    dataset: UnalignedMaskDataset,
    device: torch.device,
    *,
    resumed: bool,
    skipped: Sequence[Problem],
) -> str:
    """Write run.json. Returns a warning if the slices are not those that the run began with, else nothing.

    Raises:
        UserError: it cannot be written.
    """
    mine = fingerprint(dataset)
    with writable(run):
        info = write_run_info(
            run.run_dir,
            seed=run.train.seed,
            command=["train.py", *argv],
            data_fingerprint=mine,
            device=device,
            resumed=resumed,
            extra={"skipped": as_rows(skipped)},
        )
    if info.get("data_fingerprint") == mine:
        return ""
    return f"--dataroot {run.train.dataroot}: other slices than those that {run.run_dir} began with; training goes on"


def fingerprint(dataset: UnalignedMaskDataset) -> str:
    """SHA-256 over names and sizes of the training slices: tells data folders apart without reading them."""
    digest = hashlib.sha256()
    for folder in (dataset.A, dataset.B):
        for path in folder.files:
            digest.update(f"{folder.domain}/{path.name}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()
