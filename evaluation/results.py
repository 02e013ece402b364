"""The results folder: when a test may write to it, and which earlier results it removes."""

from __future__ import annotations

import shutil
from pathlib import Path

from util.errors import UserError
from util.problems import BAD_FILES_NAME

OUTPUTS = {"images", "volumes", "metrics.json", "metrics.csv", "index.html", BAD_FILES_NAME}


def fresh_folder(results: Path) -> None:
    """Create the results folder and remove pictures and volumes of an earlier test.

    Raises: UserError if it contains other files or cannot be written.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        foreign = {path.name for path in results.iterdir()} - OUTPUTS
        if foreign:
            raise UserError(f"{results}: contains other files ({min(foreign)}), choose another --results_dir")
        for name in ("images", "volumes"):
            shutil.rmtree(results / name, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--results_dir: {results} cannot be written ({error.strerror})") from error
