"""Mutations of valid files for `fuzz.py`: of bytes, and of the fields, chunks and members of each format."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import nibabel
import numpy as np
import torch

from util.checkpoint import seal, unseal

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
WHOLE = (0, 1, 2, 3, 255, 256, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 3e38, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    ".",
    "..",
    "../../x",
    "/etc/passwd",
    "os.system",
    "a\nb",
    "\x00",
    "<script>",
    "x" * 100_000,
    "None",
    "1e999",
)
JSON_VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"__reduce__": ["os.system", "true"]}, *TEXTS, *FLOATS)


def mutate(kind: str, content: bytes, rng: random.Random) -> bytes:
    """`content`, a valid file of this kind, after one to three mutations."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        try:
            content = rng.choice((*AWARE[kind], *AWARE[kind], _blind))(content, rng)
        except Exception:  # an earlier mutation destroyed the format
            content = _blind(content, rng)
    return content


def _blind(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, or cut, duplicate, zero or insert bytes, or write numbers that often cause errors."""
    data = bytearray(content or b"\0")
    start = rng.randrange(len(data))
    length = rng.choice((1, 2, 4, 8, 64, rng.randrange(len(data)) + 1))
    match rng.randrange(7):
        case 0:
            for _ in range(rng.randrange(1, 17)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[start:]
        case 2:
            del data[start : start + length]
        case 3:
            data[start:start] = data[start : start + length]
        case 4:
            data[start : start + length] = bytes(len(data[start : start + length]))
        case 5:
            order, (letter, size) = rng.choice("<>"), rng.choice((("H", 2), ("I", 4), ("Q", 8)))
            data[start : start + size] = struct.pack(order + letter, rng.choice(WHOLE) % 2 ** (8 * size))
        case _:
            data[start:start] = rng.randbytes(length)
    return bytes(data)


def _json(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove or nest a value at any depth, or copy another value of the file to it."""
    tree = json.loads(content)
    owner, key = rng.choice(list(_places(tree)))
    match rng.randrange(5):
        case 0:
            del owner[key]
        case 1:
            owner[key] = rng.choice(JSON_VALUES)
        case 2:
            owner[key] = rng.choice(WHOLE) * rng.choice((1, -1, 2**200))
        case 3:
            other, name = rng.choice(list(_places(tree)))
            owner[key] = json.loads(json.dumps(other[name]))
        case _:
            deep = rng.choice((5, 500, 100_000))
            return json.dumps(tree).encode().replace(b"null", b"[" * deep + b"]" * deep, 1)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Any:
    """Every (container, key) of a JSON tree."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _nifti_field(content: bytes, rng: random.Random) -> bytes:
    """Set one to three header fields of a file, compressed or not, to other numbers."""
    zipped = content[:2] == b"\x1f\x8b"
    plain = gzip.decompress(content) if zipped else content
    header = nibabel.Nifti1Header(plain[:348], check=False)
    for _ in range(rng.randrange(1, 4)):
        field = header.structarr[rng.choice(list(header.keys()))].reshape(-1)
        if field.dtype.kind in "iu":  # any bits, the sign included
            size = field.dtype.itemsize
            bits = (rng.choice((*WHOLE, -1, -2)) % 2 ** (8 * size)).to_bytes(size, "little")
            value = np.frombuffer(bits, f"<{field.dtype.kind}{size}")[0]
        else:
            value = rng.choice(FLOATS) if field.dtype.kind == "f" else rng.randbytes(4)
        field[rng.randrange(field.size)] = value
    changed = header.binaryblock + plain[348:]
    return gzip.compress(changed, 1, mtime=0) if zipped else changed


def _nifti_gzip(content: bytes, rng: random.Random) -> bytes:
    """Change the compression: none, several members, trailing bytes, a truncated end, or far more data."""
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    cut = rng.randrange(len(plain) + 1)
    shapes: tuple[Callable[[], bytes], ...] = (
        lambda: plain,
        lambda: gzip.compress(plain, 1, mtime=0) + rng.randbytes(rng.randrange(20)),
        lambda: gzip.compress(plain[:cut], 1, mtime=0) + gzip.compress(plain[cut:], 1, mtime=0),
        lambda: gzip.compress(plain, 1, mtime=0)[: -rng.randrange(1, 12)],
        lambda: gzip.compress(plain[:352] + bytes(2**24), 9, mtime=0),
    )
    return rng.choice(shapes)()


def _png_chunk(content: bytes, rng: random.Random) -> bytes:
    """Change, drop, duplicate or rename a chunk, with correct checksums."""
    chunks, start = [], len(PNG_SIGNATURE)
    while start < len(content):
        (length,) = struct.unpack_from(">I", content, start)
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + length]))
        start += length + 12
    which = rng.randrange(len(chunks))
    name, data = chunks[which]
    match rng.randrange(6):
        case 0:
            chunks[which] = (name, _blind(data, rng))
        case 1:
            chunks[which] = (name, zlib.compress(_blind(zlib.decompress(data), rng)))
        case 2:
            del chunks[which]
        case 3:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks[which])
        case 4:
            chunks[which] = (rng.choice((b"tEXt", b"zTXt", b"iCCP", b"tRNS", b"PLTE", b"acTL", b"eXIf")), data)
        case _:
            size = struct.pack(">II", rng.choice(WHOLE) % 2**32, rng.choice(WHOLE) % 2**32)
            chunks[0] = (b"IHDR", size + bytes(rng.choice((0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(5)))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _npy_header(content: bytes, rng: random.Random) -> bytes:
    """Change type, shape or order in the header, with the correct length."""
    start, end = 10, 10 + struct.unpack_from("<H", content, 8)[0]
    header = {"descr": "<f4", "fortran_order": False, "shape": (16, 12)}
    name = rng.choice(list(header))
    types = ("|O", "<c16", "<f8", ">i2", "<U100000", "|V8", "<M8[s]", [("a", "<f4")], "|S0", "<f16")
    shapes = ((), (0,), (2**40,), (2**31, 2**31), (-1, 4), (16, 12, 3), (16, 12, 1, 1), ("x",), (1e3,), (True, True))
    header[name] = rng.choice({"descr": types, "shape": shapes, "fortran_order": (True, 1, None, "x")}[name])
    text = repr(header).encode() + b" " * 8 + b"\n"
    return content[:8] + struct.pack("<H", len(text)) + text + content[end:] if start < end else content


def _zip_member(content: bytes, rng: random.Random) -> bytes:
    """Change, drop, duplicate or rename a member of a checkpoint, with correct checksums of the archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    which = rng.randrange(len(members))
    name, data = members[which]
    match rng.randrange(5):
        case 0:
            del members[which]
        case 1:
            members.append((name, _blind(data, rng)))
        case 2:
            members[which] = (
                rng.choice(("../../x", "/x", "archive/data.pkl", "x" * 60_000, "archive/code/a.py")),
                data,
            )
        case _:
            members[which] = (name, _blind(data, rng))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, archive.compression)  # ZipInfo: without the current time
    return file.getvalue()


