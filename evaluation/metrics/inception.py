"""The network of FID, KID and the Inception score, and the latter by torchmetrics.

torchvision's Inception v3 has the layers of the standard network. It differs in its weights (`inception_file`) and in
the pooling of some blocks, which is replaced here.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.inception import InceptionScore
from torchvision.models import inception as blocks

from util.errors import UserError

SIDE = 299  # pixels
CLASSES = 1008
FEATURES = 2048


def _mean_without_padding(x: Tensor) -> Tensor:
    """3 x 3 mean that excludes the padding, as in TensorFlow."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class _BlockA(blocks.InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_without_padding(x))]


class _BlockC(blocks.InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_without_padding(x))]


class _BlockE(blocks.InceptionE):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_without_padding(x))]


class _LastBlockE(blocks.InceptionE):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(F.max_pool2d(x, kernel_size=3, stride=1, padding=1))]


class FIDInception(nn.Module):
    """The network of FID: grey slices (N, 1, H, W) in [0, 1] to pooled features (N, 2048)."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        """Load the standard state dict. Raises RuntimeError if a key or shape does not fit."""
        super().__init__()
        self.net = blocks.Inception3(
            num_classes=CLASSES,
            aux_logits=False,
            init_weights=False,
            inception_blocks=[
                blocks.BasicConv2d,
                _BlockA,
                blocks.InceptionB,
                _BlockC,
                blocks.InceptionD,
                _BlockE,
                blocks.InceptionAux,
            ],
        )
        self.net.Mixed_7c = _LastBlockE(FEATURES)
        self.net.load_state_dict(state)
        self.register_buffer("classifier", self.net.fc.weight.detach().clone())
        self.net.fc = nn.Identity()
        self.eval().requires_grad_(False)

    @classmethod
    def from_file(cls, path: Path) -> FIDInception:
        try:
            return cls(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises many kinds; any of them means that the file is bad
            raise UserError(f"--inception_weights {path}: cannot be read as the standard FID network") from error

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (N, 2048) of images rounded to 8 bits and resized to 299 px with antialiasing (torchmetrics)."""
        pixels = (
            (images.to(self.get_buffer("classifier").device).clamp(0, 1) * 255).round().expand(-1, 3, -1, -1)
        )  # (N, 3, H, W)
        resized = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        return self.net((resized - 128) / 128)

    def logits(self, features: Tensor) -> Tensor:
        """Class scores without bias (N, 1008) for the Inception score."""
        classifier = self.get_buffer("classifier")
        return features @ classifier.to(features.device).T


class _Identity(nn.Module):
    """The identity, in place of the network that torchmetrics expects: the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def inception_score(logits: Tensor, *, seed: int) -> float:
    """Inception score of class scores (N, 1008): mean over 10 splits of a seeded permutation."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # torchmetrics warns that it stores the features, which are in memory anyway
        torch.manual_seed(seed)
        metric = InceptionScore(feature=_Identity(logits.shape[1]))
        metric.update(logits)
        return float(metric.compute()[0])
