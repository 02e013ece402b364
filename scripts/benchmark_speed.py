"""How fast training, inference, preprocessing, loading and simulation are here, beside what the machine can do.

python scripts/benchmark_speed.py [--cases train,infer,load,preprocess,simulate,start,growth] [--size 224] [--batch 4]

`load` builds a data folder's cache (cold) and reads from it (warm). `start` is what train.py does before its first step
with `--slices` in the data folder. `growth` repeats `start` for 1000 slices and ever ten times more, and `train` for
slices of 128 to 512 pixels a side; the largest take minutes on a CPU.

Every case runs in a process of its own, so that its peak memory is its own. `--compare OLD.jsonl` puts an earlier run's
figures (its `--json` output) beside these. `--profile` adds, for train and infer, the operations that take most time:
seconds, their share, and the FLOP of products and convolutions (see benchmarks/speed/operations.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks.speed.case import Case
from models import MODELS
from options.train_options import AMP
from util.errors import UserError, run_cli
from util.lazy import Lazy
from util.schema import CommandLine
from util.threads import sleep_while_waiting

Measure = Lazy[dict[str, Any]]  # a function of a `Case`, imported by the process that it runs in

CASES: dict[str, Measure] = {
    "train": Lazy("benchmarks.speed.compute.train_case"),
    "infer": Lazy("benchmarks.speed.compute.infer_case"),
    "load": Lazy("benchmarks.speed.data.load_case"),
    "preprocess": Lazy("benchmarks.speed.data.preprocess_case"),
    "simulate": Lazy("benchmarks.speed.data.simulate_case"),
    "start": Lazy("benchmarks.speed.start.start_case"),
}
GROWTH = "growth"
SIDES = (128, 256, 384, 512)  # pixels
LEAST_SLICES = 1000
NAMES = (*CASES, GROWTH)
GIGA = ("flop_per_step", "flop_per_s", "conv_rate", "copy_rate", "flop_of", "operation_flop")  # shown in 10^9
DESCRIBING = ("case", "model", "size", "batch", "micro_batch", "amp", "device", "parameters_G", "slices")  # no speeds


def main(argv: Sequence[str]) -> None:
    """Run the cases asked for and print them."""
    parser = CommandLine(prog="benchmark_speed.py", description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(NAMES)} [default: all but {GROWTH}]")
    parser.add_argument("--model", choices=tuple(MODELS), default="pta_hybrid", help="[default: pta_hybrid]")
    parser.add_argument("--size", type=int, default=224, help="side of the slices in pixels [default: 224]")
    parser.add_argument("--batch", type=int, default=4, help="slices of either domain a step [default: 4]")
    parser.add_argument("--amp", choices=AMP, default="auto", help="[default: auto]")
    parser.add_argument("--gpu_ids", default="auto", help="as for train.py [default: auto]")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long a timing takes [default: 20]")
    parser.add_argument("--slices", type=int, default=10**6, help="in the largest data folder [default: 1000000]")
    parser.add_argument("--profile", action="store_true", help="for train and infer: which operations take the time")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of tables")
    parser.add_argument("--compare", metavar="OLD.jsonl", help="figures of an earlier run, by --json")
    parser.add_argument("train_args", nargs="*", help="after --: further options of train.py, for the model")
    options = parser.parse_args(argv)
    names = options.cases.split(",")
    for name in names:
        if name not in NAMES:
            raise UserError(f"--cases {name}: unknown, choose from {', '.join(NAMES)}")
    if options.size < 16 or options.batch < 1:
        raise UserError(f"--size {options.size}, --batch {options.batch}: need at least 16 and 1")
    if options.slices < LEAST_SLICES:
        raise UserError(f"--slices {options.slices}: need at least {LEAST_SLICES}")
    before = read_results(Path(options.compare)) if options.compare else {}
    case = Case(
        options.model, options.size, options.batch, options.amp, options.gpu_ids, options.seconds,
        tuple(options.train_args), options.slices, options.profile,
    )  # fmt: skip
    sleep_while_waiting()  # as in training, whose speed this is: the processes of the cases inherit it
    for name in names:
        for measure, one in parts(name, case):
            with get_context("spawn").Pool(1) as pool:
                found = {**pool.apply(measure, (one,)), "case": name}
            if options.json:
                print(json.dumps(found), flush=True)
            else:
                show(found, before.get(key_of(found), {}))


def parts(name: str, case: Case) -> list[tuple[Measure, Case]]:
    """What a case is measured by: itself, or what grows."""
    if name != GROWTH:
        return [(CASES[name], case)]
    counts = [LEAST_SLICES * 10**power for power in range(10) if LEAST_SLICES * 10**power <= case.slices]
    return [
        *((CASES["start"], replace(case, slices=count)) for count in counts),
        *((CASES["train"], replace(case, size=side)) for side in SIDES),
    ]


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells results apart: the case, and in `growth` what has grown."""
    return (row["case"], row.get("slices"), row.get("size")) if row["case"] == GROWTH else (row["case"],)


def read_results(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Earlier results by case; the last of each counts."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {key_of(row): row for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--compare {path}: not the --json output of an earlier run ({error})") from error


def show(found: dict[str, Any], before: dict[str, Any]) -> None:
    """One case as a table, with the earlier run's figures if there are any."""
    title = ", ".join(f"{name} {found[name]}" for name in DESCRIBING if name in found)
    table = Table("figure", "now", *(["before", "now / before"] if before else []), title=title, title_justify="left")
    for name, value in found.items():
        if name in DESCRIBING:
            continue
        for label, number in value.items() if isinstance(value, dict) else ((name, value),):
            part = label if label == name else f"{name} {label}"
            old = before.get(name, {}) if isinstance(value, dict) else before.get(name)
            old = old.get(label) if isinstance(old, dict) else old
            row = [part, shown(name, number)]
            if before:
                row += [shown(name, old), f"{number / old:.2f}"] if old else ["", ""]
            table.add_row(*row)
    Console().print(table)


def shown(name: str, value: float | None) -> str:
    """A number for the table; operations, bytes and their rates in 10^9."""
    if value is None:
        return ""
    return f"{value / 1e9:.4g} G" if name in GIGA else f"{value:.4g}"


if __name__ == "__main__":
    run_cli(main, "benchmark_speed.py")
