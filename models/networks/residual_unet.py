"""Generator `unet_residual`: a U-Net of residual units that draws a correction of its input.

The input goes around the network, so it starts near the identity and need not learn to redraw what is right already; a
U-Net as of pix2pix (`unet_32`) draws every pixel anew, from maps of half the resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.hybrid import LOGIT_RANGE, Fuse
from models.networks.layers import Norm, ResidualUnit, check_multiple

HIDDEN = 4  # scales whose maps `hidden` gives, as in models.networks.unet
CORRECTION = 0.1  # of the last layer's output: a new network hardly changes its input
WIDEST = 8  # times the first scale's channels


class ResidualUnet(nn.Module):
    """A residual unit at each of `n_downs` + 1 scales, then one for each scale up, with skips.

    (N, in_channels, H, W) in [-1, 1] -> (N, out_channels, H, W) in (-1, 1); H and W multiples of 2 ** n_downs.
    """

    def __init__(self, in_channels: int, out_channels: int, *, n_downs: int, ngf: int, norm: Norm) -> None:
        super().__init__()
        self.multiple, self.out_channels = 2**n_downs, out_channels
        self.residual = in_channels >= out_channels  # of the first channels
        widths = [ngf * min(2**level, WIDEST) for level in range(n_downs + 1)]
        self.enter = ResidualUnit(in_channels, widths[0], norm)
        self.down = nn.ModuleList(
            ResidualUnit(widths[level], widths[level + 1], norm, stride=2) for level in range(n_downs)
        )
        self.fuse = nn.ModuleList(Fuse(widths[level + 1], widths[level], norm) for level in range(n_downs))
        self.output = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Maps of all scales, from fine to coarse."""
        states = [self.enter((x + 1) / 2)]  # no signal is 0
        for unit in self.down:
            states.append(unit(states[-1]))
        return states

    def hidden(self, x: Tensor) -> list[Tensor]:
        """The image and the maps of the first scales, from fine to coarse, (N, C, h, w) each."""
        return [x, *self._encode(x)[:HIDDEN]]

    def forward(self, x: Tensor) -> Tensor:
        check_multiple("netG unet_residual", (x.shape[-2], x.shape[-1]), self.multiple)
        *skips, y = self._encode(x)
        for level in reversed(range(len(self.fuse))):
            y = self.fuse[level](y, skips[level])
        image = self.output(y)
        if self.residual:
            image = CORRECTION * image + torch.atanh(LOGIT_RANGE * x[:, : self.out_channels].clamp(-1, 1))
        return torch.tanh(image)
