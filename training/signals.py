"""Signals that end a run in order: the step is finished, the state saved, and the exit status names the signal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # from a scheduler, from Ctrl-C, a scheduler's early warning

COPY_SECONDS = 10.0  # signals within this time of the first are copies that torchrun passes on


class Stopped(Exception):
    """A signal asked training to stop; its state is saved."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name}")
        self.status = 128 + number  # the status a shell reports for a process killed by the signal


class StopRequest:
    """The signal that asked for a stop; None until one arrives."""

    signal: signal.Signals | None = None


@contextmanager
def stop_on_signals(*, copied: bool = False, announce: bool = True) -> Iterator[StopRequest]:
    """Within the block, record the first of `SIGNALS`; a second kills the process at once. Main thread only.

    Args:
        copied: ignore signals within `COPY_SECONDS` of the first. torchrun passes a signal on to processes that may
            have received it already from the terminal or the scheduler.
        announce: say on stderr what the first signal does.
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
        if announce:
            with suppress(OSError):  # written directly: the signal may have interrupted a print
                os.write(2, text.encode())

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_in_worker(worker: int) -> None:
    """`worker_init_fn` of a DataLoader: ignore `SIGNALS`, which Ctrl-C and schedulers send to workers too.

    The last step still needs the workers. They end with the training process, however it ends.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
