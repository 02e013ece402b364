"""Saves a run's checkpoints and weights files, and removes old ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from models.weights import SUFFIXES, weights_name, weights_writers
from util.checkpoint import LATEST, PREVIOUS, checkpoint_path, saved_epochs, seal
from util.errors import UserError, warn
from util.files import Writer, replace_files
from util.torch_file import torch_writer


class RunCheckpoints:
    """The checkpoints of one run folder.

    Args:
        keep_last: how many of the newest EPOCH.pt are kept; 0: all.
        always: epochs that are kept beside these.
    """

    def __init__(self, run_dir: Path, keep_last: int = 0, always: Collection[int] = ()) -> None:
        self.run_dir, self.keep_last, self.always = run_dir, keep_last, frozenset(always)

    def save(self, epochs: tuple[str, ...], content: dict[str, Any], networks: Mapping[str, nn.Module]) -> None:
        """Write `EPOCH.pt` and the networks' weights for each of `epochs` (`latest` or a number), all or none.

        The old latest.pt becomes previous.pt; then epochs beyond `keep_last` are removed.

        Raises:
            UserError: the disk is full, the folder read-only, …; the earlier state is unchanged.
        """
        sealed = seal(content)
        writers: dict[Path, Writer] = {}
        for epoch in epochs:
            writers[checkpoint_path(self.run_dir, epoch)] = torch_writer(sealed)
            writers |= weights_writers(self.run_dir, epoch, networks, sealed["sha256"])
        latest = checkpoint_path(self.run_dir, LATEST)
        keep = {latest: checkpoint_path(self.run_dir, PREVIOUS)} if LATEST in epochs else {}
        self._replace(writers, keep)
        self._prune()

    def export(self, content: dict[str, Any], networks: Mapping[str, nn.Module]) -> None:
        """Write the weights of the checkpoint that a run resumes from; a kill may have left older ones beside it.

        Raises:
            UserError: as `save`.
        """
        self._replace(weights_writers(self.run_dir, LATEST, networks, content["sha256"]), {})

    def has(self, epoch: int) -> bool:
        """Whether `EPOCH.pt` is there."""
        return checkpoint_path(self.run_dir, str(epoch)).is_file()

    def last_saved(self) -> str:
        """A phrase that names the last saved state, for messages."""
        paths = [checkpoint_path(self.run_dir, epoch) for epoch in (LATEST, PREVIOUS)]
        found = next((path for path in paths if path.exists()), None)
        return "no state was saved before" if found is None else f"the last good state is {found}"

    def _replace(self, writers: Mapping[Path, Writer], keep: Mapping[Path, Path]) -> None:
        try:
            replace_files(writers, keep)
        except OSError as error:
            first = next(iter(writers), self.run_dir)
            path = error.filename or first
            raise UserError(f"{path}: cannot be saved ({error.strerror or error}); {self.last_saved()}") from error

    def _prune(self) -> None:
        """Remove all but the newest `keep_last` epochs. latest.pt, which was just written, always stays."""
        passing = [number for number in saved_epochs(self.run_dir) if number not in self.always]
        for number in map(str, passing[: -self.keep_last] if self.keep_last else ()):
            weights = [path for suffix in SUFFIXES for path in self.run_dir.glob(weights_name(number, "*", suffix))]
            for path in (*weights, checkpoint_path(self.run_dir, number)):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    warn(f"--keep_last {self.keep_last}: {path} cannot be removed ({error.strerror})")
