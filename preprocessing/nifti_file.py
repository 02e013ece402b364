"""Read an untrusted NIfTI file.

nibabel interprets the header (data type, scaling, matrices); this module decides what and how much is read from disk.
The header is checked against the file's size before anything is allocated, data are decompressed only up to the length
that the header gives, and extensions are skipped. Compression is detected from the content, not the name.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from util.errors import UserError
from util.reading import open_regular

MAX_VALUES = 2**26  # voxels of a volume, 512 x 512 x 256; slicing them takes less than 1 GB
MAX_OFFSET = 2**24  # bytes before the voxels: header and extensions
CHUNK = 2**18  # bytes read or decompressed at once
GZIP_MAGIC = b"\x1f\x8b"
GZIP_RATIO = 1032  # DEFLATE's largest compression ratio
SIZES = {348: Nifti1Header, 540: Nifti2Header}  # by the header size, which is its first number
MAGIC = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}  # offset and value, for header and data in one file
_HEADER_ERRORS = (HeaderDataError, ValueError, KeyError, OverflowError)


@dataclass(frozen=True)
class NiftiFile:
    """An opened and checked header. `shape` has no trailing dimensions of 1; `scale` is (slope, intercept) or None."""

    path: Path
    header: Nifti1Header
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    scale: tuple[float, float] | None

    @property
    def n_bytes(self) -> int:
        """Size of the voxels, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_nifti(path: Path, max_values: int = MAX_VALUES) -> NiftiFile:
    """Read and check the header of a .nii or .nii.gz file of either byte order, NIfTI-1 or NIfTI-2.

    Raises: UserError naming the file: not a regular file, unreadable, not NIfTI, an empty or negative dimension, more
        than `max_values` voxels, voxels that are not real numbers, a scaling that is not finite, voxels that begin
        inside the header or beyond `MAX_OFFSET`, or a file too small for its header.
    """
    try:
        with open_regular(path) as file:
            size, gzipped = os.fstat(file.fileno()).st_size, _is_gzip(file)
            start = _Stream(file, gzipped).read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as NIfTI ({type(error).__name__})") from error
    opened = _parse_header(path, start, max_values)
    most = size * GZIP_RATIO if gzipped else size
    if most < opened.offset + opened.n_bytes:
        raise UserError(
            f"{path}: truncated, its header needs {opened.offset + opened.n_bytes} bytes, "
            f"but it has {size}{' compressed' if gzipped else ''} bytes"
        )
    return opened


def read_voxels(opened: NiftiFile) -> NDArray[np.float32]:
    """The voxels in the file's own order, scaled, as float32 of `opened.shape` (first axis fastest in memory).

    Raises: UserError naming the file: truncated or damaged data, NaN or infinite values.
    """
    values = np.empty(math.prod(opened.shape), dtype=np.float32)
    done = 0
    try:
        with open_regular(opened.path) as file, np.errstate(over="ignore", invalid="ignore"):
            stream = _Stream(file, _is_gzip(file))
            stream.skip(opened.offset)
            for block in stream.blocks(opened.n_bytes):
                part = np.frombuffer(block, dtype=opened.dtype)
                target = values[done : done + part.size]
                target[:] = part if opened.scale is None else part * opened.scale[0] + opened.scale[1]
                if not np.isfinite(target).all():
                    raise UserError(f"{opened.path}: holds NaN or infinite values, need finite intensities")
                done += part.size
            stream.finish()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{opened.path}: its voxels cannot be read, the file is damaged ({type(error).__name__})"
        ) from error
    return values.reshape(opened.shape, order="F")


