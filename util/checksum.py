"""A checksum over nested containers of tensors and plain values: the same content gives the same one in any file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class TooLarge(ValueError):
    """The content unfolds into more than its file can honestly hold."""


def digest(content: dict[Any, Any], most: int | None = None) -> str:
    """SHA-256 over every tensor's place, type, shape and SHA-256, and every plain value's place and `repr`.

    Args:
        most: bytes that all of that may come to. A few bytes of a file can say that one list holds another ten times,
            and so on, or that one number is a million; None: what was made in this process does not.
    Raises:
        TypeError: a value is neither a tensor of numbers in memory nor plain, or a key neither text nor whole number.
        TooLarge: it is more than `most`, or a tensor larger than its memory (`expand`).
    """
    seen = 0
    parts: list[tuple[bytes, Future[bytes] | None]] = []
    with ThreadPoolExecutor() as pool:  # hashing is most of the work, and leaves Python's lock to others
        for place, value in _leaves(content, ""):
            tensor = value if isinstance(value, Tensor) else None
            line = f"{place}: {repr(value) if tensor is None else _described(tensor, place)}\n".encode()
            seen += len(line) + (0 if tensor is None else tensor.nbytes)
            if most is not None and seen > most:
                raise TooLarge(f"more than {most} bytes")
            parts.append((line, None if tensor is None else pool.submit(_digest_of_bytes, tensor)))
    sha = hashlib.sha256()
    for line, of_tensor in parts:
        sha.update(line)
        if of_tensor is not None:
            sha.update(of_tensor.result())
    return sha.hexdigest()


def _digest_of_bytes(tensor: Tensor) -> bytes:
    whole = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(whole.numpy().data).digest()


def _described(tensor: Tensor, place: str) -> str:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        raise TypeError(f"{place} is a tensor of another kind than numbers in memory")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise TooLarge(f"{place} repeats the same numbers")
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Tensors and plain values with their places, containers' kinds and lengths, in their own order."""
    if isinstance(value, dict | list | tuple):
        kind = "dict" if isinstance(value, dict) else type(value).__name__
        yield place, f"{kind} of {len(value)}"
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            if not isinstance(key, str | int):
                raise TypeError(f"{place} has a key that is a {type(key).__name__}, neither text nor whole number")
            yield from _leaves(part, f"{place}/{key!r}")
    elif value is None or isinstance(value, Tensor | bool | int | float | str):
        yield place, value
    else:
        raise TypeError(f"{place} is a {type(value).__name__}, neither a tensor nor a plain value")
