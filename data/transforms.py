"""From a slice on disk to a network's input and back: resize, crop and flip image and mask together.

Images come out as (1, h, w) float32 in [-1, 1] with background -1, masks as (1, h, w) float32 in {0, 1}.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

PREPROCESS = ("resize", "crop", "resize_and_crop", "none")
BACKGROUND = -1.0


def _pair(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    return (
        tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image)).unsqueeze(0)),
        tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(mask)).unsqueeze(0)),
    )


def _finish(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """[0, 1] to [-1, 1], background to -1; plain tensors."""
    foreground = mask.as_subclass(Tensor).float()
    scaled = image.as_subclass(Tensor).clamp(0, 1) * 2 - 1
    return scaled * foreground + BACKGROUND * (1 - foreground), foreground


class TrainTransform:
    """What a training slice goes through; random choices are drawn from the key alone, never from a global state."""

    def __init__(self, *, preprocess: str, load_size: int, crop_size: int, flip: bool) -> None:
        steps: list[v2.Transform] = []
        if preprocess.startswith("resize"):
            steps.append(v2.Resize((load_size, load_size), antialias=True))
        if preprocess.endswith("crop"):
            fill = {tv_tensors.Image: 0.0, tv_tensors.Mask: 0}
            steps.append(v2.RandomCrop((crop_size, crop_size), pad_if_needed=True, fill=fill))
        if flip:
            steps.append(v2.RandomHorizontalFlip())
        self.steps = v2.Compose(steps or [v2.Identity()])
        self.by_chance = preprocess.endswith("crop") or flip

    def __call__(self, image: NDArray[np.float32], mask: NDArray[np.bool_], key: int) -> tuple[Tensor, Tensor]:
        """image (H, W) in [0, 1], mask (H, W) -> image (1, h, w) in [-1, 1], mask (1, h, w); same key, same result."""
        pair = _pair(image, mask)
        if self.by_chance:
            with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
                # torch.manual_seed would also queue a call for every accelerator, a third of a slice's loading time
                torch.default_generator.manual_seed(key)
                return _finish(*self.steps(*pair))
        return _finish(*self.steps(*pair))


def to_network(
    image: NDArray[np.float32], mask: NDArray[np.bool_], *, preprocess: str, load_size: int, multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Test-time counterpart of `TrainTransform`, without chance: the whole slice, resized if training resized.

    Where training only cropped, the slice keeps its size and is padded with background to `multiple`.
    """
    pair = _pair(image, mask)
    if preprocess.startswith("resize"):
        pair = (
            v2.functional.resize(pair[0], [load_size] * 2, antialias=True),
            v2.functional.resize(pair[1], [load_size] * 2),
        )
    x, foreground = _finish(*pair)
    height, width = x.shape[-2:]
    pad = (0, -width % multiple, 0, -height % multiple)
    return F.pad(x, pad, value=BACKGROUND), F.pad(foreground, pad)


def to_native(x: Tensor, shape: tuple[int, int], *, preprocess: str) -> NDArray[np.float32]:
    """Network output (1, h, w) in [-1, 1] back on the slice's own grid: (H, W) float32 in [0, 1]."""
    if preprocess.startswith("resize"):
        x = F.interpolate(x.float().unsqueeze(0), shape, mode="bicubic", align_corners=False, antialias=True)[0]
    image = (x[0, : shape[0], : shape[1]].float() + 1) / 2
    return image.clamp(0, 1).cpu().numpy()
