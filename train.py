"""Train a model: `python train.py --dataroot DATA …`, or with torchrun (docs/scale.md); `--help` lists options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from options.train_options import parse
from util.errors import run_cli
from util.processes import join_processes
from util.threads import sleep_while_waiting


def main(argv: Sequence[str]) -> int:
    """Train to the end, from the start or the newest checkpoint. Returns 0, or 128 plus the number of a signal."""
    sleep_while_waiting()
    with ExitStack() as held:
        processes = held.enter_context(join_processes())
        run = processes.alone(partial(parse, argv))
        # late: importing torch takes seconds, and `--help` or a typo should not wait for it
        from data.folder.check import list_problems
        from programs.training import make_trainer
        from training.announcement import last_lines
        from training.signals import Stopped

        if run.train.check_data:
            return list_problems(Path(run.train.dataroot), table_in=run.run_dir) if processes.first else 0
        trainer = make_trainer(run, argv, held, processes)
        try:
            trainer.fit()
        except Stopped as stopped:
            trainer.log.stop(f"{stopped}, {trainer.checkpoints.last_saved()}; add --continue_train to go on")
            return stopped.status
        trainer.log.end(last_lines(run))
    return 0


if __name__ == "__main__":
    run_cli(main, Path(sys.argv[0]).name)
