"""Slice files: grey images in [0, 1] and foreground masks on disk, their names and orientation.

A plane of a RAS volume with axes (i, j), i < j, is shown with i to the right and j upwards, so anterior or superior is
on top: `image = flipud(plane.T)`.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.folder.decoding import MAX_BYTES, decode_npy, decode_png
from util.errors import UserError
from util.reading import read_bounded

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]

SLICE_SUFFIXES = (".png", ".npy")
SUBJECT_WITHOUT_NAME = "subject"
INDEX_DIGITS = 15  # at most; further digits belong to the name


def to_image(ras_plane: NDArray) -> NDArray:
    """A plane (I, J) of a RAS volume as an image (H, W) = (J, I): i to the right, j upwards."""
    return np.flipud(ras_plane.T)


def from_image(image: NDArray) -> NDArray:
    """Inverse of `to_image`: an image (H, W) as a RAS plane (W, H)."""
    return np.flipud(image).T


def clean_subject(name: str) -> str:
    """`name` with '-' for every character outside [A-Za-z0-9._-] and for a dot at the start."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return "-" + cleaned[1:] if cleaned.startswith(".") else cleaned


def slice_name(subject: str, index: int) -> str:
    """File name of slice `index` of `subject`: `SUBJECT_003.png`."""
    return f"{clean_subject(subject)}_{index:03d}.png"


def parse_name(stem: str) -> tuple[str, int]:
    """Subject and slice index of a file name without suffix: `sub_01_003` gives (`sub_01`, 3).

    Names given by hand: the underscore is optional (`case7` gives (`case`, 7)); digits alone belong to a subject named
    `subject`; a name without trailing digits is a subject with one slice, index 0.
    """
    match = re.fullmatch(rf"(.*?)_?([0-9]{{1,{INDEX_DIGITS}}})", stem)
    if match is None:
        return stem, 0
    return match[1] or SUBJECT_WITHOUT_NAME, int(match[2])


def has_subject(stem: str) -> bool:
    """Whether a file name contains a subject; digits alone do not."""
    return re.fullmatch("_?[0-9]+", stem) is None


def write_image(path: Path, image: NDArray, bits: int) -> None:
    """Write a grey PNG.

    Args:
        image: (H, W) float in [0, 1].
        bits: 8 or 16; values are stored as round(image * (2^bits - 1)).
    Raises: ValueError for another shape or depth, or values outside [0, 1] (NaN included).
    """
    if image.ndim != 2 or bits not in (8, 16):
        raise ValueError(f"{path}: shape {image.shape} and {bits} bits, need (H, W) and 8 or 16 bits")
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"{path}: values from {image.min()} to {image.max()}, need [0, 1]")
    top = 2**bits - 1
    pixels = (image * np.float32(top) + np.float32(0.5)).astype(np.uint8 if bits == 8 else np.uint16)
    write_pixels(path, pixels)


def write_pixels(path: Path, pixels: NDArray) -> None:
    """Write pixels (H, W) uint8 or uint16 unchanged: masks, class labels, quantised intensities.

    Noise hardly compresses; run-length encoding shrinks air and masks in less time than a full match search.

    Raises: ValueError for pixels of another type or shape.
    """
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: {pixels.dtype} of shape {pixels.shape}, need (H, W) of uint8 or uint16")
    Image.fromarray(pixels).save(path, "PNG", compress_level=1, compress_type=zlib.Z_RLE)


def write_mask(path: Path, mask: BoolImage) -> None:
    """Write a foreground mask (H, W) as an 8-bit PNG of 0 and 255."""
    write_pixels(path, mask.astype(np.uint8) * np.uint8(255))


def read_pixels(path: Path) -> NDArray:
    """Read pixels (H, W) as stored, integer or float, from an untrusted PNG or .npy file.

    Colour PNGs with equal channels count as grey; transparency is ignored.
    Raises: UserError naming the file: not a regular file, too large, unreadable, or not one grey plane.
    """
    suffix = path.suffix.lower()
    if suffix not in SLICE_SUFFIXES:
        raise UserError(f"{path}: slices must be {' or '.join(SLICE_SUFFIXES)} files")
    content = read_bounded(path, MAX_BYTES)
    try:
        pixels = decode_npy(content) if suffix == ".npy" else decode_png(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if pixels.ndim == 3 and pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        kind = "in colour" if pixels.shape[2] == 3 else f"of shape {pixels.shape}"
        raise UserError(f"{path}: {kind}, need one grey plane (H, W)")
    return pixels


def read_native(path: Path) -> NDArray:
    """Read a slice's pixels (H, W) in their own type: uint8, uint16, or float32 in [0, 1]. See `as_image`.

    Raises: UserError naming the file, see `read_pixels`; also for other types and for floats outside [0, 1].
    """
    pixels = read_pixels(path)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.float32)
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype.kind == "i" and pixels.min() >= 0 and pixels.max() <= 65535:  # a 16-bit PNG as read by old Pillow
        return pixels.astype(np.uint16)
    if pixels.dtype.kind != "f":
        raise UserError(f"{path}: values of type {pixels.dtype}, allowed are uint8, uint16 and floats in [0, 1]")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise UserError(f"{path}: values from {pixels.min():g} to {pixels.max():g}, floats must lie in [0, 1]")
    return pixels.astype(np.float32)


def as_image(pixels: NDArray) -> FloatImage:
    """Pixels of `read_native` as float32 in [0, 1]: integers are divided by their type's largest value."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    return pixels.astype(np.float32) * np.float32(1 / np.iinfo(pixels.dtype).max)


def read_image(path: Path) -> FloatImage:
    """Read a slice as (H, W) float32 in [0, 1].

    Integers are divided by their type's largest value (255 or 65535); floats in .npy must lie in [0, 1] already.
    Raises: UserError naming the file, see `read_native`.
    """
    return as_image(read_native(path))


def read_mask(path: Path) -> BoolImage:
    """Read a foreground mask as (H, W) bool: every value but 0 is foreground, so 0/1 and 0/255 both work.

    Raises: UserError naming the file, see `read_pixels`; also for NaN.
    """
    pixels = read_pixels(path)
    if pixels.dtype.kind == "f" and np.isnan(pixels).any():
        raise UserError(f"{path}: holds NaN, a mask needs 0 for air and another number for the head")
    return pixels != 0
