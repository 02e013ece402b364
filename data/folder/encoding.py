"""Pixel values as the bytes of a PNG (PNG specification, third edition): the one filter and the one strategy that pay.

An encoder that tries five filters on every line takes four times as long, for files of noise that are 1 % smaller.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from data.folder.decoding import PNG_SIGNATURE

UP = 2  # filter: what differs from the line above; masks become zeros, smooth slices small numbers
GREY = 0  # colour type


def encode_png(pixels: NDArray) -> bytes:
    """(H, W) uint8 or uint16 as a grey PNG of 8 or 16 bits. Raises ValueError for anything else."""
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16) or not pixels.size:
        raise ValueError(f"{pixels.dtype} of shape {pixels.shape}, need (H, W) of uint8 or uint16")
    height, width = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    lines = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8)  # (H, bytes)
    filtered = np.empty((height, 1 + lines.shape[1]), dtype=np.uint8)
    filtered[:, 0] = UP
    filtered[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    # noise hardly compresses: run lengths keep air and masks small in half the time that searching for repeats takes
    squeeze = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    content = squeeze.compress(filtered.data) + squeeze.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, GREY, 0, 0, 0)
    return PNG_SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
