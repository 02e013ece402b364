"""Decode untrusted PNG and .npy files; sizes are checked before anything is decoded.

Only the critical chunks of a PNG (PNG specification) reach the decoder; texts, colour profiles, animations and
transparency are dropped unread. Only arrays of numbers are read from .npy files.
"""

from __future__ import annotations

import io
import math
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_SIDE = 4096  # pixels; larger slices are refused before decoding
MAX_BYTES = 4 * MAX_SIDE**2 + 2**20  # a float32 slice of that size, and its header
MAX_CHUNKS = 2**14  # a PNG of MAX_BYTES has about 8000 chunks of the usual size

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def decode_png(content: bytes) -> NDArray:
    """Pixels as stored: (H, W), or (H, W, 3) in colour.

    Raises: ValueError with the reason if the content is not a PNG of allowed size.
    """
    picture = _picture_chunks(content)
    width, height = struct.unpack_from(">II", picture, len(PNG_SIGNATURE) + 8)
    _check_size((height, width))
    try:
        with Image.open(io.BytesIO(picture), formats=("PNG",)) as image:
            if image.mode in ("1", "LA"):
                return np.asarray(image.convert("L"))
            if image.mode in ("P", "PA", "RGBA"):
                return np.asarray(image.convert("RGB"))
            return np.asarray(image)
    except Exception as error:  # any exception of the decoder means a bad file
        raise ValueError(f"cannot be read as a PNG ({type(error).__name__})") from error


def _picture_chunks(content: bytes) -> bytes:
    """The PNG without its ancillary chunks. Raises ValueError if it is no PNG or truncated."""
    if not content.startswith(PNG_SIGNATURE):
        reason = "it is another kind of file" if content else "the file is empty"
        raise ValueError(f"cannot be read as a PNG, {reason}")
    start = len(PNG_SIGNATURE)
    chunks: list[tuple[bytes, int, int]] = []  # name, first byte, byte after the last one
    while not chunks or chunks[-1][0] != b"IEND":
        if len(chunks) == MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        length, name = struct.unpack_from(">I4s", content, start) if start + 8 <= len(content) else (0, b"")
        end = start + 12 + length  # length, name, content, checksum
        if not name or end > len(content):
            raise ValueError("cannot be read as a PNG, it is truncated")
        chunks.append((name, start, end))
        start = end
    names = [name for name, _, _ in chunks]
    if names[0] != b"IHDR" or names.count(b"IHDR") != 1 or chunks[0][2] - chunks[0][1] != 12 + 13:
        raise ValueError("cannot be read as a PNG, its header is damaged")
    if all(name in PICTURE_CHUNKS for name in names):
        return content
    return PNG_SIGNATURE + b"".join(content[first:last] for name, first, last in chunks if name in PICTURE_CHUNKS)


def decode_npy(content: bytes) -> NDArray:
    """The array of a .npy file: booleans, integers or floats of shape (H, W) or (H, W, 3).

    Raises: ValueError with the reason if the content is not such an array of allowed size.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](file)
    except Exception as error:  # any exception of the parser means a bad file
        why = f"{type(error).__name__} in its header" if content else "the file is empty"
        raise ValueError(f"cannot be read as a .npy array, {why}") from error
    if dtype.kind not in "biuf":
        kind = "structured records" if dtype.names else dtype.name
        raise ValueError(f"values of type {kind}, allowed are uint8, uint16 and floats in [0, 1]")
    if len(shape) not in (2, 3) or not all(type(n) is int and n > 0 for n in shape):  # numpy accepts (True, True)
        raise ValueError(f"shape {shape}, need one grey plane (H, W)")
    _check_size(shape)
    count = math.prod(shape)
    if len(content) - file.tell() < count * dtype.itemsize:
        raise ValueError(f"cannot be read, it is truncated: shape {shape} needs {count * dtype.itemsize} bytes")
    values = np.frombuffer(content, dtype, count, file.tell()).reshape(shape, order="F" if fortran else "C")
    return values.astype(dtype.newbyteorder("="), copy=False)


def _check_size(shape: tuple[int, ...]) -> None:
    if max(shape) > MAX_SIDE:
        raise ValueError(f"{shape[0]}x{shape[1]} pixels, at most {MAX_SIDE}x{MAX_SIDE} are allowed")
