"""Independent jobs on all processors, of one machine or of several, with a progress bar."""

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

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int | None, title: str, processes: Processes = ALONE
) -> list[Result]:
    """`[work(job) for job in jobs]` in `workers` processes of every process of `processes`; the first error ends it.

    A worker that is free takes the next job, wherever it is, so that unequal jobs and machines are all kept busy. One
    worker, or one job, runs in the process itself. `work` must be importable by name, jobs and results picklable, and
    the jobs the same in every process.

    Args: workers: None: as many as the machine has processors for each of its processes.
    Returns: all results in the order of jobs in the first process; an empty list in the others.
    """
    workers = min(workers or processes.processors, len(jobs))
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not processes.first) as progress:
        task = progress.add_task(title, total=len(jobs))

        def shown(place: int) -> None:
            if processes.size == 1:
                progress.advance(task)
            else:
                progress.update(task, completed=place)  # up to which job all have come together

        run = _in_this_process if workers <= 1 else partial(_in_workers, workers=workers)
        mine = processes.together(lambda: run(work, jobs, processes.drawn(len(jobs)), shown))
        results = {place: result for part in processes.collected(mine) for place, result in part.items()}
        progress.update(task, completed=len(results))
    return [results[place] for place in range(len(jobs))] if processes.first else []


Shown = Callable[[int], None]


def _in_this_process(
    work: Callable[[Job], Result], jobs: Sequence[Job], places: Iterator[int], shown: Shown
) -> dict[int, Result]:
    results: dict[int, Result] = {}
    for place in places:
        results[place] = work(jobs[place])
        shown(place)
    return results


def _in_workers(
    work: Callable[[Job], Result], jobs: Sequence[Job], places: Iterator[int], shown: Shown, *, workers: int
) -> dict[int, Result]:
    # fresh processes: a fork would inherit the locks of numerical libraries' threads
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    running: dict[Future[Result], int] = {}
    results: dict[int, Result] = {}
    try:
        while True:
            for place in islice(places, workers - len(running)):
                running[pool.submit(work, jobs[place])] = place
            if not running:
                return results
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place = running.pop(future)
                results[place] = future.result()
                shown(place)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
