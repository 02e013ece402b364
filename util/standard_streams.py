"""Standard output and error that stop nothing: a full disk or a closed pipe behind them only loses their text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast


class _Lossy:
    """A text stream; from its first text that cannot be written on, everything goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """What is still in the stream's buffer goes nowhere too, or Python would complain of it at its exit."""
        with open(os.devnull, "wb") as nowhere, suppress(OSError):  # noqa: PTH123
            os.dup2(nowhere.fileno(), self._stream.fileno())


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
