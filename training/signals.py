"""Signals that end a run well: the step is finished, the state saved, and the status says which signal it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # a scheduler's, Ctrl-C, a scheduler's early warning

COPY_SECONDS = 10.0


class Stopped(Exception):
    """A signal asked training to stop; its state is saved."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name}")
        self.status = 128 + number  # as a shell shows a process that the signal killed


class StopRequest:
    """The signal that asked for a stop, once one has."""

    signal: signal.Signals | None = None


@contextmanager
def stop_on_signals(*, copied: bool = False, told: bool = True) -> Iterator[StopRequest]:
    """Within the block the first of `SIGNALS` is noted; the second kills the process at once. Main thread only.

    Args:
        copied: torchrun passes on to its processes a signal that a terminal or a scheduler has sent them too; what
            comes within `COPY_SECONDS` of the first is then its copy.
        told: say on stderr what the first signal does.
    """
    request = StopRequest()
    first = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if request.signal is not None:
            if time.monotonic() - first >= COPY_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        request.signal, first = signal.Signals(number), time.monotonic()
        if not copied:
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
        text = f"{request.signal.name}: saving after this step; a second signal ends at once, without saving\n"
        if told:
            with suppress(OSError):  # straight to the terminal: the signal may have interrupted a print
                os.write(2, text.encode())

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_in_worker(worker: int) -> None:
    """`worker_init_fn` of a DataLoader: Ctrl-C and schedulers signal the workers too, which the last step still needs.

    They end with the training process, however it ends.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
