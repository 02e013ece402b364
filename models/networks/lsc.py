"""LSC: block-wise corruption C, and the residual U-Net R that restores the image (docs/method.md section 2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.inpainting import filled
from models.networks.layers import ResidualUnit
from models.networks.unrotation import BACKGROUND, Unrotation, from_blocks, to_blocks

SCALES = 5  # published channels 16-32-64-128-256, stride 2 between them


def block_side(size: tuple[int, int], n_blocks: int) -> int:
    """Side in pixels of a square block, such that about `n_blocks` fit along the longer side: 5 px for 24 on 120 px."""
    return max(2, round(max(size) / n_blocks))


def draw_corruption(n: int, size: tuple[int, int], n_blocks: int, generator: torch.Generator) -> Tensor:
    """Random numbers for one C of `n` images of `size`: (n, 3, rows, columns) uniform in [0, 1), on the CPU.

    They belong to the images, so that parts of a batch, or a real and a synthesised image, can use the same draw.
    """
    side = block_side(size, n_blocks)
    return torch.rand(n, 3, -(-size[0] // side), -(-size[1] // side), generator=generator)


def corrupt(
    x: Tensor, draws: Tensor, *, n_blocks: int, rotate_ratio: float, mask_ratio: float
) -> tuple[Tensor, Tensor]:
    """C(x): every block is rotated with probability `rotate_ratio` by 90, 180 or 270 degrees, then masked with -1.

    Args:
        x: (N, 1, H, W) in [-1, 1]. Sides that are not multiples of the block side are padded with background inside.
        draws: (N, 3, rows, columns) from `draw_corruption`: whether to rotate, by how much, whether to mask.
        n_blocks: blocks along the longer side (published: 24).
        rotate_ratio, mask_ratio: probabilities in [0, 1], independent for every block.

    Returns:
        The corrupted image (N, 1, H, W) and the mask (N, 1, H, W) bool, True where a block was filled with background.
        Differentiable with respect to `x`.
    """
    size = (x.shape[-2], x.shape[-1])
    side = block_side(size, n_blocks)
    blocks = to_blocks(x, side)  # (N, 1, rows, columns, side, side)
    rotate, turn, mask = draws.to(x.device, non_blocking=True).unsqueeze(1).unbind(2)  # (N, 1, rows, columns) each
    turns = torch.where(rotate < rotate_ratio, 1 + (3 * turn).long().clamp(max=2), 0)
    masked = (mask < mask_ratio)[..., None, None].expand_as(blocks)
    turned = blocks
    for quarter in (1, 2, 3):
        turned = torch.where((turns == quarter)[..., None, None], torch.rot90(blocks, quarter, (-2, -1)), turned)
    return from_blocks(turned.masked_fill(masked, BACKGROUND), size), from_blocks(masked, size)


class LSCNetwork(nn.Module):
    """R: turns rotated blocks back and fills masked ones, then a residual U-Net adds a correction.

    (N, 1, H, W) -> (N, 1, H, W), any H and W (padded with background to a multiple of 16 inside). Two residual units a
    scale. As published, the
    first scale is at half resolution already; the skip at full resolution is the input itself. Group normalisation
    keeps every image independent of its batch and, unlike instance normalisation, keeps its brightness.
    With `fill` masked blocks are filled smoothly before the U-Net, and its correction starts at zero: R starts as good
    as what needs no training. With `rotate_ratio` 0 and without `fill`, R is the published U-Net alone.
    """

    def __init__(
        self, features: int = 16, *, n_blocks: int = 24, rotate_ratio: float = 0.5, fill: bool = False
    ) -> None:
        super().__init__()
        self.n_blocks, self.fill = n_blocks, fill
        self.unrotation = Unrotation(rotate_ratio) if rotate_ratio > 0 else None
        channels = 1 if self.unrotation is None else 2  # the image with its blocks turned back, and the input itself
        widths = tuple(features * 2**scale for scale in range(SCALES))
        self.multiple = 2 ** (len(widths) - 1)
        strides = (*[2] * (len(widths) - 1), 1)  # the deepest scale shares the resolution of the one above

        def norm(channels: int) -> nn.Module:
            return nn.GroupNorm(math.gcd(8, channels), channels)

        def scale(before: int, after: int, stride: int) -> nn.Module:
            return nn.Sequential(ResidualUnit(before, after, norm, stride=stride), ResidualUnit(after, after, norm))

        before = (channels, *widths[:-1])
        self.down = nn.ModuleList(scale(b, w, s) for b, w, s in zip(before, widths, strides, strict=True))
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for shallow, deep, stride in zip(widths[:-1], widths[1:], strides[1:], strict=True):
            self.up.append(nn.ConvTranspose2d(deep, shallow, stride, stride))
            self.merge.append(scale(2 * shallow, shallow, 1))
        self.finest = nn.ConvTranspose2d(widths[0], widths[0] // 2, 2, 2)
        self.output = nn.Sequential(
            nn.Conv2d(widths[0] // 2 + channels, widths[0] // 2, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(widths[0] // 2, 1, 3, padding=1),
        )
        if fill:
            # with it weights say that they belong to filled blocks: those that do not are refused, not used wrongly
            self.register_buffer("fills", torch.tensor(True))
            for parameter in self.output[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, masked: Tensor | None = None) -> Tensor:
        """Restore x = C(b). `masked`: (N, 1, H, W) bool, the blocks that C masked; only `fill` looks at it."""
        height, width = x.shape[-2:]
        side = block_side((height, width), self.n_blocks)
        first = x if self.unrotation is None else self.unrotation(x, side)
        if self.fill and masked is not None:
            first = filled(first, masked, side)
        shown = x if self.unrotation is None else torch.cat([first, x], 1)
        padded = F.pad(shown, (0, -width % self.multiple, 0, -height % self.multiple), value=BACKGROUND)
        y, skips = padded, []
        for down in self.down:
            y = down(y)
            skips.append(y)
        for level in reversed(range(len(self.up))):
            y = self.merge[level](torch.cat([self.up[level](y), skips[level]], 1))
        correction = self.output(torch.cat([self.finest(y), padded], 1))
        return first + correction[..., :height, :width]
