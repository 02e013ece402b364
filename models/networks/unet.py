"""U-Net generator of pix2pix (Isola et al. 2017, section 6.1.1): 4x4 convolutions, skips at every scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.layers import Norm, check_multiple

HIDDEN = 4  # scales whose maps `UnetGenerator.hidden` gives: coarser ones have too few places to compare


class _Scale(nn.Module):
    """One scale: down by 2, the scales below, up by 2, concatenated with the skip. (N, C, H, W) -> (N, 2 C, H, W)."""

    def __init__(self, channels: int, inner: int, below: nn.Module | None, *, norm: Norm, dropout: bool, bias: bool):
        super().__init__()
        innermost = below is None
        down: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(channels, inner, 4, 2, 1, bias=bias or innermost)]
        up_channels = inner if innermost else 2 * inner
        up: list[nn.Module] = [
            nn.ReLU(),
            nn.ConvTranspose2d(up_channels, channels, 4, 2, 1, bias=bias),
            norm(channels),
            *([nn.Dropout(0.5)] if dropout else []),
        ]
        # the innermost map can be 1x1: normalising it over space would set it to zero
        middle = [] if innermost else [norm(inner), below]
        self.body = nn.Sequential(*down, *[layer for layer in middle if layer is not None], *up)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)

    def down(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """The map that the scale below gets, and that scale; None at the innermost one."""
        for layer in self.body:
            if isinstance(layer, _Scale):
                return x, layer
            if isinstance(layer, nn.ReLU):
                break
            x = layer(x)
        return x, None


class UnetGenerator(nn.Module):
    """U-Net with `n_downs` halvings: 5 for unet_32, which takes 96, 160 and 224 px too, 7 for unet_128, 8 for unet_256.

    (N, in_channels, H, W) in [-1, 1] -> (N, out_channels, H, W) in (-1, 1); H and W multiples of 2 ** n_downs.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, n_downs: int, ngf: int, norm: Norm, dropout: bool, bias: bool
    ) -> None:
        super().__init__()
        self.multiple = 2**n_downs
        widths = [ngf * min(2**level, 8) for level in range(n_downs)]
        inside: nn.Module | None = None
        for level in reversed(range(1, n_downs)):
            drop = dropout and widths[level - 1] == widths[level] and inside is not None
            inside = _Scale(widths[level - 1], widths[level], inside, norm=norm, dropout=drop, bias=bias)
        if inside is None:
            raise ValueError(f"n_downs {n_downs}, at least 2")
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, ngf, 4, 2, 1),
            inside,
            nn.ReLU(),
            nn.ConvTranspose2d(2 * ngf, out_channels, 4, 2, 1),
            nn.Tanh(),
        )

    def hidden(self, x: Tensor) -> list[Tensor]:
        """The image and the maps of the first scales, from fine to coarse, (N, C, h, w) each."""
        states, (first, outermost, *_) = [x], self.layers
        scale: nn.Module | None = outermost
        x = first(x)
        while isinstance(scale, _Scale) and len(states) <= HIDDEN:
            states.append(x)
            x, scale = scale.down(x)
        return states

    def forward(self, x: Tensor) -> Tensor:
        check_multiple(f"netG unet_{self.multiple}", (x.shape[-2], x.shape[-1]), self.multiple)
        return self.layers(x)
