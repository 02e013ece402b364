"""Files of torch.save: write with the true OSError of a full disk; read within bounds and without executing code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from util.files import Writer
from util.reading import open_regular


def torch_writer(content: Any) -> Writer:
    """A function that saves `content` with torch, and raises the OSError that torch reports as a bad archive."""

    def write(file: BinaryIO) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    return write


def read_torch(path: Path) -> tuple[Any, int]:
    """Tensors and plain values in a file of torch.save, on the CPU, and the file's size in bytes.

    torch never compresses, so an archive that claims more than its file's size is an attack on the memory.

    Raises:
        Exception: torch raises many kinds for other files; all mean that the file cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise zipfile.BadZipFile("compressed")
        if sum(member.file_size for member in members) > size:
            raise zipfile.BadZipFile("members that overlap")
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True), size
