"""Independent jobs on all processors, with a progress bar."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, title: str) -> list[Result]:
    """`[work(job) for job in jobs]` in `workers` processes; the first error ends it and is raised.

    One worker, or one job, runs in this process. `work` must be importable by name, jobs and results picklable.
    """
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results: dict[int, Result] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=len(jobs))
        for index, result in _completed(work, jobs, min(workers, len(jobs))):
            results[index] = result
            progress.advance(task)
    return [results[index] for index in range(len(jobs))]


def _completed(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Result]]:
    if workers <= 1:
        yield from enumerate(map(work, jobs))
        return
    # fresh processes: a fork would inherit the locks of numerical libraries' threads
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        places: dict[Future[Result], int] = {pool.submit(work, job): index for index, job in enumerate(jobs)}
        for future in as_completed(places):
            yield places[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
