"""What train.py sets up before a run's first step, once its command line is parsed."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch

from models import MODELS
from options.train_options import RunOptions, for_device
from training.acceleration import accelerate, compile_networks
from training.announcement import first_lines
from training.data import open_data, warnings_of_data
from training.log.dashboard import require_visdom
from training.log.run_log import RunLog
from training.log.silent_log import SilentLog
from training.log.tensorboard_log import require_tensorboard
from training.loop import Trainer
from training.low_field.resolve import low_field
from training.preflight import preflight
from training.run_folder import begin_run, describe_run, hold_run_folder, requeued, state_to_continue
from training.signals import stop_on_signals
from util.device import amp_dtype, own_device
from util.processes import ALONE, Processes, set_threads
from util.shared_folder import require_shared


def make_trainer(run: RunOptions, argv: Sequence[str], held: ExitStack, processes: Processes = ALONE) -> Trainer:
    """Check and set up everything before a run's first step; `held` closes its lock, signal handlers and log."""
    processes.alone(partial(require_visdom, run.display))
    processes.alone(partial(require_tensorboard, run.display))
    device = processes.together(partial(own_device, run.train.gpu_ids, processes))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    set_threads(processes, run.train.cpu_threads)
    run = for_device(processes.agreed(requeued(run, os.environ)), device)
    dtype = amp_dtype(run.train.amp, device)
    processes.alone(partial(held.enter_context, hold_run_folder(run)))
    require_shared(run.run_dir, "--checkpoints_dir", processes)
    dataset, unseen, skipped = processes.first_alone(partial(open_data, run, processes))
    image_size = dataset.image_size()
    seed_everything(run.train.seed)
    found = processes.alone(partial(low_field, run, dataset))
    model = processes.together(partial(MODELS[run.model], found.put_into(run.network), image_size)).to(device)
    processes.together(partial(accelerate, model, run.train, processes))
    newest = processes.first_alone(partial(state_to_continue, run, image_size, model.stages))
    if newest is None:
        processes.together(model.load_given_weights)
    needs = processes.together(partial(preflight, run, model, dataset, device, dtype, newest))
    processes.together(partial(compile_networks, model, run.train, device))
    processes.alone(partial(begin_run, run, image_size, newest))
    log: RunLog | SilentLog = SilentLog()
    if processes.first:
        other = describe_run(run, argv, dataset, device, resumed=bool(newest), skipped=skipped, more=found.recorded())
        log = RunLog(run.run_dir, run.display)
        log.note(*first_lines(run, dataset, unseen, device, dtype, processes.size), *found.lines, needs.sentence)
        for warning in (*warnings_of_data(run, dataset, skipped), other, newest.warning if newest else ""):
            if warning:
                log.warn(warning)
    held.push(log.leave)
    seed_everything(run.train.seed + processes.rank)  # all processes have the same weights but different dropout
    trainer = Trainer(
        model,
        dataset,
        unseen,
        run.train,
        run_dir=run.run_dir,
        log=log,
        device=device,
        amp_dtype=dtype,
        activations=needs.activations,
        stop=held.enter_context(stop_on_signals(copied=processes.size > 1, announce=processes.first)),
        processes=processes,
    )
    if newest is not None:
        trainer.restore(newest)
    return trainer


def seed_everything(seed: int) -> None:
    """Seed every global random generator. The order and sampling of the data do not depend on them."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
