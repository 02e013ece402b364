"""The steps of a benchmark: simulate, train E_eval, then train and test every row with every seed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fidelity.budgets import TASKS, Budget
from benchmarks.fidelity.lengths import Slices, before_refinement, train_options
from benchmarks.fidelity.rows import BASELINES, ROWS, trained_by
from benchmarks.fidelity.store import LESIONS, PHASES, ROOT, Place, code, now, write_json
from options.train_options import parse
from util.errors import UserError
from util.reading import read_json

DATA_SEED, LESION_SEED, ENCODER_SEED = 0, 1, 7  # of the simulations, and of E_eval, which no row has
PEOPLE_WITH_LESIONS = 12  # subjects of either domain that the segmenter learns lesions from, at most
SETTINGS = "settings.json"
AUTO = "auto"  # train.py's own --amp


@dataclass(frozen=True)
class Step:
    """What one process does without a stop, or, if `resumable`, in slices.

    name: for people. log: file for what it prints; beside it lie its lock and how long it took. done: the file whose
    presence says that it is done. needs: other steps, by name. kind: steps of one kind take about equally long.
    command: makes the command line when the step starts, since it may depend on what its `needs` have made. after:
    called once the process has ended well.
    """

    name: str
    log: Path
    done: Path
    needs: tuple[str, ...]
    kind: str
    command: Callable[[], list[str]]
    after: Callable[[], None] = field(default=lambda: None)
    resumable: bool = False


class Plan:
    """All steps of a budget, for some of its rows. `amp`: number format of its trainings."""

    def __init__(
        self, place: Place, budget: Budget, rows: Sequence[str] | None = None, tasks: Sequence[str] | None = None,
        amp: str = AUTO,
    ) -> None:  # fmt: skip
        self.place, self.budget, self.amp = place, budget, amp
        self.chosen, self.tasks = rows, tasks

    def names(self, task: str, row: str) -> bool:
        """Whether the plan is about this row of this task."""
        return (self.chosen is None or row in self.chosen) and (self.tasks is None or task in self.tasks)

    def units(self, *, all_rows: bool = False) -> Iterator[tuple[str, str, int]]:
        """Task, row and seed of everything that is tested, seed by seed, so that a part of it tells most."""
        for seed in self.budget.seeds:
            for task, rows in self.budget.rows.items():
                for row in rows:
                    wanted = all_rows or self.names(task, row)
                    if not wanted or (row in BASELINES and seed != self.budget.seeds[0]):
                        continue
                    if row in BASELINES or not ROWS[row].why_missing:
                        yield task, row, 0 if row in BASELINES else seed

    def steps(self, phase: str, *, all_rows: bool = False) -> list[Step]:
        """The steps up to the test on `phase`, in the order in which they are done."""
        found: dict[str, Step] = {}
        for task, row, seed in self.units(all_rows=all_rows):
            shared = [self._data(task), self._encoder(task), self._data(task, LESIONS), self._segmenter(task)]
            for step in [*shared, *self._row(task, row, seed, phase)]:
                found.setdefault(step.name, step)
        return list(found.values())

    def publish(self) -> None:
        """Write the numbers of all tested units among the published ones, as far as an interruption has left some."""
        for task, row, seed in self.units():
            if any((self.place.unit(task, row, seed) / f"{phase}.json").is_file() for phase in PHASES):
                self._publish(task, row, seed)

    def _publish(self, task: str, row: str, seed: int) -> None:
        base = None if row in BASELINES else trained_by(row)
        settings = {} if base is None else read_json(self.place.unit(task, base, seed) / SETTINGS)
        self.place.publish(task, row, seed, settings)

    # the steps -----------------------------------------------------------------------------------------------------

    def _step(self, name: str, task: str, done: Path, needs: Sequence[str], kind: str, **more: object) -> Step:
        log = self.place.steps(task) / f"{name.replace('/', '--').replace(' ', '-')}.log"
        return Step(name, log, done, tuple(needs), kind, **more)  # type: ignore[arg-type]

    def _data(self, task: str, phase: str = "") -> Step:
        """Simulate the task's data, or further heads of the same people with lesions."""
        b, root, extra, seed = self.budget, self.place.data(task, phase), self.budget.simulate, DATA_SEED
        sizes = {"matrix": b.matrix, "n_train": b.n_train, "n_val": b.n_val, "n_test": b.n_test}
        if phase == LESIONS:
            sizes |= {"n_train": min(b.n_train, PEOPLE_WITH_LESIONS), "n_val": 0}
            extra, seed = (*extra, *b.lesions), LESION_SEED
        sizes["seed"] = seed
        command = ["preprocessing_images.py", "--simulate", TASKS[task], "--out", str(root), "--overwrite"]
        command += [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        command += ["--workers", "1", *extra]
        done = self.place.steps(task) / f"{root.name}.json"
        return self._step(
            f"{task} {root.name}", task, done, (), "data", command=lambda: program(*command),
            after=lambda: write_json(done, {"command": command[:3] + command[6:], "code": code(), "date": now()}),
        )  # fmt: skip

    def _encoder(self, task: str) -> Step:
        run, done = self.place.encoder(task), self.place.steps(task) / "encoder.json"
        options = ["--preset", self.budget.preset, "--model", "sgp", "--seed", str(ENCODER_SEED), *self._device()]
        options += [*(self._size() or ()), *self.budget.encoder, "--no_html", *self._number_format()]
        return self._step(
            f"{task} E_eval", task, done, (f"{task} data",), "encoder", resumable=True,
            command=lambda: self._training(task, run, options),
            after=lambda: write_json(done, {"options": options, "code": code(), "date": now()}),
        )  # fmt: skip

    def _segmenter(self, task: str) -> Step:
        path, steps = self.place.segmenter(task), self.budget.segmenter_steps
        words = ["--dataroot", str(self.place.data(task)), str(self.place.data(task, LESIONS)), "--out", str(path)]
        return self._step(
            f"{task} segmenter", task, path, (f"{task} data", f"{task} lesion_data"), "segmenter",
            command=lambda: [sys.executable, "-m", "benchmarks.fidelity.segment", *words, "--steps", str(steps)],
        )  # fmt: skip

    def _row(self, task: str, row: str, seed: int, phase: str) -> list[Step]:
        ready = (f"{task} E_eval", f"{task} segmenter")
        if row in BASELINES:
            name = f"{task} without training, {phase}"
            return [self._test(name, task, BASELINES, seed, phase, ready, [], "baselines")]
        base, name = trained_by(row), f"{task} {row} {seed}"
        train = self._train(task, base, seed)
        epoch = self._epoch(task, row, seed, phase)
        needs = [*ready, train.name, *([f"{name} val"] if ROWS[row].by_validation and phase != "val" else [])]
        tested = self._test(
            f"{name} {phase}", task, (row,), seed, phase, needs, ["--run", str(self.place.run(task, base, seed))],
            f"test {row}" if ROWS[row].by_validation else "test", epoch,
        )  # fmt: skip
        first = self._row(task, row, seed, "val") if ROWS[row].by_validation and phase != "val" else [train]
        return [*first, tested]

    def _train(self, task: str, row: str, seed: int) -> Step:
        run, folder = self.place.run(task, row, seed), self.place.unit(task, row, seed)
        done = folder / "train.json"

        def command() -> list[str]:
            options = self.options(task, row, seed)
            self._note_settings(folder, options)
            return self._training(task, run, options)

        return self._step(
            f"{task} {row} {seed} train", task, done, (f"{task} E_eval",), f"train {row}", resumable=True,
            command=command, after=lambda: write_json(done, {"date": now()}),
        )  # fmt: skip

    def _test(
        self, name: str, task: str, rows: Sequence[str], seed: int, phase: str, needs: Sequence[str], run: list[str],
        kind: str, epoch: Callable[[], list[str]] = list,
    ) -> Step:  # fmt: skip
        """Test rows of one training, or without any; afterwards their numbers are published."""
        out = self.place.rows(task) if not run else self.place.unit(task, rows[0], seed)
        words = ["--data", str(self.place.out), self.place.budget, task, "--phase", phase, "--out", str(out), *run]
        words += self._device()

        def publish() -> None:
            for row in rows:
                self._publish(task, row, seed)

        done = self.place.unit(task, rows[-1], seed) / f"{phase}.json"
        return self._step(
            name, task, done, needs, kind, after=publish,
            command=lambda: [sys.executable, "-m", "benchmarks.fidelity.work", *words, *epoch()],
        )  # fmt: skip

    # their options -------------------------------------------------------------------------------------------------

    def options(self, task: str, row: str, seed: int) -> list[str]:
        """The options of train.py for a row, once the data are there."""
        options = train_options(ROWS[row], self.budget.on(task), seed, Slices.of(self.place.data(task)))
        return [*options, *self._number_format()]

    def _epoch(self, task: str, row: str, seed: int, phase: str) -> Callable[[], list[str]]:
        """Which checkpoint is tested."""

        def words() -> list[str]:
            if ROWS[row].before_refinement:
                run = parse([*self.options(task, trained_by(row), seed), "--dataroot", "-"])
                return ["--epoch", str(before_refinement(run)), "--before_refinement"]
            if ROWS[row].by_validation:
                chosen = "best" if phase == "val" else read_json(self.place.unit(task, row, seed) / "val.json")["epoch"]
                return ["--epoch", chosen]
            return []

        return words

    def _note_settings(self, folder: Path, options: list[str]) -> None:
        """Write what a row is trained with, or compare it with what an earlier part of its training had.

        Raises: UserError: other options than before.
        """
        path, all_options = folder / SETTINGS, resolved(options)
        if not path.is_file():
            write_json(path, {"options": options, "resolved": all_options, "code": code()})
        elif changed := changes(read_json(path)["resolved"], all_options):
            raise UserError(f"{folder}: begun with other options ({changed}); remove it, or give another --out")

    def _training(self, task: str, run: Path, options: list[str]) -> list[str]:
        places = ["--dataroot", str(self.place.data(task)), "--checkpoints_dir", str(run.parent), "--name", run.name]
        begun = (run / "latest.pt").is_file()
        return program("train.py", *options, *places, "--continue_train" if begun else "--overwrite")

    def _number_format(self) -> list[str]:
        return [] if self.amp == AUTO else ["--amp", self.amp]

    def _device(self) -> list[str]:
        words = list(self.budget.options)
        return words[words.index("--gpu_ids") :][:2] if "--gpu_ids" in words else []

    def _size(self) -> list[str]:
        words = list(self.budget.options)
        return words[words.index("--load_size") :][:2] if "--load_size" in words else []


def resolved(options: Sequence[str]) -> dict[str, Any]:
    """All options of a training by name, those of its preset and the defaults included, but for the folders."""
    flat = parse([*options, "--dataroot", "-"]).flat()
    return {name: value for name, value in flat.items() if name not in ("dataroot", "name", "checkpoints_dir")}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Options that differ, in words; empty if none does. An option that only one of them has is new or gone."""
    names = [name for name in before if name in now and before[name] != now[name]]
    return ", ".join(f"--{name} {before[name]}, now {now[name]}" for name in names)


def program(name: str, *words: str) -> list[str]:
    """The command line of one of the repository's programs."""
    return [sys.executable, str(ROOT / name), *words]
