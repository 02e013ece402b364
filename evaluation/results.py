"""The results folder: what a test may write into, and what of an earlier test it removes."""

from __future__ import annotations

import shutil
from pathlib import Path

from util.errors import UserError
from util.problems import BAD_FILES_NAME

OUTPUTS = {"images", "volumes", "metrics.json", "metrics.csv", "index.html", BAD_FILES_NAME}


def fresh_folder(results: Path) -> None:
    """Make the results folder; pictures and volumes of an earlier test there are removed.

    Raises: UserError if it holds something else, or cannot be written.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        foreign = {path.name for path in results.iterdir()} - OUTPUTS
        if foreign:
            raise UserError(f"{results}: holds other files ({min(foreign)}), choose another --results_dir")
        for name in ("images", "volumes"):
            shutil.rmtree(results / name, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--results_dir: {results} cannot be written ({error.strerror})") from error
