"""Communication between the processes that torchrun starts for one program.

A single process is a group of size 1: nothing is sent, and every call returns its own argument. It does without torch,
which takes seconds to import: a wrong command line is refused before.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from util.errors import USER_ERROR_STATUS, UserError
from util.threads import COUNTS, usable_processors

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch import Tensor

T = TypeVar("T")

# long, as the others wait while the first process checks a large data folder; torchrun ends all if one fails
TIMEOUT = timedelta(days=1)
FAILED = "failed"  # key in the store, set by a process that fails
REPORT_SECONDS = 10.0  # left to the failed process for its message, before torchrun ends all


class ReportedElsewhere(SystemExit):
    """This process ends because another one failed, which reports the reason."""


@dataclass(frozen=True)
class Processes:
    """This process' `rank` among `size` processes, and its `local_rank` among the `local_size` ones on this machine.

    Messages are plain Python values and are sent between CPUs (gloo), so no device is synchronised. All processes must
    make the same calls in the same order, except `until_failure` and `announced`, which use torchrun's store. A
    process ends if another one was killed.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    messages: dist.ProcessGroup | None = None
    local_size: int = 1
    store: dist.Store | None = None
    _queues: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, logs and reports for all."""
        return self.rank == 0

    @property
    def processors(self) -> int:
        """Number of this machine's processors per process, of those that may be used."""
        return max(1, usable_processors() // self.local_size)

    def part(self, count: int, rank: int | None = None) -> slice:
        """This process' range (or that of `rank`) of `count` items; ranges differ by at most one item in length."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.size, count * (rank + 1) // self.size)

    def gathered(self, value: T) -> list[T]:
        """The values of all processes in the order of ranks, in every process (all-gather)."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[T | None] = [None] * self.size
        with self.talking():
            dist.all_gather_object(values, value, group=self.messages)
        return values  # type: ignore[return-value]

    def collected(self, value: T) -> list[T]:
        """The values of all processes in the order of ranks, in the first process; an empty list in the others."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[T | None] | None = [None] * self.size if self.first else None
        with self.talking():
            dist.gather_object(value, values, dst=0, group=self.messages)
        return values or []  # type: ignore[return-value]

    def agreed(self, value: T) -> T:
        """The first process' value, in every process (broadcast)."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value if self.first else None]
        with self.talking():
            dist.broadcast_object_list(values, src=0, group=self.messages)
        return values[0]  # type: ignore[return-value]

    def largest(self, value: int) -> int:
        """The largest value of all processes, in every process."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        found = torch.tensor([value])
        with self.talking():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.messages)
        return int(found)

    def gather_rows(self, mine: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The tensors (n, ...) of all processes, n = `counts` of each rank, on the tensor's device; detached."""
        if self.size == 1:
            return [mine.detach()]
        import torch
        import torch.distributed as dist

        padded = torch.zeros(max(counts), *mine.shape[1:], dtype=mine.dtype, device=mine.device)
        padded[: len(mine)] = mine.detach()
        gathered = [torch.empty_like(padded) for _ in counts]
        with self.talking():
            dist.all_gather(gathered, padded)
        return [part[:count] for part, count in zip(gathered, counts, strict=True)]

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors of one shape, in every process, on the tensor's device (all-reduce)."""
        if self.size == 1:
            return tensor
        import torch.distributed as dist

        total = tensor.clone()
        with self.talking():
            dist.all_reduce(total)
        return total

    def alone(self, work: Callable[[], T]) -> T:
        """Run `work` in the first process while the others wait, and return its result in every process.

        Raises:
            ReportedElsewhere: in the others if `work` raised in the first, with the exit status of that process.
        """
        if self.size == 1:
            return work()
        if not self.first:
            value, status = self.agreed((None, None))
            if status is not None:
                raise ReportedElsewhere(status)
            return value  # type: ignore[return-value]
        try:
            value = work()
        except (Exception, SystemExit) as error:
            self.agreed((None, _status(error)))
            raise
        self.agreed((value, None))
        return value

    def first_alone(self, work: Callable[[], T]) -> T:
        """Run `work` in the first process, then in the others; return this process' result.

        Raises:
            ReportedElsewhere: in the others, if `work` raised in the first.
        """
        results: list[T] = []
        self.alone(lambda: results.append(work()))
        return results[0] if self.first else work()

    @contextmanager
    def alike(self) -> Iterator[None]:
        """For blocks that raise the same UserError in every process: only the first one reports it."""
        try:
            yield
        except UserError as error:
            if self.first:
                raise
            raise ReportedElsewhere(USER_ERROR_STATUS) from error

    def together(self, work: Callable[[], T]) -> T:
        """Run `work`, which must not communicate, and return its result once it has succeeded in every process.

        An exception in any process ends all. It is raised in the first process that failed.
        Raises:
            ReportedElsewhere: in all others.
        """
        if self.size == 1:
            return work()
        error: Exception | None = None
        try:
            value = work()
        except Exception as raised:
            error = raised
            self.announce(FAILED)
        try:
            failed = self.gathered(error is not None)
        except (UserError, ReportedElsewhere) as lost:
            raise error or lost from None
        if not any(failed):
            return value
        if error is not None and failed.index(True) == self.rank:
            raise error
        raise ReportedElsewhere(USER_ERROR_STATUS)

    def until_failure(self, items: Iterable[T]) -> Iterator[T]:
        """`items` until any process fails; `together` then raises the error."""
        for item in items:
            if self.announced(FAILED):
                return
            yield item

    def work_queue(self, count: int) -> Iterator[int]:
        """Ascending numbers below `count`, each given to the first process that asks; none after a failure."""
        if self.store is None:
            yield from range(count)
            return
        counter = f"queue {next(self._queues)}"
        while not self.announced(FAILED):
            with self.talking():
                number = self.store.add(counter, 1) - 1
            if number >= count:
                return
            yield number

    def announce(self, what: str) -> None:
        """Set the flag `what` for all processes, without waiting."""
        if self.store is not None:
            with suppress(RuntimeError):  # the store has gone with the other processes
                self.store.set(what, "")

    def announced(self, what: str) -> bool:
        """Whether any process has announced `what`."""
        if self.store is None:
            return False
        with self.talking():
            return bool(self.store.check([what]))

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Turn a connection lost within the block into a UserError of the first process."""
        try:
            yield
        except RuntimeError as error:
            if self.first:
                raise UserError(
                    f"another of the {self.size} processes has ended before its work was done; see its own message, "
                    "or torchrun's below"
                ) from error
            raise ReportedElsewhere(USER_ERROR_STATUS) from error


ALONE = Processes()


def set_threads(processes: Processes, asked: int | None) -> None:
    """Let torch compute with `asked` threads, --cpu_threads; None: as many as this process' part of the processors.

    OMP_NUM_THREADS is respected, but for the 1 that torchrun sets where a machine has several processes.
    """
    import torch

    given = next((os.environ[name] for name in COUNTS if name in os.environ), None)
    if asked is not None:
        torch.set_num_threads(asked)
    elif given is None or (given == "1" and processes.local_size > 1):
        torch.set_num_threads(processes.processors)


def _status(error: BaseException) -> int:
    """The exit status of a process that ends with `error`."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return USER_ERROR_STATUS if isinstance(error, UserError) else 1


@contextmanager
def join_processes(environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """Join the processes described by torchrun's environment variables; a single process without them.

    Raises:
        UserError: the variables are inconsistent.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in environment for name in names):
        yield Processes()
        return
    found = {name: environment[name] for name in names}
    if not all(text.isdecimal() for text in found.values()) or not int(found["RANK"]) < int(found["WORLD_SIZE"]):
        raise UserError(f"{', '.join(f'{n}={v}' for n, v in found.items())}: these variables must be set by torchrun")
    rank, size, local_rank = (int(text) for text in found.values())
    if size == 1:
        yield Processes()
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    local_size = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if local_size == size and sys.platform == "linux":  # no other machine needs to connect
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = next(rendezvous("env://", rank, size, timeout=TIMEOUT))[0]
    dist.init_process_group(
        backend, store=dist.PrefixStore("torch", store), rank=rank, world_size=size, timeout=TIMEOUT
    )
    messages: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=TIMEOUT)  # type: ignore[assignment]
    processes = Processes(rank, size, local_rank, messages, local_size, dist.PrefixStore("ours", store))
    try:
        yield processes
    except ReportedElsewhere as end:
        time.sleep(REPORT_SECONDS if end.code else 0)
        raise
    except BaseException:
        processes.announce(FAILED)
        raise
    finally:
        dist.destroy_process_group()
