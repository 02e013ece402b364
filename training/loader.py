"""Batches for a training step or a validation: read from the cache by processes of their own, ready on the device."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from data.batch import Batch
from data.raw_batch import RawBatch
from data.sampling import Draws
from data.unaligned_dataset import UnalignedMaskDataset
from training.signals import ignore_in_worker
from util.errors import UserError
from util.processes import ALONE, Processes

DEATH = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)(?: is killed by signal: (\w[^.]*))?")
DYING_S = 5.0  # within which a process whose connection broke is seen to have ended
REASONS = {  # of a loading process' end: what probably happened
    "SIGKILL": "the system most likely ran out of memory",
    "SIGBUS": "shared memory (/dev/shm) is full, or a file of the cache was cut short",
    "SIGSEGV": "a library crashed",
}


class _Requests(Dataset[object]):
    """What a loading process answers: a batch, raw where another device prepares it; a user's error as a value.

    A DataLoader would bury an error's sentence in a traceback.
    """

    def __init__(self, dataset: UnalignedMaskDataset, *, raw: bool) -> None:
        self.load = dataset.raw if raw else dataset.__getitems__

    def __getitems__(self, draws: Draws) -> Batch | RawBatch | UserError:
        try:
            return self.load(draws)
        except UserError as error:
            return error
        except MemoryError:
            return UserError("a process that loads slices ran out of memory; lower --num_threads or --batch_size")


@dataclass(frozen=True)
class _Parts(Sequence[Draws]):
    """This process' part of every batch, which may be empty."""

    batches: Sequence[Draws]
    processes: Processes

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> Draws:  # type: ignore[override]
        whole = self.batches[i]
        mine = self.processes.part(len(whole))
        return whole.rows(mine.start, mine.stop)


def load(
    dataset: UnalignedMaskDataset,
    batches: Sequence[Draws],
    *,
    workers: int,
    device: torch.device,
    processes: Processes = ALONE,
) -> Iterator[Batch]:
    """The batches that are asked for, on `device`; on a CPU the workers prepare them, a GPU does so itself.

    Of several processes each loads its part of every batch.

    Raises: UserError of a worker, see also `worker_deaths_told`.
    """
    raw = device.type != "cpu"
    loader = DataLoader(
        _Requests(dataset, raw=raw),
        batch_sampler=_Parts(batches, processes),  # type: ignore[arg-type]  # one request a batch: see `__getitems__`
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=ignore_in_worker,
        generator=torch.Generator(),  # else it would draw a number from torch's own at every resume
        pin_memory=device.type == "cuda",
    )
    for found in _answers(loader):
        if isinstance(found, UserError):
            raise found
        yield dataset.prepare(found.to(device)) if isinstance(found, RawBatch) else found


def _answers(loader: DataLoader[object]) -> Iterator[Any]:
    """What the loader yields. Raises RuntimeError, as torch does, also for a worker that died while handing over."""
    answers = iter(loader)
    while True:
        try:
            yield next(answers)
        except StopIteration:
            return
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            workers = getattr(answers, "_workers", [])
            ended = connection.wait([worker.sentinel for worker in workers], timeout=DYING_S)
            for worker in workers:
                if worker.sentinel in ended:
                    worker.join(DYING_S)  # its pipe closes a moment before the system knows how it ended
            dead = next((worker for worker in workers if worker.exitcode), None)
            if dead is None:
                raise
            cause = signal.strsignal(-dead.exitcode) if dead.exitcode < 0 else None
            how = f"is killed by signal: {cause}. " if cause else "exited unexpectedly"
            raise RuntimeError(f"DataLoader worker (pid {dead.pid}) {how}") from error


def load_one(dataset: UnalignedMaskDataset, draws: Draws, device: torch.device) -> Batch:
    """One batch, read in this process."""
    return next(load(dataset, [draws], workers=0, device=device))


def _as_it_is(found: object) -> object:
    return found


@contextmanager
def worker_deaths_told(workers: int, batch_size: int) -> Iterator[None]:
    """Turns torch's error for a loading process that died within the block into one sentence.

    The error may come anywhere in the block: torch raises it when the system reports the death.

    Raises: UserError that names the signal, what probably happened, and what to lower.
    """
    try:
        yield
    except RuntimeError as error:
        found = [match for each in _chain(error) if (match := DEATH.search(str(each)))]
        if not found:
            raise
        death = next((match for match in found if match[2]), found[0])
        name = _signal_name(death[2] or "")
        how = f"was killed by {name}" if name else "ended unexpectedly"
        reason = f": {REASONS[name]}" if name in REASONS else ""
        raise UserError(
            f"a process that loads slices (pid {death[1]}) {how}{reason}; lower --num_threads ({workers}) or "
            f"--batch_size ({batch_size}), and go on with --continue_train if anything was saved"
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it: torch tells the signal first, then, noticing it again, only that there was one."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _signal_name(description: str) -> str:
    """`SIGKILL` for `Killed`, as the system describes it."""
    described = {signal.strsignal(each): each.name for each in signal.Signals}
    return described.get(description.strip(), description.strip())
