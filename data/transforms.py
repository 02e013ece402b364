"""Stored slices to network input and back: images and masks are resized, cropped and flipped.

The input is (N, 1, h, w) float32 in [-1, 1] with background -1, the mask (N, 1, h, w) float32 in {0, 1}, on the device
of the slices. All randomness derives from each item's key and depends on neither the batch nor the device.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from data.raw_batch import RawGroup
from data.unaligned_options import PAD, crops, resizes

BACKGROUND = -1.0
TOP, LEFT, FLIP = range(3)  # columns of `RawGroup.crops`
BIT_WEIGHTS = (128, 64, 32, 16, 8, 4, 2, 1)  # bit order of `np.packbits`
HALF = 0.4999  # a half less what rounding may take from it, so that all pixels of which a half is covered are alike


def hashed_uniform(keys: NDArray[np.int64], stream: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each key; streams are independent of each other (splitmix64, Steele et al. 2014)."""
    x = keys.astype(np.uint64) + np.uint64((stream + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class TrainTransform:
    """Resize, random crop and random flip of training slices."""

    def __init__(self, *, preprocess: str, load_size: int, crop_size: int, flip: bool) -> None:
        self.load_size = load_size if resizes(preprocess) else None
        self.crop_size = crop_size if crops(preprocess) else None
        self.pad = preprocess == PAD
        self.flip = flip

    def draw_crops(self, keys: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
        """Random crop offsets and flips of slices of `shape`: (N, 3) int64 top, left, flip.

        Slices of the same key and size get the same; of other sizes, the same fractions of the room that there is.
        """
        crops = np.zeros((len(keys), 3), dtype=np.int64)
        height, width = self._size_before_crop(shape)
        for column, side in ((TOP, height), (LEFT, width)):
            if self.crop_size is not None:
                choices = _padded(side, self.crop_size) - self.crop_size + 1
                crops[:, column] = (hashed_uniform(keys, column) * choices).astype(np.int64)
        if self.flip:
            crops[:, FLIP] = hashed_uniform(keys, FLIP) < 0.5
        return crops

    def _size_before_crop(self, shape: tuple[int, int]) -> tuple[int, int]:
        return shape if self.load_size is None else (self.load_size, self.load_size)

    def __call__(self, group: RawGroup) -> tuple[Tensor, Tensor]:
        """Image and mask, (n, 1, h, w), of slices of one size."""
        image, mask = as_float(group.pixels).unsqueeze(1), _unpack(group.bits, group.pixels.shape).unsqueeze(1)
        if self.load_size is not None:
            image, mask = _resize(image, mask, self.load_size, pad=self.pad)
        if self.crop_size is not None or self.flip:
            image, mask = (self._crop(x, group.crops) for x in (image, mask))
        return _to_input_range(image, mask)

    def _crop(self, x: Tensor, crops: Tensor) -> Tensor:
        """Crop, padding with 0 where necessary, then flip: (n, 1, H, W) to (n, 1, h, w)."""
        height, width = x.shape[-2:]
        out_height, out_width = (height, width) if self.crop_size is None else (self.crop_size, self.crop_size)
        y_pad, x_pad = max(0, out_height - height), max(0, out_width - width)
        x = F.pad(x, (x_pad, x_pad, y_pad, y_pad))
        rows = crops[:, TOP, None] + torch.arange(out_height, device=x.device)
        columns = torch.arange(out_width, device=x.device).expand(len(x), -1)
        columns = crops[:, LEFT, None] + torch.where(crops[:, FLIP, None] > 0, columns.flip(1), columns)
        items = torch.arange(len(x), device=x.device)
        return x[items[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def _padded(side: int, crop: int) -> int:
    """A side's length once the missing pixels are padded at both ends."""
    return side + 2 * max(0, crop - side)


def as_float(pixels: Tensor) -> Tensor:
    """`as_image` for tensors: uint8, int16 (the bits of uint16) or float32 to float32 in [0, 1]."""
    if pixels.dtype == torch.uint8:
        return pixels.float() * np.float32(1 / 255).item()
    if pixels.dtype == torch.int16:
        return (pixels.int() & 0xFFFF).float() * np.float32(1 / 65535).item()
    return pixels


def _unpack(bits: Tensor, shape: torch.Size) -> Tensor:
    """Masks (n, H, W) float32 from packed bits (n, ceil(H W / 8)) uint8."""
    weights = torch.tensor(BIT_WEIGHTS, dtype=torch.uint8, device=bits.device)
    pixels = (bits.unsqueeze(-1) & weights).ne(0).flatten(1)
    return pixels[:, : shape[1] * shape[2]].reshape(shape).float()


def _square_padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels to add at the left, right, top and bottom of a slice to make it square, with the slice in the middle."""
    across, up = max(0, height - width), max(0, width - height)
    return across // 2, across - across // 2, up // 2, up - up // 2


def _resize(image: Tensor, mask: Tensor, side: int, *, pad: bool = False) -> tuple[Tensor, Tensor]:
    """Both resized to (n, 1, side, side), bilinear with antialiasing; the mask is 1 where it covers half of a pixel.

    Picking the nearest pixel instead would shift masks against their images, by up to half a pixel.

    Args: pad: make squares of them first. Where a pixel shows the slice in part and padding in part, only the slice
        counts.
    """
    padding = _square_padding(*image.shape[-2:]) if pad else (0, 0, 0, 0)
    if not any(padding):
        if image.shape[-2:] == (side, side):
            return image, mask
        resized, covered = (_interpolated(x, (side, side)) for x in (image, mask))
        return resized, (covered > HALF).float()
    resized = _interpolated(F.pad(image, padding, mode="replicate"), (side, side))
    covered = _interpolated(F.pad(mask, padding), (side, side))
    return resized, (covered > HALF * _shown(mask, padding, side)).float()


def _interpolated(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    return F.interpolate(x, size, mode=mode, align_corners=False, antialias=True)


def _shown(like: Tensor, padding: tuple[int, int, int, int], side: int) -> Tensor:
    """How much of each pixel (1, 1, side, side) shows a slice, from 0 to 1, the rest being padding."""
    slice_ = torch.ones(1, 1, *like.shape[-2:], device=like.device)
    return _interpolated(F.pad(slice_, padding), (side, side))


def _to_input_range(image: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
    """Map [0, 1] to [-1, 1] and the background to -1."""
    scaled = image.clamp(0, 1).mul_(2).sub_(1)
    return scaled.masked_fill_(foreground == 0, BACKGROUND), foreground


def to_network(
    image: NDArray[np.float32], mask: NDArray[np.bool_], *, preprocess: str, load_size: int, multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Deterministic counterpart of `TrainTransform` for testing: whole slices, padded and resized if training did so.

    If training only cropped, slices keep their size. Then background is added at the right and at the bottom, up to
    sides that are multiples of `multiple`.

    Args: image, mask: (H, W) or (N, H, W), the image in [0, 1].
    Returns: image and mask, (1, h, w) or (N, 1, h, w).
    """
    pair = (torch.from_numpy(np.ascontiguousarray(x)).unsqueeze(-3).float() for x in (image, mask))
    x, foreground = (tensor if tensor.ndim == 4 else tensor.unsqueeze(0) for tensor in pair)
    if resizes(preprocess):
        x, foreground = _resize(x, foreground, load_size, pad=preprocess == PAD)
    x, foreground = _to_input_range(x, foreground)
    height, width = x.shape[-2:]
    pad = (0, -width % multiple, 0, -height % multiple)
    x, foreground = F.pad(x, pad, value=BACKGROUND), F.pad(foreground, pad)
    return (x[0], foreground[0]) if image.ndim == 2 else (x, foreground)


def to_native(x: Tensor, shape: tuple[int, int], *, preprocess: str, load_size: int) -> NDArray[np.float32]:
    """The inverse of `to_network`: network output (1, h, w) in [-1, 1] on the slice's grid, (H, W) float32 in [0, 1].

    The padding is cut off before the rest is resized: it is no part of the slice.
    """
    height, width = (load_size, load_size) if resizes(preprocess) else shape
    image = (x[None, :, :height, :width].float() + 1) / 2  # background is 0, which resizing leaves exactly as it is
    padding = _square_padding(*shape) if preprocess == PAD else (0, 0, 0, 0)
    left, right, top, bottom = padding
    padded = shape[0] + top + bottom, shape[1] + left + right
    if (height, width) != padded:
        if any(padding):  # what lies in the padding must not darken the slice's border
            shown = _shown(image.new_empty(shape), padding, height)
            image = _interpolated(image * shown, padded, "bicubic") / _interpolated(shown, padded, "bicubic").clamp(0.1)
        else:
            image = _interpolated(image, padded, "bicubic")
    image = image[0, 0, top : top + shape[0], left : left + shape[1]]
    return image.clamp(0, 1).cpu().numpy()
