"""The training loop: any model, any dataset, stage after stage, epoch after epoch, step after step."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.batch import Batch
from data.unaligned_dataset import UnalignedMaskDataset, collate
from models.base_model import BaseModel, Stage, StepContext
from options.train_options import TrainOptions
from training.checkpoints import RunCheckpoints
from training.divergence import finite
from training.memory import fitting_micro_batch
from training.position import position_in, start_of
from training.random_state import random_state, set_random_state
from training.signals import Stopped, StopRequest, ignore_in_worker
from util.checkpoint import LATEST, NewestCheckpoint
from util.errors import UserError
from util.run_log import RunLog

VALIDATION_BATCHES = 8
PARTNER_CHUNK = 64


class Trainer:
    """Runs a model's stages on a dataset and keeps the run folder.

    Where it stands is `position`: stage, epoch, batches done in the epoch, steps and images in the stage, and how many
    images at once the stage computes. Together with the model's state and the generators' it makes a checkpoint from
    which training goes on as if it had never stopped. `stop` asks it to save and end after the running step.
    """

    def __init__(
        self,
        model: BaseModel,
        dataset: UnalignedMaskDataset,
        unseen: UnalignedMaskDataset | None,
        options: TrainOptions,
        *,
        run_dir: Path,
        log: RunLog,
        device: torch.device,
        amp_dtype: torch.dtype | None,
        stop: StopRequest | None = None,
    ) -> None:
        self.model, self.dataset, self.unseen, self.options = model, dataset, unseen, options
        self.log, self.stop = log, stop or StopRequest()
        self.checkpoints = RunCheckpoints(run_dir, options.keep_last)
        generator = torch.Generator().manual_seed(options.seed)
        self.context = StepContext(device, generator, micro_batch=options.batch_size, amp_dtype=amp_dtype)
        self.position = start_of(0)
        self.saved_images = 0
        self.losses: dict[str, Tensor] = {}  # of the last step

    def fit(self) -> None:
        """Train from the current position to the end of the last stage, where a longer run may go on later.

        Raises:
            Stopped: as `stop` asked; the state is saved.
            UserError: the training has diverged, or its state cannot be saved.
        """
        stages = self.model.stages
        for index in range(self.position["stage"], len(stages)):
            self._run_stage(stages[index])
            if index + 1 < len(stages):
                self.position = start_of(index + 1)
            self.save()
        self.log.report()

    # one stage ---------------------------------------------------------------------------------------------------

    def _run_stage(self, stage: Stage) -> None:
        n_steps = self._prepare(stage)
        self.log.stage(stage.name, n_steps, self.position["step"])
        # a run killed after the last step of an epoch has still to end that epoch
        while self._unfinished(stage, n_steps) and not self.model.wants_to_stop(stage):
            epoch = self.position["epoch"]
            self._run_epoch(stage, n_steps)
            with warnings.catch_warnings():  # a run resumed at an epoch's end has made no step in this process
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                self.model.step_schedulers(stage)
            self.position |= {"epoch": epoch + 1, "batch": 0}
            last = not self._unfinished(stage, n_steps)
            if last or (epoch + 1) % self.options.val_epoch_freq == 0:
                self._validate(stage)
            if stage.epochs_before is not None:
                number = stage.epochs_before + epoch + 1
                if number % self.options.save_epoch_freq == 0:
                    self.save(str(number))
        if reason := self.model.wants_to_stop(stage):
            self.log.note(f"{stage.name}: stopped after epoch {self.position['epoch']}: {reason}")

    def _prepare(self, stage: Stage) -> int:
        """Networks in their modes, partners, memory: what a stage needs before its first step; returns its steps."""
        self.model.eval()
        for network in self.model.stage_networks(stage):
            network.train()
        partners = None
        if self.model.wants_partners(stage):
            self.log.note("SGP: finding every low-field slice's nearest high-field slices")
            partners = self.model.partners(*(self.dataset.slices(domain, PARTNER_CHUNK) for domain in ("A", "B")))
        self.dataset.set_partners(partners)
        first = self._batches(stage, 0)
        self.context.images_seen = self.saved_images = self.position["images"]
        self.context.micro_batch = self._micro_batch(stage, first[0])
        return min(len(first) * stage.epochs, stage.steps or len(first) * stage.epochs)

    def _unfinished(self, stage: Stage, n_steps: int) -> bool:
        at = self.position
        return at["epoch"] < stage.epochs and (at["step"] < n_steps or at["batch"] > 0)

    def _batches(self, stage: Stage, epoch: int) -> list[list[Any]]:
        size = max(self.options.batch_size, stage.least_batch)
        return self.dataset.batches(stage.name, stage.sampling, epoch, size)

    def _run_epoch(self, stage: Stage, n_steps: int) -> None:
        epoch, done = self.position["epoch"], self.position["batch"]
        draws = self._batches(stage, epoch)[done:]
        for batch in self._loader(self.dataset, draws[: n_steps - self.position["step"]]):
            self.losses = self.model.training_step(batch.to(self.context.device), stage, self.context)
            self.position["step"] += 1
            self.position["batch"] += 1
            self.position["images"] += len(batch)
            self.context.images_seen += len(batch)
            self.log.advance(len(batch))
            due = self.log.losses_due()
            if due or self.context.device.type == "cpu":  # elsewhere looking means waiting
                numbers = self._finite()
            if due:
                self.log.losses(epoch + 1, self.position["step"], numbers)
            if self.log.images_due():
                self.log.images(epoch + 1, self.position["step"], self._visuals(batch, stage))
            stop = self.stop.signal  # read once: it may come between saving and leaving
            if stop or self.position["images"] - self.saved_images >= self.options.save_latest_freq:
                self.saved_images = self.position["images"]
                self.save()
            if stop:
                raise Stopped(stop)
        self._finite()

    def _finite(self) -> dict[str, float]:
        """The last step's losses as numbers; UserError if they or its gradients are not finite."""
        stage = self.model.stages[self.position["stage"]].name
        place = f"step {self.position['step']} of stage {stage}; {self.checkpoints.last_saved()}"
        return finite(self.model, self.losses, place)

    def _validate(self, stage: Stage) -> None:
        if self.unseen is None:
            return
        size = max(self.options.batch_size, stage.least_batch)
        draws = self.unseen.batches("val", stage.sampling, 0, size)
        batches = itertools.islice(self._loader(self.unseen, draws), VALIDATION_BATCHES)
        figures = self.model.validate(stage, batches, self.context)
        if figures:
            self.log.validation(self.position["epoch"], self.position["step"], figures)

    def _visuals(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        few = batch.rows(0, 4).to(self.context.device)
        return {name: image.float().cpu() for name, image in self.model.visuals(few, stage, self.context).items()}

    def _loader(self, dataset: UnalignedMaskDataset, draws: list[list[Any]]) -> Iterator[Batch]:
        workers = self.options.num_threads
        return iter(
            DataLoader(
                dataset,
                batch_sampler=draws,
                collate_fn=collate,
                num_workers=workers,
                worker_init_fn=ignore_in_worker,
                generator=torch.Generator(),  # else it would draw a number from torch's own at every resume
                pin_memory=self.context.device.type == "cuda",
            )
        )

    def _micro_batch(self, stage: Stage, draws: list[Any]) -> int:
        if self.options.micro_batch != "auto":
            return int(self.options.micro_batch)
        if kept := self.position["micro_batch"]:  # another size would round differently
            return kept
        one = collate([self.dataset[draws[0]]]).to(self.context.device)
        needed = self.model.activation_bytes(one, stage, self.context)
        whole = max(self.options.batch_size, stage.least_batch)
        size = fitting_micro_batch(needed, whole, self.context.device)
        if size < whole:
            self.log.note(f"{stage.name}: batches of {whole} are computed {size} images at a time")
        self.position["micro_batch"] = size
        return size

    # checkpoints -------------------------------------------------------------------------------------------------

    def save(self, *epochs: str) -> None:
        """Write `latest.pt`, and `EPOCH.pt` for `epochs`, each with the weights alone.

        Raises:
            UserError: the last step was not finite, or the files cannot be written; the state saved before stays.
        """
        self._finite()
        content = {
            "model": self.model.state_dict(),
            "training": self.model.training_state(),
            "position": dict(self.position),
            "epochs_before": self.model.stages[self.position["stage"]].epochs_before,
            "generators": {**random_state(self.context.device), "steps": self.context.generator.get_state()},
        }
        self.checkpoints.save((*epochs, LATEST), content, self.model.exported_networks())

    def restore(self, newest: NewestCheckpoint) -> None:
        """Take up where a checkpoint left off.

        Raises:
            UserError: it is not the state of such a run.
        """
        content = newest.content
        self.position = position_in(content, newest.path)
        try:
            self.model.load_state_dict(content["model"])
            self.model.load_training_state(content["training"])
            set_random_state(content["generators"], self.context.device)
            self.context.generator.set_state(content["generators"]["steps"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(f"{newest.path}: cannot be continued, it is not a state of this run ({reason})") from error
        self.checkpoints.export(content, self.model.exported_networks())
        self.log.resume(self.model.stages[self.position["stage"]].name, self.position["step"])
