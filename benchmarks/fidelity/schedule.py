"""Runs the steps of a plan, several side by side, each in a process of one thread; stops and goes on at any time."""

from __future__ import annotations

import fcntl
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from benchmarks.fidelity.plan import Step
from benchmarks.fidelity.store import ROOT
from util.errors import UserError
from util.threads import sleep_while_waiting

SLICE_S = 540.0  # a training saves and starts again after so long, so that no process lasts ten minutes
POLL_S, WAIT_S = 0.2, 5.0  # between looks at one's own processes, and at steps of another invocation
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)  # status of train.py after saving, or before it could
GUESS_S = {
    "data": 200.0,
    "encoder": 60.0,
    "segmenter": 200.0,
    "baselines": 60.0,
    "test": 60.0,
}  # before any of the kind has ended
GUESS_TRAIN_S = 1200.0


class Process(Protocol):
    """A started step."""

    def poll(self) -> int | None:
        """Its status, None while it runs."""

    def terminate(self) -> None:
        """Ask it to save and end."""

    def kill(self) -> None:
        """End it at once."""


Launch = Callable[[list[str], Path, TextIO], Process]


def start(command: list[str], log: Path, lock: TextIO) -> Process:
    """Start a process of one thread. It keeps the step's lock open, so that the lock lasts as long as the process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    sleep_while_waiting(environment)
    with log.open("a", encoding="utf-8") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),), start_new_session=True,
        )  # fmt: skip


@dataclass
class _Running:
    step: Step
    process: Process
    lock: TextIO
    began: float
    asked: bool = False  # to save and end


@dataclass
class Scheduler:
    """Runs steps. `say` prints a line; `launch` starts a process; `deadline`, of time.monotonic, ends all in order."""

    jobs: int
    say: Callable[[str], None] = print
    launch: Launch = start
    deadline: float | None = None
    slice_s: float = SLICE_S
    failed: dict[str, str] = field(default_factory=dict)
    _running: list[_Running] = field(default_factory=list)

    def run(self, steps: Sequence[Step]) -> bool:
        """Do all steps that are not done. Returns whether all are. What fails is left in `failed`, with the reason."""
        names = {step.name for step in steps}
        assert all(names.issuperset(step.needs) for step in steps), "a step needs one that is not in the plan"
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while True:
                self._collect(steps)
                out_of_time = self.deadline is not None and time.monotonic() >= self.deadline
                if out_of_time:
                    self._stop_all()
                    return False
                elsewhere = self._begin_some(steps)
                if not self._running:
                    if not elsewhere:
                        return all(step.done.is_file() for step in steps)
                    time.sleep(WAIT_S)
                elif all(one.process.poll() is None for one in self._running):
                    time.sleep(POLL_S)
        finally:
            self._stop_all()
            signal.signal(signal.SIGTERM, before)

    def _begin_some(self, steps: Sequence[Step]) -> bool:
        """Start what can be started. Returns whether another invocation is busy with a step that is left."""
        done = {step.name for step in steps if step.done.is_file()}
        busy = {one.step.name for one in self._running}
        elsewhere = False
        for step in steps:
            if len(self._running) >= self.jobs:
                return elsewhere
            if step.name in done | busy or step.name in self.failed:
                continue
            if lost := [need for need in step.needs if need in self.failed]:
                self.failed[step.name] = f"needs {lost[0]}, which has failed"
            elif done.issuperset(step.needs):
                elsewhere |= not self._begin(step)
        return elsewhere

    def _begin(self, step: Step) -> bool:
        """Start a step, unless another invocation has it."""
        step.log.parent.mkdir(parents=True, exist_ok=True)
        lock = step.log.with_suffix(".lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        if step.done.is_file():  # another invocation has just finished it
            lock.close()
            return True
        try:
            command = step.command()
        except UserError as error:
            self.failed[step.name] = str(error)
            self.say(f"{step.name}: {error}")
            lock.close()
            return True
        self._running.append(_Running(step, self.launch(command, step.log, lock), lock, time.monotonic()))
        return True

    def _collect(self, steps: Sequence[Step]) -> None:
        """Take note of what has ended, and ask what has run for too long to save and end."""
        for one in list(self._running):
            status, seconds = one.process.poll(), time.monotonic() - one.began
            if status is None:
                if one.step.resumable and not one.asked and seconds > self.slice_s:
                    one.asked = True
                    one.process.terminate()
                continue
            self._running.remove(one)
            seconds += _seconds(one.step)
            one.step.log.with_suffix(".seconds").write_text(f"{seconds:.1f}\n", encoding="utf-8")
            if status == 0:
                one.step.after()
                self.say(self._progress(one.step, seconds, steps))
            elif not (one.step.resumable and status in STOPPED):
                self.failed[one.step.name] = f"status {status}: {_last_line(one.step.log)}"
                self.say(f"{one.step.name}: FAILED, {self.failed[one.step.name]} ({one.step.log})")
            one.lock.close()

    def _stop_all(self) -> None:
        """Ask all processes to save and end; those that cannot be resumed end at once."""
        for one in self._running:
            with suppress(ProcessLookupError):
                (one.process.terminate if one.step.resumable else one.process.kill)()
        for one in self._running:
            while one.process.poll() is None:
                time.sleep(POLL_S / 4)
            seconds = _seconds(one.step) + time.monotonic() - one.began
            one.step.log.with_suffix(".seconds").write_text(f"{seconds:.1f}\n", encoding="utf-8")
            one.lock.close()
        self._running.clear()

    # time left -----------------------------------------------------------------------------------------------------

    def _progress(self, step: Step, seconds: float, steps: Sequence[Step]) -> str:
        done = sum(each.done.is_file() for each in steps)
        left = self.seconds_left(steps)
        return f"[{done}/{len(steps)}] {step.name}: {seconds:.0f} s; {_spoken(left)} left"

    def seconds_left(self, steps: Sequence[Step]) -> float:
        """Expected time for the steps that are not done, by the mean of those of the same kind that are."""
        taken: dict[str, list[float]] = {}
        for step in steps:
            if step.done.is_file() and (seconds := _seconds(step)):
                taken.setdefault(step.kind, []).append(seconds)
        trainings = [seconds for kind, every in taken.items() if kind.startswith("train") for seconds in every]
        usual = statistics.fmean(trainings) if trainings else GUESS_TRAIN_S

        def expected(step: Step) -> float:
            if step.kind in taken:
                return max(0.0, statistics.fmean(taken[step.kind]) - _seconds(step))
            guess = usual if step.kind.startswith("train") else GUESS_S.get(step.kind, GUESS_S["test"])
            return max(0.0, guess - _seconds(step))

        left = [step for step in steps if not step.done.is_file() and step.name not in self.failed]
        return sum(map(expected, left)) / self.jobs


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _seconds(step: Step) -> float:
    """How long a step has run so far."""
    try:
        return float(step.log.with_suffix(".seconds").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def _spoken(seconds: float) -> str:
    return f"about {seconds / 3600:.1f} h" if seconds > 5400 else f"about {max(1, round(seconds / 60))} min"
