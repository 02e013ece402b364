"""The lines with which a training begins and ends: what runs where on what, where to watch it, where results lie."""

from __future__ import annotations

import shlex

import torch

from data.unaligned_dataset import UnalignedMaskDataset
from options.train_options import RunOptions
from training.log.dashboard import address
from training.log.loss_log import LOSS_LOG_NAME
from training.log.tensorboard_log import FOLDER_NAME
from training.log.training_report import REPORT_NAME
from training.run_info import device_name
from util.checkpoint import LATEST, checkpoint_path
from util.device import NUMBER_FORMATS
from util.threads import how_they_wait


def first_lines(
    run: RunOptions,
    dataset: UnalignedMaskDataset,
    unseen: UnalignedMaskDataset | None,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    n_processes: int,
) -> list[str]:
    """Device and number format, images, run folder, where to watch the run, and what the presets have beyond it."""
    count = torch.get_num_threads()
    several = f"s {how_they_wait()}" if count > 1 else ""
    threads = f", {count} thread{several}" if device.type == "cpu" else ""
    processes = f", {n_processes} processes" if n_processes > 1 else ""
    validation = "none" if unseen is None else f"{len(unseen.A)} of A, {len(unseen.B)} of B"
    return [
        f"device: {device} ({device_name(device)}{threads}{processes}), number format: {NUMBER_FORMATS[amp_dtype]}",
        f"images: {len(dataset.A)} of A, {len(dataset.B)} of B in {run.train.dataroot}; validation: {validation}",
        f"run folder: {run.run_dir}",
        f"watch it: {' and '.join(_places(run))}",
        *_not_used(run),
    ]


def last_lines(run: RunOptions) -> list[str]:
    """Where the results of a finished training lie, and the command to run next."""
    folders = ["--dataroot", run.train.dataroot, "--name", run.train.name, "--checkpoints_dir"]
    device = [] if run.train.gpu_ids == "auto" else ["--gpu_ids", run.train.gpu_ids]
    command = shlex.join(["python", "test.py", *folders, run.train.checkpoints_dir, *device])
    report = run.run_dir / (REPORT_NAME if run.display.html else LOSS_LOG_NAME)
    return [f"report: {report}", f"checkpoint: {checkpoint_path(run.run_dir, LATEST)}", f"next: {command}"]


def _not_used(run: RunOptions) -> list[str]:
    """What the presets for own data have and this run has not, if it trains generators."""
    network = run.network
    has = {
        "--flip": run.data.flip,
        "--lf_noise auto": getattr(network, "lf_noise", True),
        "--lf_bias auto": getattr(network, "lf_bias", True),
        "--n_epochs_refine 4": getattr(network, "n_epochs_refine", True),
    }
    missing = [option for option, used in has.items() if not used]
    if not hasattr(network, "n_epochs_refine") or not missing:
        return []
    return [f"tip: this run goes without {', '.join(missing)}, which --preset demo and small have and gained from"]


def _places(run: RunOptions) -> list[str]:
    """The report, the dashboard and TensorBoard; the table of losses if there is none."""
    display, places = run.display, []
    if display.html:
        places.append(str(run.run_dir / REPORT_NAME))
    if display.display_id > 0:
        places.append(address(display, run.train.name))
    if display.tensorboard:
        places.append(f"tensorboard --logdir {run.run_dir / FOLDER_NAME}")
    return places or [f"{run.run_dir / LOSS_LOG_NAME} (--no_html: no report)"]
