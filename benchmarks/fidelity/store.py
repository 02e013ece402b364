"""Where the benchmark keeps what, and what it says about the machine and the code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from evaluation.record import write_json as write_strict
from training.run_info import git_commit
from util.device import NUMBER_FORMATS, amp_dtype
from util.errors import UserError
from util.reading import read_json
from util.threads import usable_processors

ROOT = Path(__file__).resolve().parent.parent.parent
PUBLISHED = ROOT / "docs" / "benchmarks"
LESIONS = "lesions"  # the phase on test people's heads with lesions
TABLES, CLAIMING = "fidelity", "small"  # the budget that README speaks of has the plain name
PHASES = ("val", "test", LESIONS)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    """The folders of a budget: large files in `out`, the units' numbers in `published` too."""

    out: Path
    budget: str
    published: Path = PUBLISHED

    def data(self, task: str, phase: str = "") -> Path:
        """The data folder of a task and phase."""
        return self.out / self.budget / task / ("lesion_data" if phase == LESIONS else "data")

    def segmenter(self, task: str) -> Path:
        """The weights of the segmenter."""
        return self.out / self.budget / task / "segmenter.pt"

    def runs(self, task: str) -> Path:
        """The run folders of a task."""
        return self.out / self.budget / task / "checkpoints"

    def run(self, task: str, row: str, seed: int) -> Path:
        return self.runs(task) / f"{row.replace('/', '--')}-s{seed}"

    def encoder(self, task: str) -> Path:
        """The run folder of E_eval."""
        return self.runs(task) / "eval_encoder"

    def rows(self, task: str) -> Path:
        return self.out / self.budget / task / "rows"

    def unit(self, task: str, row: str, seed: int) -> Path:
        """The folder of a row's predictions and measures with one seed."""
        return self.rows(task) / row / str(seed)

    def steps(self, task: str) -> Path:
        """The folder of locks and logs of a task's steps."""
        return self.out / self.budget / task / "steps"

    def tables(self, suffix: str) -> Path:
        """A file of the tables: of the plain name for the budget that supports claims, of the budget's for others."""
        return self.published / f"{TABLES if self.budget == CLAIMING else f'{TABLES}_{self.budget}'}{suffix}"

    def figure(self, task: str) -> Path:
        """The figure of a task, beside the tables."""
        return self.tables(f"_{task}.png")

    def slice(self, task: str, row: str, seed: int) -> Path:
        """The slice that the figure of a task shows of a row, beside the row's published unit."""
        return self.units / task / row / f"{seed}.png"

    @property
    def units(self) -> Path:
        """The published units."""
        return self.published / "units" / self.budget

    def publish(self, task: str, row: str, seed: int, settings: Mapping[str, Any]) -> None:
        """Write the unit's numbers, of all phases there are, among the published ones."""
        folder = self.unit(task, row, seed)
        found = {phase: read_json(folder / f"{phase}.json") for phase in PHASES if (folder / f"{phase}.json").is_file()}
        about = {"budget": self.budget, "task": task, "row": row, "seed": seed}
        write_json(self.units / task / row / f"{seed}.json", {**about, **settings, **found})

    def published_units(self) -> list[dict[str, Any]]:
        """All published units of the budget.

        Raises: UserError: a file is not a unit.
        """
        paths = sorted(self.units.rglob("*.json"))
        units = [read_json(path) for path in paths]
        for path, unit in zip(paths, units, strict=True):
            if not isinstance(unit, dict) or not {"task", "row", "seed"} <= unit.keys():
                raise UserError(f"{path}: not a unit of the benchmark")
        return units


def split_of(phase: str) -> str:
    """The split of the data folder that a phase reads."""
    return "test" if phase == LESIONS else phase


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON, whole or not at all, and the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_strict(path, content)


def now() -> str:
    """The date and time with the zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def machine(device: torch.device = CPU, amp: str = "auto") -> str:
    """The processor or GPU, in words, and the number format that `--amp` takes there.

    Processors of one name differ in what `auto` is, and a training in bfloat16 ends elsewhere than one in float32.
    """
    precision = NUMBER_FORMATS[amp_dtype(amp, device)]
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = "unknown processor"
    return f"{usable_processors()} processors, {name}, {precision}"


def code() -> str:
    """The commit of this repository."""
    return git_commit(ROOT) or "unknown"
