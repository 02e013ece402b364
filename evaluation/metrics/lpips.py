"""LPIPS (Zhang et al. 2018, version 0.1, AlexNet): how different two images look to a network trained on photographs.

The network is torchvision's AlexNet, whose file the user names. The linear heads, fitted to people's judgements, come
with torchmetrics, a few kilobytes. Nothing is downloaded.
"""

from __future__ import annotations

from importlib import metadata, resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.metrics.known_file import KnownFile
from util.errors import UserError

Floats = NDArray[np.floating]

WEIGHTS = KnownFile("--lpips_weights", ("alexnet-owt-7be5be79.pth",), "7be5be79", 256 * 2**20)
HEADS = "functional/image/lpips_models/alex.pth"  # in torchmetrics
TAPPED = (1, 4, 7, 9, 11)  # of AlexNet's `features`: its five rectifiers
SIDE = 31  # pixels: with fewer per side nothing is left after the second pooling
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the three channels, as published
IMAGES_AT_ONCE = 16
WHY_NONE = f"no AlexNet weights; give --lpips_weights (and slices of at least {SIDE} px per side)"


class LPIPS(nn.Module):
    """Pairs of grey slices to distances: 0 for equal ones, about 1 for the most different."""

    def __init__(self, alexnet: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        """Take the weights of torchvision's AlexNet and the heads `lin0.model.1.weight` (1, C, 1, 1) and so on.

        Raises RuntimeError or KeyError if a name or shape does not fit.
        """
        from torchvision.models import alexnet as architecture  # late: it takes a second and is rarely needed

        super().__init__()
        whole = architecture(weights=None)
        whole.load_state_dict(alexnet)
        self.features = whole.features[: TAPPED[-1] + 1]
        self.heads = [heads[f"lin{i}.model.1.weight"] for i in range(len(TAPPED))]
        self.register_buffer("shift", torch.tensor(SHIFT)[None, :, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[None, :, None, None])
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (N,) of images (N, 1, H, W) in [-1, 1]."""
        total = torch.zeros(len(x), device=x.device)
        for head, a, b in zip(self.heads, self._tapped(x), self._tapped(y), strict=True):
            total += nn.functional.conv2d((a - b) ** 2, head.to(x.device)).mean((1, 2, 3))
        return total

    def _tapped(self, x: Tensor) -> list[Tensor]:
        """The five layers' activations, of unit length in every place."""
        x = (x.expand(-1, 3, -1, -1) - self.get_buffer("shift")) / self.get_buffer("scale")
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in TAPPED:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def slices(self, prediction: Floats, truth: Floats) -> Floats | None:
        """Distance of each slice of two volumes (S, H, W) in [0, 1]: (S,); None where a side is under 31 px."""
        if min(truth.shape[1:]) < SIDE:
            return None
        device = self.get_buffer("shift").device
        pair = (torch.from_numpy(x.astype(np.float32) * 2 - 1)[:, None].to(device) for x in (prediction, truth))
        parts = zip(*(x.split(IMAGES_AT_ONCE) for x in pair), strict=True)
        return torch.cat([self(x, y) for x, y in parts]).cpu().numpy()


def open_lpips(given: str | None, device: torch.device) -> LPIPS | None:
    """The measure on `device`, with AlexNet from the file `given` or torch's cache; None without one.

    Raises:
        UserError: the named file does not exist or is not torchvision's AlexNet; torchmetrics has no heads.
    """
    path = WEIGHTS.cached() if given is None else Path(given)
    if given is not None and not WEIGHTS.is_at(Path(given)):
        raise UserError(f"--lpips_weights {given}: not torchvision's AlexNet, need {WEIGHTS.names[0]}")
    if path is None:
        return None
    heads = read_heads()
    try:
        return LPIPS(torch.load(path, map_location="cpu", weights_only=True), heads).to(device)
    except Exception as error:  # torch raises many kinds; any of them means that the file is bad
        raise UserError(f"--lpips_weights {path}: cannot be read as torchvision's AlexNet") from error


def read_heads() -> dict[str, Tensor]:
    """The linear heads for AlexNet. Raises UserError if the installed torchmetrics does not hold them."""
    try:
        with resources.as_file(resources.files("torchmetrics") / HEADS) as path:
            heads: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        version = metadata.version("torchmetrics")
        raise UserError(f"--lpips_weights needs the heads of LPIPS, which torchmetrics {version} lacks") from error
    return heads
