"""How faithful every model is: trained alike on the same simulated people, tested on people that none has seen.

python scripts/benchmark_fidelity.py --budget small [--models pta_hybrid,cycle_gan] [--jobs 2] [--out DIR] [--verify]

The work is divided into steps of one process and one thread each: simulate, train, test. Whatever ends the program,
the same command goes on where it was, and two commands may share a folder. Rows are tested on validation people as
they are ready. The test people are read when all rows of the budget are trained, or when --read_test asks for it. The
numbers of every row and seed go to the folder of --docs, and so do the tables that are made from them.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fidelity.budgets import BUDGETS
from benchmarks.fidelity.program import benchmark
from benchmarks.fidelity.store import PUBLISHED
from options.train_options import AMP
from util.errors import run_cli
from util.schema import CommandLine


def main(argv: Sequence[str]) -> int:
    """Run, or with --verify compute everything once more. Returns 1 if a step has failed or a number differs."""
    return benchmark(options_of(argv))


def options_of(argv: Sequence[str]) -> Namespace:
    """The command line, parsed."""
    parser = CommandLine(prog="benchmark_fidelity.py", description=__doc__)
    about = "; ".join(f"{name}: {budget.about}" for name, budget in BUDGETS.items())
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="quick", help=f"{about} [default: quick]")
    parser.add_argument("--models", help="only these rows or models, separated by commas [default: all]")
    parser.add_argument("--tasks", help="only these tasks, separated by commas [default: all]")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, of one thread each [default: 2]")
    parser.add_argument(
        "--out", default="benchmark_output", help="folder of data, runs, predictions [default: %(default)s]"
    )
    parser.add_argument("--docs", default=str(PUBLISHED), help="folder of units and tables [default: docs/benchmarks]")
    parser.add_argument(
        "--amp", choices=AMP, default="auto",
        help="number format of the trainings, as in train.py; a row compares with those of the same format and task",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, help="save and end after so many minutes [default: when all is done]")
    parser.add_argument("--read_test", action="store_true", help="read the test people before all rows are trained")
    parser.add_argument("--assemble", action="store_true", help="only write the tables, from the units that there are")
    parser.add_argument("--remeasure", action="store_true", help="only measure the kept predictions once more")
    parser.add_argument("--verify", action="store_true", help="compute all numbers once more from the predictions")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_cli(main, "benchmark_fidelity.py")
