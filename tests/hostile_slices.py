"""Slice files as no friend would write them; each function writes one kind."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from data.folder.slices import write_pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def png(*chunks: bytes, end: bytes = chunk(b"IEND", b"")) -> bytes:
    return SIGNATURE + b"".join(chunks) + end


def pixels(side: int) -> bytes:
    """The IDAT chunk of a black 8-bit picture."""
    return chunk(b"IDAT", zlib.compress(bytes((side + 1) * side)))


def half_white(side: int) -> bytes:
    """Pixels of an 8-bit picture whose lower half is white, as IDAT holds them."""
    return (b"\0" + bytes(side)) * (side // 2) + (b"\0" + b"\xff" * side) * (side // 2)


@lru_cache
def zeros(n_bytes: int) -> bytes:
    """`n_bytes` zeros, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(2**20)) for _ in range(n_bytes // 2**20)]
    return b"".join([*parts, packer.flush()])


def npy(shape: str, *, descr: str = "'|u1'", content: bytes = b"", fortran: bool = False) -> bytes:
    """A .npy file whose header says whatever one likes."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def saved(folder: Path, name: str, array: np.ndarray, **options: object) -> bytes:
    """The bytes of an array as numpy or Pillow write it."""
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, array, **options)
    else:
        Image.fromarray(array).save(path, format=options.get("format"))
    content = path.read_bytes()
    path.unlink()
    return content


def refused(folder: Path) -> dict[str, tuple[bytes, str]]:
    """File name: its content, and a part of the reason for which it must be refused."""
    grey = (np.arange(256).reshape(16, 16) % 251).astype(np.uint8)
    write_pixels(folder / "grey.png", grey)
    good = (folder / "grey.png").read_bytes()
    (folder / "grey.png").unlink()
    colour = np.stack([grey, grey.T, grey], axis=-1)
    bad_sum = bytearray(good)
    bad_sum[-20] ^= 1
    return {
        "empty.png": (b"", "empty"),
        "truncated.png": (good[: len(good) // 2], "truncated"),
        "signature_alone.png": (SIGNATURE, "truncated"),
        "no_end.png": (good[:-12], "truncated"),
        "damaged.png": (bytes(bad_sum), "cannot be read"),
        "text.png": (b"not a picture", "another kind"),
        "jpeg.png": (saved(folder, "x.jpg", grey, format="JPEG"), "another kind"),
        "npy.png": (saved(folder, "x.npy", grey), "another kind"),
        "colour.png": (saved(folder, "x.png", colour), "in colour, need one grey plane"),
        "colour_alpha.png": (saved(folder, "x.png", np.dstack([colour, grey])), "in colour"),
        "huge.png": (png(header(60000, 60000), pixels(16)), "60000x60000 pixels, at most 4096x4096"),
        "wide.png": (png(header(2**31 - 1, 1), pixels(16)), "at most 4096x4096"),
        "no_width.png": (png(header(0, 16), pixels(16)), "cannot be read"),
        "two_headers.png": (png(header(16, 16), header(60000, 60000), pixels(16)), "header is damaged"),
        "header_later.png": (png(pixels(16), header(16, 16)), "header is damaged"),
        "long_chunk.png": (png(header(16, 16), struct.pack(">I4s", 2**32 - 1, b"IDAT")), "truncated"),
        "many_chunks.png": (png(header(16, 16), chunk(b"tEXt", b"") * 20000, pixels(16)), "more than 16384 chunks"),
        "too_few_pixels.png": (png(header(16, 16), pixels(8)), "cannot be read"),
        "empty.npy": (b"", "empty"),
        "png.npy": (good, "cannot be read"),
        "archive.npy": (b"PK\x03\x04" + bytes(100), "cannot be read"),
        "pickle.npy": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "cannot be read"),
        "objects.npy": (saved(folder, "x.npy", np.array([[{}]]), allow_pickle=True), "values of type object"),
        "truncated.npy": (saved(folder, "x.npy", grey)[:-1], "truncated"),
        "terabytes.npy": (npy("(1000000, 1000000)"), "at most 4096x4096"),
        "endless.npy": (npy("(10**9, 10**9)"), "cannot be read"),
        "overflow.npy": (npy(f"({2**62}, {2**62})"), "at most 4096x4096"),
        "negative.npy": (npy("(-4, -4)", content=bytes(16)), "need one grey plane"),
        "truths.npy": (npy("(True, True)", content=bytes(1)), "need one grey plane"),
        "nested.npy": (npy("(" * 4000 + ")" * 4000), "cannot be read"),
        "deep.npy": (npy("-" * 9000 + "1"), "cannot be read"),
        "version.npy": (b"\x93NUMPY\x09\x00" + bytes(100), "cannot be read"),
        "volume.npy": (saved(folder, "x.npy", np.zeros((4, 4, 4))), "shape (4, 4, 4), need one grey plane"),
        "line.npy": (saved(folder, "x.npy", np.zeros(4)), "need one grey plane"),
        "none.npy": (saved(folder, "x.npy", np.zeros((0, 4))), "need one grey plane"),
        "structured.npy": (saved(folder, "x.npy", np.zeros((4, 4), "f4,f4")), "structured records"),
        "complex.npy": (saved(folder, "x.npy", np.zeros((4, 4), complex)), "complex128"),
        "text.npy": (saved(folder, "x.npy", np.full((4, 4), "x")), "values of type str"),
        "dates.npy": (saved(folder, "x.npy", np.zeros((4, 4), "M8[s]")), "values of type datetime64"),
        "nan.npy": (saved(folder, "x.npy", np.full((4, 4), np.nan)), "floats must lie in [0, 1]"),
        "infinite.npy": (saved(folder, "x.npy", np.full((4, 4), np.inf)), "floats must lie in [0, 1]"),
        "negative_values.npy": (saved(folder, "x.npy", np.full((4, 4), -1)), "values of type int64"),
    }


def readable(folder: Path) -> dict[str, tuple[bytes, float]]:
    """File name: content of a slice that looks odd and is fine, and its mean in [0, 1]."""
    grey = np.full((16, 16), 51, dtype=np.uint8)
    equal = np.dstack([grey] * 3)
    palette = Image.fromarray(grey).convert("P")
    palette.save(folder / "x.png")
    in_palette = (folder / "x.png").read_bytes()
    (folder / "x.png").unlink()
    text = chunk(b"zTXt", b"Comment\0\0" + zeros(2**28))
    profile = chunk(b"iCCP", b"x\0\0" + zeros(2**28))
    return {
        "constant.png": (saved(folder, "x.png", grey), 0.2),
        "sixteen_bits.png": (saved(folder, "x.png", grey.astype(np.uint16) * 257), 0.2),
        "one_bit.png": (saved(folder, "x.png", grey > 0), 1.0),
        "rgb.png": (saved(folder, "x.png", equal), 0.2),
        "rgba.png": (saved(folder, "x.png", np.dstack([equal, grey])), 0.2),
        "palette.png": (in_palette, 0.2),
        "texts.png": (png(header(16, 16), text, profile, chunk(b"eXIf", b"?"), pixels(16)), 0.0),
        "animated.png": (png(header(16, 16), chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), pixels(16)), 0.0),
        "long.png": (png(header(16, 16), chunk(b"IDAT", zeros(2**28))), 0.0),  # the picture is over long before
        "after_the_end.png": (png(header(16, 16), pixels(16)) + b"more", 0.0),
        "fortran.npy": (saved(folder, "x.npy", np.asfortranarray(np.eye(5))), 0.2),
        "big_endian.npy": (saved(folder, "x.npy", grey.astype(">u2") * 257), 0.2),
        "half.npy": (saved(folder, "x.npy", np.full((4, 4), 0.25, np.float16)), 0.25),
        "largest.png": (png(header(4096, 4096), chunk(b"IDAT", zlib.compress(half_white(4096), 1))), 0.5),
    }
