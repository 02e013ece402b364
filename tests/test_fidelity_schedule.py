"""The fidelity benchmark's steps: in order, in slices, side by side with another invocation."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import TextIO

import pytest
from running import Ended

from benchmarks.fidelity.plan import Step
from benchmarks.fidelity.schedule import Scheduler


class Endless(Ended):
    """A process that runs until it is asked to end."""

    def __init__(self) -> None:
        self.ended: int | None = None

    def poll(self) -> int | None:  # type: ignore[override]
        return self.ended

    def terminate(self) -> None:
        self.ended = 143

    def kill(self) -> None:
        self.ended = -9


def steps(folder: Path, *names: str, resumable: bool = False) -> list[Step]:
    """Steps, each of which needs the one before."""
    needs: list[tuple[str, ...]] = [(), *((name,) for name in names)]
    return [
        Step(name, folder / f"{name}.log", folder / name, need, "train", lambda name=name: [name],  # type: ignore[misc]
             after=(folder / name).touch, resumable=resumable)
        for name, need in zip(names, needs, strict=False)
    ]  # fmt: skip


def test_steps_run_in_order_and_those_done_are_not_run_again(tmp_path: Path) -> None:
    ran: list[str] = []
    lines: list[str] = []

    def launch(command: list[str], log: Path, lock: TextIO) -> Ended:
        ran.extend(command)
        return Ended(0)

    plan = steps(tmp_path, "a", "b", "c")
    plan[0].done.touch()
    assert Scheduler(2, say=lines.append, launch=launch).run(plan)
    assert ran == ["b", "c"]
    assert lines[-1].startswith("[3/3] c: ") and lines[-1].endswith("left")


def test_a_failed_step_stops_only_what_needs_it(tmp_path: Path) -> None:
    def launch(command: list[str], log: Path, lock: TextIO) -> Ended:
        log.write_text("no such luck\n")
        return Ended(0 if command == ["z"] else 2)

    plan = [*steps(tmp_path, "a", "b"), *steps(tmp_path, "z")]
    scheduler = Scheduler(1, say=lambda line: None, launch=launch)
    assert not scheduler.run(plan)
    assert scheduler.failed == {"a": "status 2: no such luck", "b": "needs a, which has failed"}
    assert plan[-1].done.exists()


def test_a_training_goes_on_in_slices_and_is_stopped_at_the_deadline(tmp_path: Path) -> None:
    started: list[Endless] = []

    def launch(command: list[str], log: Path, lock: TextIO) -> Endless:
        started.append(Endless())
        return started[-1]

    plan = steps(tmp_path, "a", resumable=True)
    scheduler = Scheduler(1, say=lambda line: None, launch=launch, slice_s=0.0, deadline=time.monotonic() + 1.0)
    assert not scheduler.run(plan)
    assert len(started) > 1 and all(one.ended == 143 for one in started) and not scheduler.failed


def test_a_step_of_another_invocation_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = [steps(tmp_path, "a")]
    other = (tmp_path / "a.lock").open("a")
    fcntl.flock(other, fcntl.LOCK_EX)

    def other_ends(seconds: float) -> None:
        plan[0].done.touch()
        other.close()

    def launch(command: list[str], log: Path, lock: TextIO) -> Ended:
        raise AssertionError("the other one does it")

    monkeypatch.setattr("benchmarks.fidelity.schedule.time.sleep", other_ends)
    assert Scheduler(1, say=lambda line: None, launch=launch).run(plan)


def test_time_left_follows_what_steps_of_a_kind_took(tmp_path: Path) -> None:
    plan = steps(tmp_path, "a", "b", "c")
    plan[0].done.touch()
    (tmp_path / "a.seconds").write_text("100\n")
    (tmp_path / "b.seconds").write_text("40\n")  # stopped after that
    assert Scheduler(2).seconds_left(plan) == pytest.approx((60 + 100) / 2)
