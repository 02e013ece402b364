"""Loads batches from the cache, in worker processes if asked for, and puts them on the device."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.batch import Batch
from data.raw_batch import RawBatch
from data.sampling import Draws
from data.unaligned_dataset import UnalignedMaskDataset
from training.signals import ignore_in_worker
from util.errors import UserError
from util.processes import ALONE, Processes
from util.shared_memory import needs_shared_memory, no_shared_memory, rehearse

DEATH = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)(?: is killed by signal: (\w[^.]*))?")
WITHOUT_WORKERS = "--num_threads 0"
LOCKS = 8  # of shared memory, at most, that a worker's queues and events take
EXIT_S = 5.0  # longest wait for a worker whose connection broke to be seen as ended
REASONS = {  # by signal: what probably ended a worker
    "SIGKILL": "the system most likely ran out of memory",
    "SIGBUS": "shared memory (/dev/shm) is full, or a file of the cache was cut short",
    "SIGSEGV": "a library crashed",
}


class _Requests(Dataset[object]):
    """The dataset as a DataLoader's worker sees it: a list of draws gives a batch, raw if a GPU prepares it.

    A UserError is returned as a value, because the DataLoader would bury its message in a traceback.
    """

    def __init__(self, dataset: UnalignedMaskDataset, *, raw: bool, shared: bool) -> None:
        self.load = dataset.raw if raw else dataset.__getitems__
        self.shared = shared  # whether another process gets the batch

    def __getitems__(self, draws: Draws) -> Batch | RawBatch | UserError:
        try:
            found = self.load(draws)
            return found._map(_shared) if self.shared else found
        except UserError as error:
            return error
        except MemoryError:
            return UserError("a process that loads slices ran out of memory; lower --num_threads or --batch_size")


@dataclass(frozen=True)
class _Parts(Sequence[Draws]):
    """This process' part of every batch; a part may be empty."""

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
    """The batches on `device`; the workers prepare them for a CPU, and a GPU prepares them itself.

    Each of several processes loads its part of every batch.

    Raises: UserError: raised in a worker; see also `explain_worker_deaths`.
    """
    raw = device.type != "cpu"
    loader = DataLoader(
        _Requests(dataset, raw=raw, shared=workers > 0),
        batch_sampler=_Parts(batches, processes),  # type: ignore[arg-type]  # one request per batch: `__getitems__`
        collate_fn=_unchanged,
        num_workers=workers,
        worker_init_fn=ignore_in_worker,
        generator=torch.Generator(),  # otherwise it would draw from torch's global generator at every resume
        pin_memory=device.type == "cuda",
    )
    for found in _loaded(loader, workers):
        if isinstance(found, UserError):
            raise found
        yield dataset.prepare(found.to(device)) if isinstance(found, RawBatch) else found


def _loaded(loader: DataLoader[object], n_workers: int = 0) -> Iterator[Any]:
    """The loader's items. Raises torch's RuntimeError also for a worker that died while it sent a batch."""
    with needs_shared_memory(WITHOUT_WORKERS):
        rehearse(LOCKS * (n_workers + 1) if n_workers else 0)
        items = iter(loader)
    while True:
        try:
            yield next(items)
        except StopIteration:
            return
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            workers = getattr(items, "_workers", [])
            ended = connection.wait([worker.sentinel for worker in workers], timeout=EXIT_S)
            for worker in workers:
                if worker.sentinel in ended:
                    worker.join(EXIT_S)  # its pipe closes a moment before its exit code is known
            dead = next((worker for worker in workers if worker.exitcode), None)
            if dead is None:
                raise
            cause = signal.strsignal(-dead.exitcode) if dead.exitcode < 0 else None
            how = f"is killed by signal: {cause}. " if cause else "exited unexpectedly"
            raise RuntimeError(f"DataLoader worker (pid {dead.pid}) {how}") from error


def _shared(tensor: Tensor) -> Tensor:
    """The tensor in shared memory. A queue would put it there too, but if there is no room it loses the batch."""
    try:
        return tensor.share_memory_()
    except RuntimeError as error:
        raise no_shared_memory(str(error).rpartition(": ")[2], WITHOUT_WORKERS) from error


def load_one(dataset: UnalignedMaskDataset, draws: Draws, device: torch.device) -> Batch:
    """Load one batch in this process."""
    return next(load(dataset, [draws], workers=0, device=device))


def _unchanged(found: object) -> object:
    return found


@contextmanager
def explain_worker_deaths(workers: int, batch_size: int) -> Iterator[None]:
    """Turn torch's error for a worker that died within the block into one sentence.

    torch raises it anywhere in the block, whenever the system reports the death.

    Raises: UserError: names the signal, the probable cause and the options to lower.
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
    """An error and its causes: torch names the signal in the first error only and then raises further ones."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _signal_name(description: str) -> str:
    """The name of a signal by the system's description: `SIGKILL` for `Killed`."""
    described = {signal.strsignal(each): each.name for each in signal.Signals}
    return described.get(description.strip(), description.strip())
