"""How tests run the programs: in the test's own process, in a process of its own, or in several as under torchrun.

Starting Python and importing torch takes seconds, a tiny training less than one. So `run` calls a program's `main`
where the test is. Where the process is the subject (signals, kills, several that talk), `start` and `start_together`
fork it from a server that has imported everything once.
"""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.forkserver
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.distributed import TCPStore

import preprocessing_images
import test as test_program
import train
from util.errors import run_cli

ROOT = Path(__file__).resolve().parent.parent
MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "train.py": train.main,
    "test.py": test_program.main,
    "preprocessing_images.py": preprocessing_images.main,
}
# what a program imports before its first step; torch's optimisers import its compiler, which takes longest
PRELOADED = [
    *("running", "conftest", "torch._dynamo", "torchvision.models", "torchvision.utils"),
    *("programs.training", "programs.testing", "models.pta_model", "models.cycle_gan_model", "data.unaligned_dataset"),
    *("preprocessing.checking", "preprocessing.volumes", "simulation.benchmark"),
]
SECONDS = 240.0  # that a program of a test may take at most


@dataclass(frozen=True)
class Finished:
    """How a program ended (minus the signal's number if one killed it), and all that it printed."""

    status: int
    out: str
    err: str


# in this process ------------------------------------------------------------------------------------------------------


@contextmanager
def as_before() -> Iterator[None]:
    """After the block the folder, the environment, the arguments, torch's threads and all generators are as before."""
    folder, environment, arguments = Path.cwd(), dict(os.environ), sys.argv
    threads, of_torch, of_python = torch.get_num_threads(), torch.get_rng_state(), random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = arguments
        torch.set_num_threads(threads)
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


def as_typed(program: str, argv: Sequence[object]) -> None:
    """Run a program as its last lines do when it is typed; ends with SystemExit."""
    sys.argv = [program, *map(str, argv)]
    run_cli(MAINS[program], program)


def run(program: str, *argv: object) -> Finished:
    """Run a program in this process, with one thread; a user's mistake is one line on stderr and status 2."""
    out, err = io.StringIO(), io.StringIO()
    with as_before(), redirect_stdout(out), redirect_stderr(err):
        torch.set_num_threads(1)
        try:
            as_typed(program, argv)
        except SystemExit as end:
            return Finished(end.code if isinstance(end.code, int) else 1, out.getvalue(), err.getvalue())
    raise AssertionError("run_cli always ends with SystemExit")


# in processes of their own --------------------------------------------------------------------------------------------


def forked_from_a_server() -> Any:
    """multiprocessing's context whose processes have torch and ours imported from their first moment on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with as_before():  # the server keeps what it is started with
        os.environ |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        multiprocessing.forkserver.ensure_running()
    return context


class Ended:
    """A process that has already ended, in the place of a started one."""

    def __init__(self, status: int) -> None:
        self.status = status

    def poll(self) -> int:
        return self.status

    def terminate(self) -> None:
        raise AssertionError("it has ended")

    kill = terminate


@dataclass
class Started:
    """A process in a session of its own, as a terminal or a scheduler starts it; what it prints goes into files."""

    process: Any
    output: TemporaryDirectory[str] = field(repr=False)
    store: TCPStore | None = field(default=None, repr=False)  # through which it finds the others; lives as long as any

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def printed(self) -> tuple[str, str]:
        """Standard output and standard error, as far as they have come."""
        folder = Path(self.output.name)
        return (folder / "out").read_text(encoding="utf-8"), (folder / "err").read_text(encoding="utf-8")

    def wait_for(self, found: Callable[[], object], seconds: float = SECONDS) -> None:
        """Wait until `found` finds something; the process must not end before."""
        end = time.monotonic() + seconds
        while not found():
            assert self.running, self.printed()
            assert time.monotonic() < end, self.printed()
            time.sleep(0.01)

    def signal_group(self, number: int) -> None:
        """To the process and all that it has started, as Ctrl-C and slurm do it."""
        os.killpg(self.pid, number)

    def finished(self, seconds: float = SECONDS) -> Finished:
        """How it ended; it is killed if it does not end in time."""
        self.process.join(seconds)
        in_time = not self.running
        self.kill()
        assert in_time, self.printed()
        return Finished(self.process.exitcode, *self.printed())

    def kill(self) -> None:
        """End it with all that it has started, if it has not ended by itself."""
        if self.running:
            self.signal_group(signal.SIGKILL)
        self.process.join()


def start(
    call: str | Callable[..., object], *arguments: object, environment: Mapping[str, str] | None = None
) -> Started:
    """Start a program by its name, or a function of a test module, with these arguments.

    Args: environment: variables beside those of the test's process.
    """
    output = TemporaryDirectory(prefix="started")
    variables = {**os.environ, **(environment or {})}
    process = forked_from_a_server().Process(target=_in_its_own_session, args=(output.name, variables, call, arguments))
    process.start()
    started = Started(process, output)
    started.wait_for(lambda: (Path(output.name) / "err").exists())
    return started


def start_together(call: str | Callable[..., object], *arguments: object, count: int) -> list[Started]:
    """Start so many processes as torchrun does, in the order of ranks, one thread each; nobody ends them together."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=SECONDS))
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    ranks = ({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count))
    started = [start(call, *arguments, environment=variables) for variables in ranks]
    for process in started:
        process.store = store
    return started


def _in_its_own_session(
    output: str, variables: dict[str, str], call: str | Callable[..., object], arguments: tuple[object, ...]
) -> None:
    """What a started process does."""
    os.setsid()
    os.environ.clear()
    os.environ.update(variables)
    if hasattr(os, "sched_setaffinity"):  # a program of several processes takes a thread for each processor of its own
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(variables.get("LOCAL_WORLD_SIZE", "1000"))])
    for name, descriptor in (("out", 1), ("err", 2)):
        with (Path(output) / name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", write_through=True)
    multiprocessing.set_start_method(None, force=True)  # of its own processes: as in a program that a shell has started
    if isinstance(call, str):
        as_typed(call, arguments)
    else:
        call(*arguments)
