"""Weights alone: written beside every checkpoint, read back for pretext networks. Tensors only, never pickled code."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from util.errors import UserError


def weights_name(epoch: str, network: str) -> str:
    """File name of a network's weights in a run folder: `latest_net_G_AB.pth`."""
    return f"{epoch}_net_{network}.pth"


def find_weights(path: str, network: str) -> Path:
    """The weights file that `path` means: the file itself, or that of the latest epoch in a run folder.

    Raises:
        UserError: there is none.
    """
    place = Path(path)
    file = place / weights_name("latest", network) if place.is_dir() else place
    if not file.is_file():
        raise UserError(f"--{network.lower()}_weights {path}: no file {file}, give a run folder or a .pth file")
    return file


def load_weights(network: nn.Module, path: str, name: str) -> None:
    """Fill `network` from a run folder or a .pth file of weights.

    Raises:
        UserError: no such file, not a file of weights, or weights of another architecture.
    """
    file = find_weights(path, name)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # torch raises many kinds; every one of them means the file does not fit
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--{name.lower()}_weights {file}: not weights of this {name} network ({reason})") from error
