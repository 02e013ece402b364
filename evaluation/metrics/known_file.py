"""Files of published weights that a user names or that torch's cache holds, known by their SHA-256; no downloads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from util.errors import UserError
from util.reading import read_bounded


@dataclass(frozen=True)
class KnownFile:
    """One published file.

    option: the flag that names it. names: what it is called in torch's cache; the first is the usual one. sha256: its
    checksum, or the beginning of it that its publisher writes into its name. most: bytes.
    """

    option: str
    names: tuple[str, ...]
    sha256: str
    most: int

    def cached(self) -> Path | None:
        """The file in torch's cache, if there is one."""
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return next((folder / name for name in self.names if self._is(folder / name)), None)

    def is_at(self, path: Path) -> bool:
        """Whether this is the file that the user names. Raises UserError if there is no file."""
        if not path.is_file():
            raise UserError(f"{self.option} {path}: no such file")
        return self._is(path)

    def _is(self, path: Path) -> bool:
        try:
            content = read_bounded(path, self.most) if path.is_file() else None
        except UserError:
            return False
        return content is not None and hashlib.sha256(content).hexdigest().startswith(self.sha256)
