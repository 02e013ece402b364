"""Discriminators: 70x70 PatchGAN (Isola et al. 2017, section 3.2.2) and its 1x1 form."""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.layers import Norm
from util.errors import UserError


class PatchDiscriminator(nn.Module):
    """`n_layers` convolutions of stride 2, then two of stride 1: one score per patch.

    (N, in_channels, H, W) -> (N, 1, about H / 2**n_layers, about W / 2**n_layers), unbounded scores.
    """

    def __init__(self, in_channels: int, *, ndf: int, n_layers: int, norm: Norm, bias: bool) -> None:
        super().__init__()
        self.smallest = 2 ** (n_layers + 2)  # below this the last 4x4 convolutions would see only padding
        layers: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = ndf
        for level in range(1, n_layers + 1):
            wider = ndf * min(2**level, 8)
            stride = 2 if level < n_layers else 1
            layers += [nn.Conv2d(width, wider, 4, stride, 1, bias=bias), norm(wider), nn.LeakyReLU(0.2)]
            width = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < self.smallest:
            height, width = x.shape[-2:]
            raise UserError(
                f"--netD with its stride-2 layers needs at least {self.smallest} px a side, not {height}x{width}; "
                "choose a larger --load_size, fewer --n_layers_D or --netD pixel"
            )
        return self.layers(x)


class PixelDiscriminator(nn.Module):
    """Judges every pixel by itself, with 1x1 convolutions: (N, in_channels, H, W) -> (N, 1, H, W)."""

    def __init__(self, in_channels: int, *, ndf: int, norm: Norm, bias: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, ndf, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            norm(2 * ndf),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
