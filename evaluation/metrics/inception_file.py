"""Find the file of the standard Inception weights and verify its SHA-256, without loading a network.

The standard network is the TensorFlow graph of 2015-12-05, distributed as a PyTorch state dict with the name
`pt_inception-2015-12-05-6726825d.pth`. torchvision's own weights give other numbers and are refused. Nothing is
downloaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from util.errors import UserError
from util.reading import read_bounded

if TYPE_CHECKING:
    from evaluation.metrics.inception import FIDInception

FILE_NAMES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
N_BYTES = 95_628_359


def open_inception(given: str | None, device: torch.device) -> FIDInception | None:
    """The standard network on `device`, from the file of `find_weights`; None without one.

    Raises:
        UserError: the named file does not exist or is not the standard network.
    """
    path = find_weights(None if given is None else Path(given))
    if path is None:
        return None
    from evaluation.metrics.inception import FIDInception  # imported here: it takes seconds and is rarely needed

    return FIDInception.from_file(path).to(device)


def find_weights(given: Path | None) -> Path | None:
    """The weights file named by the user, else one that torch-fidelity or pytorch-fid stored in torch's cache.

    Raises:
        UserError: the named file does not exist or is not the standard network.
    """
    if given is None:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return next((folder / name for name in FILE_NAMES if _is_standard(folder / name)), None)
    if not given.is_file():
        raise UserError(f"--inception_weights {given}: no such file")
    if not _is_standard(given):
        raise UserError(f"--inception_weights {given}: not the standard FID network, need {FILE_NAMES[0]}")
    return given


def _is_standard(path: Path) -> bool:
    """Whether the file is the standard network, by its SHA-256."""
    try:
        return path.is_file() and hashlib.sha256(read_bounded(path, N_BYTES)).hexdigest() == SHA256
    except UserError:
        return False
