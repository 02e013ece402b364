"""SGP: one vision transformer a domain, trained so that slices of the same anatomy lie together (method, section 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.transforms.v2 import functional as TF

from util.errors import UserError
from util.schema import flag

FIRST_TEMPERATURE = 0.07  # CLIP (Radford et al. 2021); published for SGP too


@dataclass(frozen=True)
class SGPSizes:
    """Sizes of the slice encoders; the defaults are the published ones (facts.md section 5)."""

    sgp_input: int = flag(120, "slices are resized to this side", group="SGP", low=32)
    sgp_patch: int = flag(16, "patch side; the input is cropped to a multiple of it", group="SGP", low=4)
    sgp_width: int = flag(256, "token width", group="SGP", low=16)
    sgp_depth: int = flag(6, "transformer layers", group="SGP", low=1)
    sgp_heads: int = flag(4, "attention heads; divides the width", group="SGP", low=1)
    sgp_embedding: int = flag(512, "embedding length", group="SGP", low=8)


class SGPNetwork(nn.Module):
    """E_A, E_B and the learnable log temperature t.

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
        self.encoders = nn.ModuleDict({"A": _encoder(sizes, self.crop), "B": _encoder(sizes, self.crop)})
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE)))

    def forward(self, images: Tensor, domain: str, generator: torch.Generator | None = None) -> Tensor:
        """Embed slices of `domain` 'A' or 'B'; with a `generator` the crop is random, the same for the whole batch."""
        x = F.interpolate(images, (self.input, self.input), mode="bilinear", align_corners=False, antialias=True)
        room = self.input - self.crop
        if generator is None:
            top = left = room // 2
        else:
            top, left = torch.randint(0, room + 1, (2,), generator=generator).tolist()
        x = TF.crop(x, top, left, self.crop, self.crop)
        return F.normalize(self.encoders[domain](x), dim=1)


def _encoder(sizes: SGPSizes, side: int) -> VisionTransformer:
    """torchvision's ViT for one grey channel; its class-token head is the embedding."""
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
    nn.init.normal_(vit.heads.head.weight, std=sizes.sgp_width**-0.5)  # torchvision starts heads at zero: no gradient
    return vit
