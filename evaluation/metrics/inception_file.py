"""The file of the standard Inception weights, found without loading a network.

The standard network is the TensorFlow graph of 2015-12-05, distributed as a PyTorch state dict with the name
`pt_inception-2015-12-05-6726825d.pth`. torchvision's own weights give other numbers and are refused. torch-fidelity and
pytorch-fid store it in torch's cache. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evaluation.metrics.known_file import KnownFile
from util.errors import UserError

if TYPE_CHECKING:
    from evaluation.metrics.inception import FIDInception

WEIGHTS = KnownFile(
    "--inception_weights",
    ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    95_628_359,
)


def open_inception(given: str | None, device: torch.device) -> FIDInception | None:
    """The standard network on `device`, from the file `given` or torch's cache; None without one.

    Raises:
        UserError: the named file does not exist or is not the standard network.
    """
    path = WEIGHTS.cached() if given is None else Path(given)
    if given is not None and not WEIGHTS.is_at(Path(given)):
        raise UserError(f"--inception_weights {given}: not the standard FID network, need {WEIGHTS.names[0]}")
    if path is None:
        return None
    from evaluation.metrics.inception import FIDInception  # imported here: it takes seconds and is rarely needed

    return FIDInception.from_file(path).to(device)
