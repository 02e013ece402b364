"""Run independent jobs on all processors of one or more machines, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from util.processes import ALONE, Processes
from util.shared_memory import needs_shared_memory

WITHOUT_WORKERS = "--workers 1"  # what the option is called that does without worker processes, in most programs
Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None,
    title: str,
    processes: Processes = ALONE,
    instead: str = WITHOUT_WORKERS,
) -> list[Result]:
    """`[work(job) for job in jobs]` in `workers` worker processes of each of `processes`; the first error ends all.

    A free worker on any machine takes the next job, which balances unequal jobs and machines. A single worker or job
    runs in the process itself. `work` must be importable by name, jobs and results picklable, and the jobs the same in
    every process.

    Args: workers: number of workers per process; None: this process' part of the machine's processors. instead: the
        option that does without workers, for whom lacks shared memory.
    Returns: all results in the order of jobs in the first process; an empty list in the others.
    """
    workers = min(workers or processes.processors, len(jobs))
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not processes.first) as progress:
        task = progress.add_task(title, total=len(jobs))

        def show_progress(index: int) -> None:
            if processes.size == 1:
                progress.advance(task)
            else:
                progress.update(task, completed=index)  # jobs are taken in order, so this counts all processes' jobs

        run = _in_this_process if workers <= 1 else partial(_in_workers, workers=workers, instead=instead)
        mine = processes.together(lambda: run(work, jobs, processes.work_queue(len(jobs)), show_progress))
        results = {index: result for part in processes.collected(mine) for index, result in part.items()}
        progress.update(task, completed=len(results))
    return [results[index] for index in range(len(jobs))] if processes.first else []


ShowProgress = Callable[[int], None]


def _in_this_process(
    work: Callable[[Job], Result], jobs: Sequence[Job], indices: Iterator[int], show_progress: ShowProgress
) -> dict[int, Result]:
    results: dict[int, Result] = {}
    for index in indices:
        results[index] = work(jobs[index])
        show_progress(index)
    return results


def _in_workers(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    indices: Iterator[int],
    show_progress: ShowProgress,
    *,
    workers: int,
    instead: str,
) -> dict[int, Result]:
    # spawn, not fork: forked processes inherit the locks of numerical libraries' threads
    with needs_shared_memory(instead):
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    running: dict[Future[Result], int] = {}
    results: dict[int, Result] = {}
    try:
        while True:
            for index in islice(indices, workers - len(running)):
                running[pool.submit(work, jobs[index])] = index
            if not running:
                return results
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index = running.pop(future)
                results[index] = future.result()
                show_progress(index)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker with its parent: it would wait forever for its next job if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
