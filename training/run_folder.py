"""The run folder: lock, checks, leftovers of earlier runs, and the files that describe the run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from data.folder.manifest import read_placements
from data.scale import as_json, scales
from data.unaligned_dataset import UnalignedMaskDataset
from models.stage import Stage
from models.weights import weights_files
from options.train_options import RunOptions, differences
from training.position import position_in
from training.run_info import write_run_info
from training.run_lock import LOCK_NAME, run_lock
from util.checkpoint import NewestCheckpoint, checkpoint_path, read_newest
from util.errors import UserError
from util.files import PART, replace_text
from util.problems import Problem, as_rows
from util.reading import read_json
from util.runs import OPTIONS_NAME, runs_there

DAMAGED = ".damaged"  # suffix of a checkpoint that could not be read


def requeued(run: RunOptions, environment: Mapping[str, str]) -> RunOptions:
    """The run; with --continue_train if slurm restarted its job (SLURM_RESTART_COUNT above 0) and a state is saved."""
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    if not (restarts.isdecimal() and int(restarts) and _checkpoints(run.run_dir)):
        return run
    return dataclasses.replace(run, train=dataclasses.replace(run.train, continue_train=True, overwrite=False))


@contextmanager
def hold_run_folder(run: RunOptions) -> Iterator[None]:
    """Create the run folder if necessary and hold its lock within the block. A run that never began leaves no traces.

    Raises:
        UserError: another process holds the folder; nothing to continue; an earlier run would be lost; the folder
            cannot be written.
    """
    folder = run.run_dir
    if run.train.continue_train and not folder.is_dir():
        raise _nothing_to_continue(folder)
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    begun = (folder / OPTIONS_NAME).exists()
    with ExitStack() as held:
        with writable(run):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(run_lock(folder))
        try:
            _check_purpose(run)
            yield
        finally:
            if not begun and not (folder / OPTIONS_NAME).exists():
                _remove_traces(folder, created)


def _check_purpose(run: RunOptions) -> None:
    """Raise UserError if there is no run to continue, or if a new run would replace one without --overwrite."""
    saved = _checkpoints(run.run_dir)
    if run.train.continue_train and not saved:
        raise _nothing_to_continue(run.run_dir)
    if saved and not run.train.continue_train and not run.train.overwrite:
        raise UserError(
            f"--name {run.train.name}: {run.run_dir} holds a trained run; add --continue_train to go on with it or "
            "--overwrite to replace it, or give another --name"
        )


def _remove_traces(folder: Path, created: Sequence[Path]) -> None:
    """Remove the lock, and then the folders in `created`, innermost first, as far as they are empty."""
    with suppress(OSError):
        (folder / LOCK_NAME).unlink()
        for place in created:
            place.rmdir()


def state_to_continue(run: RunOptions, image_size: tuple[int, int], stages: Sequence[Stage]) -> NewestCheckpoint | None:
    """The checkpoint that --continue_train resumes from, else None. Changes nothing.

    Args: stages: those of the model as the run's options make it now.
    Raises:
        UserError: no checkpoint can be read; the saved run has other options.
    """
    if not run.train.continue_train:
        return None
    newest = read_newest(run.run_dir)
    _check_same_run(run, _saved_options(run, image_size), newest, stages)
    return newest


def leftovers(folder: Path, newest: NewestCheckpoint | None) -> list[Path]:
    """Files that `begin_run` removes: half-written ones and, if no run is resumed, those of an earlier run."""
    unfinished = list(folder.rglob("*" + PART))
    if newest is not None:
        return unfinished
    return [*unfinished, *_checkpoints(folder), *weights_files(folder), *folder.glob("*" + DAMAGED)]


def begin_run(run: RunOptions, image_size: tuple[int, int], newest: NewestCheckpoint | None) -> None:
    """Remove leftovers, rename damaged checkpoints, and write options.json.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = run.run_dir
    with writable(run):
        for path in leftovers(folder, newest):
            path.unlink()
        for path in newest.unusable if newest else ():  # the next save would keep it as previous.pt
            if path.exists():
                path.replace(path.with_name(path.name + DAMAGED))
        with replace_text(folder / OPTIONS_NAME) as file:
            json.dump(_saved_options(run, image_size), file, indent=1, sort_keys=True)
            file.write("\n")


