"""SGP: one vision transformer per domain; slices of the same anatomy embed alike (docs/method.md section 1)."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.sgp_options import SGPSizes
from util.errors import UserError

if TYPE_CHECKING:
    from torchvision.models import VisionTransformer

# largest shift (8 % of the field of view), rotation (about 9 degrees), scaling (10 %) and gain (20 %) of random views
VIEW_SHIFT, VIEW_TURN_RAD, VIEW_ZOOM, VIEW_GAIN = 0.16, 0.15, 0.1, 0.2
VIEW_DRAWS = 5  # random numbers per view
FIRST_TEMPERATURE = 0.07  # initial temperature, as in CLIP (Radford et al. 2021); published for SGP too


class SGPNetwork(nn.Module):
    """E_A, E_B and the learnable log scale t.

    Slices (N, 1, H, W) in [-1, 1] of any size -> unit vectors (N, embedding). At the published sizes 120 px are cropped
    to 112, seven patches of 16: at random in training, in the centre otherwise.
    """

    def __init__(self, sizes: SGPSizes) -> None:
        super().__init__()
        if sizes.sgp_patch > sizes.sgp_input:
            raise UserError(f"--sgp_patch {sizes.sgp_patch} is larger than --sgp_input {sizes.sgp_input}")
        if sizes.sgp_width % sizes.sgp_heads:
            raise UserError(f"--sgp_width {sizes.sgp_width} is not divisible by --sgp_heads {sizes.sgp_heads}")
        self.input = sizes.sgp_input
        self.crop = sizes.sgp_input // sizes.sgp_patch * sizes.sgp_patch
        low = _encoder(sizes, self.crop)
        # both start from the same weights, so that slices that look alike lie together from the first step
        self.encoders = nn.ModuleDict({"A": low, "B": copy.deepcopy(low)})
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE)))

    def forward(self, images: Tensor, domain: str, corners: Tensor | None = None) -> Tensor:
        """Embed slices of `domain` 'A' or 'B'. `corners`, (N, 2) in [0, 1) on the CPU, place the crop; None: centre."""
        x = F.interpolate(images, (self.input, self.input), mode="bilinear", align_corners=False, antialias=True)
        room = self.input - self.crop
        if corners is None:
            x = self._cut(x, room // 2, room // 2)
        elif room:
            places = (corners * (room + 1)).long().tolist()
            x = torch.stack([self._cut(y, *place) for y, place in zip(x, places, strict=True)])
        return F.normalize(self.encoders[domain](x + 1), dim=1)  # background becomes 0, so empty patches embed as 0

    def _cut(self, x: Tensor, top: int, left: int) -> Tensor:
        return x[..., top : top + self.crop, left : left + self.crop]


def random_views(images: Tensor, draws: Tensor) -> Tensor:
    """Shift, rotate, scale and brighten every slice at random: the random views of docs/method.md section 1.

    Without them the encoders memorise the few training heads. (N, 1, H, W) in [-1, 1] to the same shape; pixels from
    outside the image are background, and brightening may leave the range. `draws`: (N, VIEW_DRAWS) in [0, 1).
    """
    n = len(images)
    x_shift, y_shift, angle, growth, brightness = draws.T * 2 - 1
    turn, zoom = VIEW_TURN_RAD * angle, 1 + VIEW_ZOOM * growth
    affine = (
        torch.stack([zoom * turn.cos(), -zoom * turn.sin(), VIEW_SHIFT * x_shift], 1),
        torch.stack([zoom * turn.sin(), zoom * turn.cos(), VIEW_SHIFT * y_shift], 1),
    )
    grid = F.affine_grid(torch.stack(affine, 1), list(images.shape), align_corners=False).to(images, non_blocking=True)
    gain = (1 + VIEW_GAIN * brightness).view(n, 1, 1, 1).to(images, non_blocking=True)
    return F.grid_sample(images + 1, grid, align_corners=False) * gain - 1


def _encoder(sizes: SGPSizes, side: int) -> VisionTransformer:
    """torchvision's ViT for one grey channel; the head of its class token gives the embedding."""
    from torchvision.models import VisionTransformer  # late: the import is slow, and wrong options are reported before

    vit = VisionTransformer(
        image_size=side,
        patch_size=sizes.sgp_patch,
        num_layers=sizes.sgp_depth,
        num_heads=sizes.sgp_heads,
        hidden_dim=sizes.sgp_width,
        mlp_dim=4 * sizes.sgp_width,
        num_classes=sizes.sgp_embedding,
    )
    vit.conv_proj = nn.Conv2d(1, sizes.sgp_width, sizes.sgp_patch, sizes.sgp_patch)
    nn.init.trunc_normal_(vit.conv_proj.weight, std=1 / sizes.sgp_patch)
    nn.init.zeros_(vit.conv_proj.bias)
    # torchvision initialises the head with zeros, so no gradient passes it, and positions too weakly to be told apart
    for weight in (vit.heads.head.weight, vit.encoder.pos_embedding, vit.class_token):
        nn.init.normal_(weight, std=sizes.sgp_width**-0.5)
    return vit
