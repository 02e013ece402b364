"""Train a model: `python train.py --dataroot DATA --name test --model pta_hybrid …`; `--help` lists the options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from data.registry import DATASETS
from data.slice_folder import find_folder
from models import MODELS
from options.train_options import RunOptions, for_device, parse
from training.loop import Trainer
from training.run_folder import fingerprint, open_run_folder
from util.dashboard import require_visdom
from util.device import amp_dtype, choose_device
from util.errors import run_cli
from util.run_info import write_run_info
from util.run_log import RunLog


def make_trainer(run: RunOptions, argv: Sequence[str]) -> Trainer:
    """Everything of a run, checked and in place, before its first step."""
    require_visdom(run.display)
    device = choose_device(run.train.gpu_ids)
    run = for_device(run, device)
    torch.manual_seed(run.train.seed)
    dataroot, dataset_class = Path(run.train.dataroot), DATASETS[run.dataset_mode]
    dataset = dataset_class(dataroot, run.data, split="train", seed=run.train.seed)
    has_unseen = all(find_folder(dataroot, "val", domain) for domain in ("A", "B"))
    unseen = dataset_class(dataroot, run.data, split="val", seed=run.train.seed) if has_unseen else None
    for part in (dataset, unseen):
        if part is not None:
            part.check()
    image_size = dataset.image_size()
    model = MODELS[run.model](run.network, image_size).to(device)  # type: ignore[call-arg]
    checkpoint = open_run_folder(run, image_size, model.stages)
    write_run_info(
        run.run_dir,
        seed=run.train.seed,
        command=["train.py", *argv],
        data_fingerprint=fingerprint(dataset),
        device=device,
        resumed=checkpoint is not None,
    )
    trainer = Trainer(
        model,
        dataset,
        unseen,
        run.train,
        run_dir=run.run_dir,
        log=RunLog(run.run_dir, run.display),
        device=device,
        amp_dtype=amp_dtype(run.train.amp, device),
    )
    if checkpoint is not None:
        trainer.restore(checkpoint)
    return trainer


def main(argv: Sequence[str]) -> None:
    """Train from start, or from latest.pt, to the end."""
    trainer = make_trainer(parse(argv), argv)
    try:
        trainer.fit()
    finally:
        trainer.log.close()


if __name__ == "__main__":
    run_cli(main, Path(sys.argv[0]).name)
