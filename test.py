"""Test a trained run: `python test.py --dataroot DATA --name test --checkpoints_dir OUT --results_dir RESULTS`.

`--pretrained NAME` in place of `--name` takes a model that comes with the repository.
With `--dataset_mode volume`, DATA is a scan, or a folder of scans, NIfTI or DICOM, and comes back as NIfTI.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from options.test_options import parse
from util.errors import run_cli, warn
from util.processes import join_processes, set_threads
from util.threads import sleep_while_waiting

__test__ = False  # this is a program; its name makes pytest take it for a test


def main(argv: Sequence[str]) -> int:
    """Run the test, write the results folder and print a table; with --check_data, only check the data folder."""
    sleep_while_waiting()
    with join_processes() as processes:
        options = processes.alone(partial(parse, argv))
        # late: importing torch takes seconds, and `--help` or a typo should not wait for it
        import torch

        from data.folder.check import list_problems, summary
        from evaluation.writing import write_results
        from programs.testing import make_evaluation
        from programs.volume import check_scans, written

        if options.check_data and options.of_volumes:
            return check_scans(options, processes)
        if options.check_data:
            return list_problems(Path(options.dataroot), table_in=options.results) if processes.first else 0
        torch.manual_seed(options.seed)
        set_threads(processes, options.cpu_threads)
        evaluation = make_evaluation(options, argv, processes)
        if processes.first and evaluation.data.skipped:
            warn(f"--skip_bad left out {summary(evaluation.data.skipped, options.results)}")
        found = evaluation.run(processes)
    if found is not None:
        tested = f"{options.run_dir}, epoch {options.epoch}" if options.pretrained is None else str(options.run_dir)
        write_results(evaluation, *found, title=options.title, tested=tested)
        for path in written(options.results) if options.of_volumes else ():
            print(f"synthesis: {path}")
    return 0


if __name__ == "__main__":
    run_cli(main, Path(sys.argv[0]).name)