def _resealed(content: bytes, rng: random.Random) -> bytes:
    """Replace a value or tensor of a checkpoint with a correct checksum: only its meaning shows the damage."""
    tree = torch.load(io.BytesIO(content), weights_only=True)
    owner, key = rng.choice(list(_places(tree)))
    tensors = (torch.zeros(()), torch.full((2, 3), float("nan")), torch.ones(3, dtype=torch.int64), torch.zeros(0))
    owner[key] = rng.choice((*JSON_VALUES, *WHOLE, *tensors))
    file = io.BytesIO()
    torch.save(seal(unseal(tree)), file)
    return file.getvalue()


def _safetensors_header(content: bytes, rng: random.Random) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    header = _json(content[8 : 8 + length], rng)
    written = len(header) if rng.random() < 0.9 else rng.choice(WHOLE)
    return struct.pack("<Q", written) + header + content[8 + length :]


Mutation = Callable[[bytes, random.Random], bytes]
AWARE: dict[str, tuple[Mutation, ...]] = {
    "png": (_png_chunk,),
    "npy": (_npy_header,),
    "nifti": (_nifti_field, _nifti_gzip),
    "manifest": (_json,),
    "options": (_json,),
    "checkpoint": (_zip_member, _resealed),
    "safetensors": (_safetensors_header,),
}
