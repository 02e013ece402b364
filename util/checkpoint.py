"""Checkpoint files: one a moment, written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from util.errors import UserError

FORMAT = 1
OPTIONS_NAME = "options.json"


def checkpoint_path(run_dir: Path, epoch: str) -> Path:
    """`OUT/NAME/latest.pt` or `OUT/NAME/5.pt`."""
    return run_dir / f"{epoch}.pt"


def write_atomically(path: Path, content: Any) -> None:
    """`torch.save` into a temporary file beside `path`, flushed to disk, then renamed over it."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values."""
    write_atomically(path, {"format": FORMAT, **content})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain values are accepted (`weights_only`).

    Raises:
        UserError: no such file, or not one of our checkpoints.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; --epoch takes latest or a saved epoch's number")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["format"]
    except Exception as error:  # torch raises many kinds; every one of them means the file is not ours
        raise UserError(f"{path}: cannot be read as a checkpoint ({type(error).__name__})") from error
    if found != FORMAT:
        raise UserError(f"{path}: checkpoint format {found}, this version reads format {FORMAT}")
    return content
