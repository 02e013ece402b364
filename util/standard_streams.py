"""Standard output and error that never raise: with a full disk or a closed pipe, only their text is lost.

What the terminal's encoding lacks, as a file name that is not UTF-8, is written as an escape.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast


class _Lossy:
    """A text stream that discards everything after the first failed write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            try:
                return self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError:
            self._discard()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        """Redirect the stream to nowhere with its buffer, which Python would otherwise fail to flush at exit."""
        with open(os.devnull, "wb") as devnull, suppress(OSError):  # noqa: PTH123
            os.dup2(devnull.fileno(), self._stream.fileno())


@contextmanager
def lossy_streams() -> Iterator[None]:
    """Within the block sys.stdout and sys.stderr raise no OSError."""
    out, err = cast(TextIO, _Lossy(sys.stdout)), cast(TextIO, _Lossy(sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
