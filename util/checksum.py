"""A checksum over nested containers of tensors and plain values, which depends on the content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

SMALL = 1 << 16  # bytes; a tensor below is hashed in less time than another thread takes to begin


class TooLarge(ValueError):
    """The content expands to more than its file can hold."""


def digest(content: dict[Any, Any], most: int | None = None) -> str:
    """SHA-256 over every tensor's place, type, shape and SHA-256, and every plain value's place and `repr`.

    Args:
        most: largest number of bytes of all this, None for content made in this process. A few bytes of a file can
            describe a list that contains another one ten times, and so on.
    Raises:
        TypeError: a value is neither a dense tensor in memory nor plain, or a key is neither a string nor an integer.
        TooLarge: more than `most` bytes, or a tensor larger than its storage (`expand`).
    """
    seen = 0
    parts: list[bytes | Future[bytes]] = []
    with ThreadPoolExecutor() as pool:  # hashing is most of the work on large tensors, and releases the GIL
        for path, value in _leaves(content, ""):
            tensor = value if isinstance(value, Tensor) else None
            line = f"{path}: {repr(value) if tensor is None else _description(tensor, path)}\n".encode()
            seen += len(line) + (0 if tensor is None else tensor.nbytes)
            if most is not None and seen > most:
                raise TooLarge(f"more than {most} bytes")
            parts.append(line)
            if tensor is not None:
                small = tensor.nbytes < SMALL
                parts.append(_digest_of_bytes(tensor) if small else pool.submit(_digest_of_bytes, tensor))
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part if isinstance(part, bytes) else part.result())
    return sha.hexdigest()


def _digest_of_bytes(tensor: Tensor) -> bytes:
    whole = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(whole.numpy().data).digest()


def _description(tensor: Tensor, path: str) -> str:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        raise TypeError(f"{path} is not a dense tensor in memory")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise TooLarge(f"{path} is larger than its storage")
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Path and value of each tensor and plain value, and kind and length of each container, in their order."""
    if isinstance(value, dict | list | tuple):
        kind = "dict" if isinstance(value, dict) else type(value).__name__
        yield path, f"{kind} of {len(value)}"
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            if not isinstance(key, str | int):
                raise TypeError(f"{path} has a key of type {type(key).__name__}, need a string or an integer")
            yield from _leaves(part, f"{path}/{key!r}")
    elif value is None or isinstance(value, Tensor | bool | int | float | str):
        yield path, value
    else:
        raise TypeError(f"{path} is a {type(value).__name__}, need a tensor or a plain value")
