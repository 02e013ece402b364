"""Train a model: `python train.py --dataroot DATA --name test --model pta_hybrid …`; `--help` lists the options."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from data.check import check_data, report, told
from models import MODELS
from options.train_options import RunOptions, for_device, parse
from training.data import open_data
from training.loop import Trainer
from training.run_folder import describe_run, open_run_folder, requeued
from training.signals import Stopped, stop_on_signals
from util.dashboard import require_visdom
from util.device import amp_dtype, choose_device
from util.errors import run_cli
from util.run_log import RunLog


def make_trainer(run: RunOptions, argv: Sequence[str], held: ExitStack) -> Trainer:
    """Everything of a run, checked and in place, before its first step; `held` are its lock, signals and log."""
    require_visdom(run.display)
    device = choose_device(run.train.gpu_ids)
    run = for_device(requeued(run, os.environ), device)
    torch.manual_seed(run.train.seed)
    np.random.seed(run.train.seed)  # noqa: NPY002
    random.seed(run.train.seed)
    dataset, unseen, skipped = open_data(run)
    image_size = dataset.image_size()
    model = MODELS[run.model](run.network, image_size).to(device)  # type: ignore[call-arg]
    newest = held.enter_context(open_run_folder(run, image_size, model.stages))
    other_data = describe_run(run, argv, dataset, device, resumed=newest is not None, skipped=skipped)
    log = RunLog(run.run_dir, run.display)
    held.callback(log.close)
    if skipped:
        log.warn(f"--skip_bad left out {told(skipped, run.run_dir)}")
    if other_data:
        log.warn(other_data)
    trainer = Trainer(
        model,
        dataset,
        unseen,
        run.train,
        run_dir=run.run_dir,
        log=log,
        device=device,
        amp_dtype=amp_dtype(run.train.amp, device),
        stop=held.enter_context(stop_on_signals()),
    )
    if newest is not None:
        if newest.warning:
            log.warn(newest.warning)
        trainer.restore(newest)
    return trainer


def main(argv: Sequence[str]) -> int:
    """Train from start, or from the newest checkpoint, to the end; the status: 0, or 128 and the signal's number."""
    run = parse(argv)
    if run.train.check_data:
        return report(check_data(Path(run.train.dataroot)), table_in=run.run_dir)
    with ExitStack() as held:
        trainer = make_trainer(run, argv, held)
        try:
            trainer.fit()
        except Stopped as stopped:
            trainer.log.note(f"{stopped}, {trainer.checkpoints.last_saved()}; add --continue_train to go on")
            return stopped.status
    return 0


if __name__ == "__main__":
    run_cli(main, Path(sys.argv[0]).name)
