"""Generator `hybrid`: a structured-attention transformer under a UNETR decoder (docs/method.md section 4).

After UNETR (Hatamizadeh et al. 2022) and UNest (arXiv 2406.18967). At the published sizes (width 768, depth 4,
12 heads, MLP 3072, patch 16, features 16) it has 40.5 M parameters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blur import gaussian_blur
from models.networks.hybrid_options import HybridOptions
from models.networks.layers import Norm, ResidualUnit, check_multiple
from models.networks.structured_attention import StructuredBlock
from util.errors import UserError

POSITION_GRID = 14  # grid of the position embeddings: 224 px in patches of 16; interpolated for other sizes
LOGIT_RANGE = 0.96  # the image is scaled by this before atanh, which is infinite at -1 and 1
SOFTER = (0.01, 0.02)  # standard deviations of the blurred images, as fractions of the side: 1 and 2 px of 96
SHARP_FIRST = 1.0  # added to the logit of the unblurred image, so that it starts with over half of the weight


class TokenUp(nn.Module):
    """Upsample a token map: a 2x transposed convolution, then 2x and a residual unit for each further doubling."""

    def __init__(self, width: int, channels: int, doublings: int, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ConvTranspose2d(width, channels, 2, 2)]
        for _ in range(doublings - 1):
            layers += [nn.ConvTranspose2d(channels, channels, 2, 2), ResidualUnit(channels, channels, norm)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Fuse(nn.Module):
    """Decoder step: upsample the coarser map by 2, concatenate the skip, apply one residual unit."""

    def __init__(self, coarse: int, channels: int, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(coarse, channels, 2, 2)
        self.unit = ResidualUnit(2 * channels, channels, norm)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        return self.unit(torch.cat([self.up(coarse), skip], 1))


def softened(x: Tensor, sharpness: Tensor) -> Tensor:
    """Mix the image with itself blurred by each of `SOFTER`, pixel by pixel.

    Averaging over neighbours removes noise, and the network chooses for each pixel how far: far inside a tissue, not at
    all at an edge. A few channels of 3x3 convolutions need many more steps to learn this.

    Args:
        x: (N, C, H, W) in [-1, 1].
        sharpness: (N, 1 + len(SOFTER), H, W), logits of the mixing weights.

    Returns:
        (N, C, H, W) in [-1, 1].
    """
    side = max(x.shape[-2:])
    versions = [x, *(gaussian_blur(x, sigma * side, 2 * math.ceil(3 * sigma * side) + 1) for sigma in SOFTER)]
    weights = torch.softmax(torch.cat([sharpness[:, :1] + SHARP_FIRST, sharpness[:, 1:]], 1), 1)
    return (weights.unsqueeze(2) * torch.stack(versions, 1)).sum(1)


class HybridGenerator(nn.Module):
    """(N, in_channels, H, W) in [-1, 1] -> image (N, out_channels, H, W) in (-1, 1) and foreground logits.

    H and W are multiples of the patch. The logits (N, 1, H / patch, W / patch) are what L_seg trains.
    """

    def __init__(self, in_channels: int, out_channels: int, *, sizes: HybridOptions, norm: Norm) -> None:
        super().__init__()
        o, width = sizes, sizes.hybrid_width
        if width % o.hybrid_heads:
            raise UserError(f"--hybrid_width {width} is not divisible by --hybrid_heads {o.hybrid_heads}")
        self.multiple = o.hybrid_patch
        self.threshold = o.fth
        self.residual = o.hybrid_residual and in_channels >= out_channels  # of the first channels
        self.dense = False  # set for compiling and export, which need shapes that do not depend on the data
        self.embed = nn.Conv2d(in_channels, width, o.hybrid_patch, o.hybrid_patch)
        self.positions = nn.Parameter(torch.randn(1, width, POSITION_GRID, POSITION_GRID) * 0.02)
        self.foreground = nn.Sequential(
            nn.Conv2d(width, max(width // 12, 4), 3, padding=1), nn.GELU(), nn.Conv2d(max(width // 12, 4), 1, 1)
        )
        self.blocks = nn.ModuleList(
            StructuredBlock(width, o.hybrid_heads, o.hybrid_mlp, o.hybrid_window) for _ in range(o.hybrid_depth)
        )
        self.final_norm = nn.LayerNorm(width)

        scales = o.hybrid_patch.bit_length() - 1  # 4 doublings from token to pixel at patch 16
        widths = [o.hybrid_features * 2**level for level in range(scales)]  # finest first: 16, 32, 64, 128
        self.image_skip = ResidualUnit(in_channels, widths[0], norm)
        # hidden states of several depths, shallow ones for fine maps; each is upsampled to its own scale
        self.taps = [o.hybrid_depth * level // scales for level in range(1, scales)]
        self.token_skips = nn.ModuleList(
            TokenUp(width, widths[level], scales - level, norm) for level in range(1, scales)
        )
        coarse = [*widths[1:], width]
        self.fuse = nn.ModuleList(Fuse(coarse[level], widths[level], norm) for level in range(scales))
        self.out_channels = out_channels
        drawn = out_channels + (1 + len(SOFTER) if self.residual else 0)
        self.output = nn.Conv2d(widths[0], drawn, 7, padding=3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Translate x; with `mask` (N, 1, H, W) in {0, 1} attention follows the true foreground (training only)."""
        states, logits = self._states(x, mask)
        image = self._decode(states)
        if self.residual:
            image, sharpness = image[:, : self.out_channels], image[:, self.out_channels :]
            image = image + torch.atanh(LOGIT_RANGE * softened(x[:, : self.out_channels].clamp(-1, 1), sharpness))
        return torch.tanh(image), logits

    def hidden(self, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """What the decoder fuses, from fine to coarse: the image's features, and token maps drawn up to finer grids."""
        return self._states(x, mask)[0]

    def _states(self, x: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """The maps that `_decode` fuses and the foreground logits."""
        check_multiple("netG hybrid", (x.shape[-2], x.shape[-1]), self.multiple)
        tokens = self.embed(x)  # (N, width, h, w)
        tokens = tokens + F.interpolate(self.positions, tokens.shape[-2:], mode="bilinear", align_corners=False)
        logits = self.foreground(tokens)  # (N, 1, h, w)
        probability = torch.sigmoid(logits) if mask is None else F.max_pool2d(mask, self.multiple)
        foreground = probability > (self.threshold if mask is None else 0.5)
        states = self._encode(tokens, foreground.flatten(1))
        skips = [up(states[tap]) for up, tap in zip(self.token_skips, self.taps, strict=True)]
        return [self.image_skip(x), *skips, states[-1]], logits

    def _encode(self, tokens: Tensor, foreground: Tensor) -> list[Tensor]:
        """Token maps (N, width, h, w) before the first block and after each block, the last one normalised."""
        n, width, h, w = tokens.shape
        x = tokens.flatten(2).transpose(1, 2)  # (N, h w, width)
        states = [x]
        for block in self.blocks:
            x = block(x, foreground, (h, w), dense=self.dense or x.device.type != "cpu")
            states.append(x)
        states[-1] = self.final_norm(x)
        return [state.transpose(1, 2).reshape(n, width, h, w) for state in states]

    def _decode(self, states: list[Tensor]) -> Tensor:
        *skips, y = states
        for level in reversed(range(len(self.fuse))):
            y = self.fuse[level](y, skips[level])
        return self.output(y)
