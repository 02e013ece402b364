"""The processes of one program that torchrun started together, and what they tell each other.

One process by itself is a processes of size 1: nothing is sent, and every call gives back what it was given.
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
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from util.errors import USER_ERROR_STATUS, UserError

T = TypeVar("T")

# the first process may check a large data folder while the others wait; torchrun ends all once one has ended badly
PATIENCE = timedelta(days=1)
FAILED = "failed"  # key in the store, once a process has
SECONDS_TO_TELL = 10.0  # that a process with nothing to say leaves to the one that has, before torchrun ends both


class ToldElsewhere(SystemExit):
    """This process ends because of another one, which tells why."""


@dataclass(frozen=True)
class Processes:
    """This process' place among `size` processes; `local_rank` counts the `local_size` ones on its own machine.

    Messages are plain Python values of our own processes. They travel between CPUs (gloo), so no device is waited for.
    All processes must ask for the same in the same order, but for `until_failure` and `announced`, which ask the store
    that torchrun keeps. One that has lost another, which was killed, ends too.
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
        """Those of this machine that each of its processes may keep busy."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, usable // self.local_size)

    def part(self, count: int, rank: int | None = None) -> slice:
        """This process' part (or that of `rank`) of `count` items in a row; parts differ by at most one item."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.size, count * (rank + 1) // self.size)

    def gathered(self, value: T) -> list[T]:
        """Every process' value, in the order of ranks, in every process."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        with self.talking():
            dist.all_gather_object(values, value, group=self.messages)
        return values  # type: ignore[return-value]

    def collected(self, value: T) -> list[T]:
        """Every process' value, in the order of ranks, in the first process; an empty list in the others."""
        if self.size == 1:
            return [value]
        values: list[T | None] | None = [None] * self.size if self.first else None
        with self.talking():
            dist.gather_object(value, values, dst=0, group=self.messages)
        return values or []  # type: ignore[return-value]

    def agreed(self, value: T) -> T:
        """The first process' value, in every process."""
        if self.size == 1:
            return value
        values = [value if self.first else None]
        with self.talking():
            dist.broadcast_object_list(values, src=0, group=self.messages)
        return values[0]  # type: ignore[return-value]

    def largest(self, value: int) -> int:
        """The largest of all processes' values, in every process."""
        if self.size == 1:
            return value
        found = torch.tensor([value])
        with self.talking():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.messages)
        return int(found)

    def gather_rows(self, mine: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The rows (n, …) of every process, `counts` of each, on the tensor's device; no graph."""
        if self.size == 1:
            return [mine.detach()]
        room = torch.zeros(max(counts), *mine.shape[1:], dtype=mine.dtype, device=mine.device)
        room[: len(mine)] = mine.detach()
        everyone = [torch.empty_like(room) for _ in counts]
        with self.talking():
            dist.all_gather(everyone, room)
        return [part[:count] for part, count in zip(everyone, counts, strict=True)]

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors of one shape, in every process; on the tensor's device."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        with self.talking():
            dist.all_reduce(total)
        return total

    def alone(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, in every process; it runs there only, and the others wait.

        Raises:
            ToldElsewhere: in the others, if it raised something in the first; with the status that ends that one.
        """
        if self.size == 1:
            return work()
        if not self.first:
            value, status = self.agreed((None, None))
            if status is not None:
                raise ToldElsewhere(status)
            return value  # type: ignore[return-value]
        try:
            value = work()
        except (Exception, SystemExit) as error:
            self.agreed((None, _status(error)))
            raise
        self.agreed((value, None))
        return value

    def first_alone(self, work: Callable[[], T]) -> T:
        """What `work` gives here: the first process does it by itself, then the others do.

        Raises:
            ToldElsewhere: in the others, if it raised something in the first.
        """
        found: list[T] = []
        self.alone(lambda: found.append(work()))
        return found[0] if self.first else work()

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Within the block a user's error is the same in every process: the first one tells it."""
        try:
            yield
        except UserError as error:
            if self.first:
                raise
            raise ToldElsewhere(USER_ERROR_STATUS) from error

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives here, once it has ended well in every process; it sends nothing to the others itself.

        An exception in one process ends all: it is raised there, if in several in the first of these alone.
        Raises:
            ToldElsewhere: in all others.
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
        except (UserError, ToldElsewhere) as lost:
            raise error or lost from None
        if not any(failed):
            return value
        if error is not None and failed.index(True) == self.rank:
            raise error
        raise ToldElsewhere(USER_ERROR_STATUS)

    def until_failure(self, items: Iterable[T]) -> Iterator[T]:
        """`items`, as long as no process has failed: `together` has the last word then."""
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
        """Let all processes know `what`; nobody waits for it, and it stays known."""
        if self.store is not None:
            with suppress(RuntimeError):  # nobody is left to know it
                self.store.set(what, "")

    def announced(self, what: str) -> bool:
        """Whether any process has announced `what`."""
        if self.store is None:
            return False
        with self.talking():
            return bool(self.store.check([what]))

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Turns a connection that broke within the block into one sentence, of the first process alone."""
        try:
            yield
        except RuntimeError as error:
            if self.first:
                raise UserError(
                    f"another of the {self.size} processes has ended before its work was done; its own message, "
                    "or torchrun's below, says why"
                ) from error
            raise ToldElsewhere(USER_ERROR_STATUS) from error


ALONE = Processes()


def limit_threads(processes: Processes) -> None:
    """Let torch compute with this process' part of the machine's processors, where torchrun gives it one thread.

    Another OMP_NUM_THREADS than that default is obeyed.
    """
    if processes.local_size > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(processes.processors)


def _status(error: BaseException) -> int:
    """The exit status of a process that `error` ends."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return USER_ERROR_STATUS if isinstance(error, UserError) else 1


@contextmanager
def join_processes(environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """The processes that torchrun's variables describe, joined within the block; a processes of one without them.

    Raises:
        UserError: the variables do not describe one.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in environment for name in names):
        yield Processes()
        return
    found = {name: environment[name] for name in names}
    if not all(text.isdecimal() for text in found.values()) or not int(found["RANK"]) < int(found["WORLD_SIZE"]):
        raise UserError(f"{', '.join(f'{n}={v}' for n, v in found.items())}: torchrun sets these, nothing else should")
    rank, size, local_rank = (int(text) for text in found.values())
    if size == 1:
        yield Processes()
        return
    local_size = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if local_size == size and sys.platform == "linux":  # on one machine nobody else need reach the processes
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = next(rendezvous("env://", rank, size, timeout=PATIENCE))[0]
    dist.init_process_group(
        backend, store=dist.PrefixStore("torch", store), rank=rank, world_size=size, timeout=PATIENCE
    )
    messages: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=PATIENCE)  # type: ignore[assignment]
    processes = Processes(rank, size, local_rank, messages, local_size, dist.PrefixStore("ours", store))
    try:
        yield processes
    except ToldElsewhere as end:
        time.sleep(SECONDS_TO_TELL if end.code else 0)
        raise
    except BaseException:
        processes.announce(FAILED)
        raise
    finally:
        dist.destroy_process_group()
