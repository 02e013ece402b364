"""The results folder: when a test may write to it, and which earlier results it removes.

`metrics.json` is removed before anything else and written after everything else. So a folder with it holds one whole
test, and a folder without it, what an interrupted test has left.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.folders import TestData
from evaluation.provenance import Provenance, describe, make_provenance
from models.base_model import BaseModel
from util.errors import UserError
from util.files import PART
from util.problems import BAD_FILES_NAME
from util.reading import read_json

METRICS_NAME = "metrics.json"
FILES = (METRICS_NAME, "metrics.csv", "slices.csv", "index.html")  # in the order in which they are removed
FOLDERS = ("images", "volumes", "browser")
OUTPUTS = {*FILES, *FOLDERS, BAD_FILES_NAME}


def claim_results(
    results: Path, overwrite: bool, model: BaseModel, run_dir: Path, epoch: str, dataroot: str, argv: Sequence[str]
) -> Provenance:
    """What the results are made from, but for the data's fingerprint. Changes nothing.

    Raises: UserError: the folder holds results of another data folder or of another run.
    """
    assert model.checkpoint is not None
    provenance = make_provenance(
        run_dir=run_dir,
        epoch=epoch,
        checkpoint=model.checkpoint,
        dataroot=Path(dataroot),
        command=shlex.join(["python", "test.py", *argv]),
        synthetic=model.can_synthesise,
    )
    _refuse_another_test(results, provenance, overwrite)
    return provenance


def begin_results(results: Path, overwrite: bool, provenance: Provenance, data: TestData) -> Provenance:
    """Empty the results folder, and return the whole provenance.

    Raises: UserError: the folder holds results of other data, contains other files, or cannot be written.
    """
    complete = provenance.with_data(data)
    _refuse_another_test(results, complete, overwrite)
    fresh_folder(results)
    return complete


def _refuse_another_test(results: Path, new: Provenance, overwrite: bool) -> None:
    """Raise UserError if the folder holds the results of other data or another run, without `overwrite`."""
    earlier = None if overwrite else _earlier(results / METRICS_NAME)
    if earlier is not None and new.differs_from(earlier):
        held = describe(earlier) if earlier else "an earlier version, which does not say what it has tested"
        raise UserError(
            f"--results_dir: {results} holds the results of {held}; this test is of {describe(vars(new))}; "
            "add --overwrite to replace them, or give another --results_dir"
        )


def _earlier(metrics: Path) -> dict[str, Any] | None:
    """The provenance of earlier results: None if there are none, empty if they do not say."""
    if not metrics.is_file():
        return None
    try:
        content = read_json(metrics)
    except UserError:
        return None  # cut off: not the results of a test
    found = content.get("provenance") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def fresh_folder(results: Path) -> None:
    """Create the results folder and remove all that an earlier test has written, except for the list of bad files.

    Raises: UserError if it contains other files or cannot be written.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        foreign = {path.name for path in results.iterdir() if not _is_output(path)}
        if foreign:
            raise UserError(f"{results}: contains other files ({min(foreign)}), choose another --results_dir")
        for name in FILES:
            (results / name).unlink(missing_ok=True)
        for path in results.glob("*" + PART):
            path.unlink()
        for folder in (results / name for name in FOLDERS):
            if folder.exists():
                shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"--results_dir: {error.filename or results} cannot be written ({error.strerror})") from error


def _is_output(path: Path) -> bool:
    """Whether a test has written this; links are never followed."""
    return path.name.removesuffix(PART) in OUTPUTS and not path.is_symlink()