def _parse_header(path: Path, start: bytes, max_values: int) -> NiftiFile:
    header = _read_header(path, start)
    shape, n_dimensions = tuple(int(n) for n in header["dim"][1:]), int(header["dim"][0])
    if not 1 <= n_dimensions <= 7:
        raise UserError(f"{path}: {n_dimensions} dimensions, NIfTI has 1 to 7")
    shape = shape[:n_dimensions]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if min(shape) < 1:
        raise UserError(f"{path}: shape {shape} has an empty dimension")
    if math.prod(shape) > max_values:
        raise UserError(f"{path}: shape {shape}, {math.prod(shape)} voxels, at most {max_values} are allowed")
    try:
        dtype = header.get_data_dtype()
        slope, inter = header.get_slope_inter()
    except _HEADER_ERRORS as error:
        raise UserError(f"{path}: unusable header, {error}") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(f"{path}: voxels of type {dtype}, need real numbers of at most 64 bits")
    if math.isinf(header["scl_slope"]):  # NaN and 0 mean unscaled in NIfTI
        raise UserError(f"{path}: scl_slope {header['scl_slope']}, need a finite scaling")
    return NiftiFile(
        path, header, shape, dtype, _offset(path, header), None if slope is None else (float(slope), float(inter))
    )


def _read_header(path: Path, start: bytes) -> Nifti1Header:
    for order in ("little", "big"):
        size = int.from_bytes(start[:4], order)
        if size in SIZES and len(start) >= size:
            offset, magic = MAGIC[size]
            found = start[offset : offset + len(magic)]
            if found == magic:
                return SIZES[size](start[:size], endianness={"little": "<", "big": ">"}[order], check=False)
            if found.startswith(b"ni"):
                raise UserError(f"{path}: the header of an .hdr and .img pair, need both in one .nii file")
    raise UserError(f"{path}: cannot be read as NIfTI, it does not begin with a NIfTI header")


def _offset(path: Path, header: Nifti1Header) -> int:
    offset, smallest = float(header["vox_offset"]), int(header["sizeof_hdr"]) + 4
    if not (smallest <= offset <= MAX_OFFSET and offset.is_integer()):
        raise UserError(f"{path}: vox_offset {offset:g}, need a whole number from {smallest} to {MAX_OFFSET}")
    return int(offset)


def _is_gzip(file: BinaryIO) -> bool:
    start = file.read(len(GZIP_MAGIC))
    file.seek(0)
    return start == GZIP_MAGIC


class _Stream:
    """The bytes of a file, decompressed if necessary, and never more than requested."""

    def __init__(self, file: BinaryIO, gzipped: bool) -> None:
        self._file, self._gzipped = file, gzipped
        self._input = b""
        self._unzip, self._member_bytes = zlib.decompressobj(wbits=31), 0

    def read(self, n: int) -> bytes:
        """n bytes, or fewer at the end of the file. Raises zlib.error if the compressed data are damaged."""
        if not self._gzipped:
            return self._file.read(n)
        parts: list[bytes] = []
        while n > 0 and (part := self._decompress(min(n, CHUNK))):
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def _decompress(self, n: int) -> bytes:
        """1 to n bytes, none at the end of the file. Several gzip members are allowed, empty ones are not."""
        while True:
            if self._unzip.eof:
                if not self._member_bytes:
                    raise zlib.error("an empty member")
                self._input = self._unzip.unused_data
                self._unzip, self._member_bytes = zlib.decompressobj(wbits=31), 0
            self._input = self._input or self._file.read(CHUNK)
            at_end = not self._input
            part = self._unzip.decompress(self._input, n)
            self._input = self._unzip.unconsumed_tail
            self._member_bytes += len(part)
            if part or at_end:
                return part

    def blocks(self, n: int) -> Iterator[bytes]:
        """n bytes in blocks of CHUNK; the last block may be shorter. Raises EOFError if the file has fewer."""
        while n > 0:
            block = self.read(min(n, CHUNK))
            if len(block) < min(n, CHUNK):
                raise EOFError
            n -= len(block)
            yield block

    def skip(self, n: int) -> None:
        for _ in self.blocks(n):
            pass

    def finish(self) -> None:
        """Let zlib verify its checksum if the compressed data end here.

        Raises: EOFError, zlib.error if they are truncated or damaged.
        """
        while self._gzipped and not self._unzip.eof:
            data = self._input or self._file.read(CHUNK)
            if not data:
                raise EOFError
            if self._unzip.decompress(data, 1):
                return
            self._input = self._unzip.unconsumed_tail
