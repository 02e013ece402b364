"""Where caches lie, beside the run folders."""

from __future__ import annotations

from pathlib import Path

from util.errors import UserError

CACHE_NAME = ".cache"  # in --checkpoints_dir, unless --cache_dir says otherwise


def cache_folder(given: str | None, checkpoints_dir: str) -> Path:
    """The folder of caches: --cache_dir, or one in --checkpoints_dir."""
    return Path(checkpoints_dir) / CACHE_NAME if given is None else Path(given)


def check_name(name: str, flag: str = "--name") -> None:
    """Raise UserError unless `name`, given by `flag`, is allowed for a run folder, which lies beside the cache."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"{flag} is '{name}', it must be a plain folder name")
    if name == CACHE_NAME:
        raise UserError(f"{flag} is '{name}', which is the name of the cache folder; choose another one")