def _saved_options(run: RunOptions, image_size: tuple[int, int]) -> dict[str, Any]:
    """The content of options.json, with the types that reading JSON gives."""
    return json.loads(json.dumps({**run.flat(), "image_size": list(image_size)}))


def _check_same_run(
    run: RunOptions, wanted: Mapping[str, Any], newest: NewestCheckpoint, stages: Sequence[Stage]
) -> None:
    """Raise UserError unless the saved run has the wanted options, apart from the number of epochs."""
    folder = run.run_dir
    earlier = read_json(folder / OPTIONS_NAME)
    if not isinstance(earlier, dict):
        raise UserError(f"{folder / OPTIONS_NAME}: not the options of a run")
    _check_given_weights(run, earlier)
    changed = differences(earlier, wanted)
    if changed:
        raise UserError(
            f"--continue_train: {folder} was trained with other options ({'; '.join(changed)}); repeat its options, "
            "replace it with --overwrite, or give another --name"
        )
    reached = position_in(newest.content, newest.path)["stage"]
    if reached >= len(stages) or stages[reached].epochs_before != newest.content.get("epochs_before"):
        raise UserError(
            "--continue_train: the run's last stage, refine, has begun; --n_epochs and --n_epochs_decay "
            "can no longer change, and --n_epochs_refine must be at least 1"
        )


def _check_given_weights(run: RunOptions, earlier: Mapping[str, Any]) -> None:
    """Raise UserError if weights are given for a network that the saved run trained by itself, or the other way."""
    for network in ("sgp", "lsc") if earlier.get("model") == run.model else ():
        name = f"{network}_weights"
        given = earlier.get(name) is not None
        if getattr(run.network, f"uses_{network}", False) and given != (getattr(run.network, name, None) is not None):
            was, now = ("with", "give it again") if given else ("without", "leave it out")
            raise UserError(
                f"--continue_train: {run.run_dir} was begun {was} --{name}, which decides on its stages; {now}, "
                "replace the run with --overwrite, or give another --name"
            )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pt"))


def _nothing_to_continue(folder: Path) -> UserError:
    return UserError(
        f"--continue_train: nothing to continue, {checkpoint_path(folder, 'latest')} does not exist; "
        f"start the run without it; {runs_there(folder.parent, folder.name)}"
    )


@contextmanager
def writable(run: RunOptions) -> Iterator[None]:
    """Turn an OSError within the block into a UserError that names the file."""
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
    more: Mapping[str, Any] | None = None,
) -> str:
    """Write run.json, with `more` entries.

    Returns a warning if the slices are not those that the run began with, else an empty text.

    Raises:
        UserError: it cannot be written.
    """
    current = fingerprint(dataset)
    known = read_placements(Path(run.train.dataroot))
    with writable(run):
        info = write_run_info(
            run.run_dir,
            seed=run.train.seed,
            command=["train.py", *argv],
            data_fingerprint=current,
            device=device,
            resumed=resumed,
            extra={"skipped": as_rows(skipped), "slices": as_json(scales(known, "train")), **(more or {})},
        )
    if info.get("data_fingerprint") == current:
        return ""
    return f"--dataroot {run.train.dataroot}: other slices than those that {run.run_dir} began with; training goes on"


def fingerprint(dataset: UnalignedMaskDataset) -> str:
    """SHA-256 over the training slices' names and content as the cache records them, without reading the slices."""
    parts = "".join(f"{folder.domain}:{folder.fingerprint()}\n" for folder in dataset.folders)
    return hashlib.sha256(parts.encode()).hexdigest()
