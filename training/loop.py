"""The training loop over stages, epochs and steps, for any model and dataset."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.batch import Batch
from data.sampling import Batches
from data.unaligned_dataset import UnalignedMaskDataset
from models.base_model import BaseModel
from models.stage import Stage
from models.update import StepContext
from options.train_options import TrainOptions
from training.activations import Activations
from training.checkpoints import RunCheckpoints
from training.divergence import finite
from training.loader import explain_worker_deaths, load
from training.log.run_log import RunLog
from training.log.silent_log import SilentLog
from training.memory import fitting_micro_batch
from training.position import ends_of_stages, position_in, start_of
from training.random_state import random_state, set_random_state
from training.signals import Stopped, StopRequest
from util.checkpoint import LATEST, NewestCheckpoint
from util.errors import UserError
from util.processes import ALONE, Processes

VALIDATION_BATCHES = 8  # of unseen slices and of training slices, at the end of an epoch
PARTNER_CHUNK = 64  # slices that SGP embeds at a time


class Trainer:
    """Runs a model's stages on a dataset, logs, and saves checkpoints in the run folder.

    `position` holds the stage, the epoch, the batches done in the epoch, steps and images in the stage, and the size of
    a micro-batch. Together with the state of the model and of the random generators it makes a checkpoint, from which
    training continues as if it had never stopped.

    Every process of a run has a trainer. Each computes its part of every batch; the first one writes and decides.

    Args:
        activations: memory of a step by stage; a stage without an entry is never split, see `training.preflight`.
        stop: asks the trainer to save and end after the current step.
    """

    def __init__(
        self,
        model: BaseModel,
        dataset: UnalignedMaskDataset,
        unseen: UnalignedMaskDataset | None,
        options: TrainOptions,
        *,
        run_dir: Path,
        log: RunLog | SilentLog,
        device: torch.device,
        amp_dtype: torch.dtype | None,
        activations: Mapping[str, Activations],
        stop: StopRequest | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.dataset, self.unseen, self.options = model, dataset, unseen, options
        self.log, self.stop, self.processes = log, stop or StopRequest(), processes
        self.activations = activations
        self.checkpoints = RunCheckpoints(run_dir, options.keep_last, ends_of_stages(model.stages))
        self.context = StepContext(device, options.batch_size, amp_dtype, self.processes)
        self.position = start_of(0)
        self.saved_images = 0
        self.losses: dict[str, Tensor] = {}  # terms of the last step
        self.batch: Batch | None = None  # of the last step

    def fit(self) -> None:
        """Train from the current position to the end of the last stage. A run with more epochs may continue later.

        Raises:
            Stopped: `stop` asked for it; the state is saved.
            UserError: the training has diverged, or its state cannot be saved.
        """
        stages = self.model.stages
        for index in range(self.position["stage"], len(stages)):
            with explain_worker_deaths(self.options.num_threads, self.options.batch_size):
                self._run_stage(stages[index])
            if index + 1 < len(stages):
                self._keep_end_of(stages[index])
                self.position = start_of(index + 1)
            self.save()
        self.log.report()

    # one stage ---------------------------------------------------------------------------------------------------

    def _run_stage(self, stage: Stage) -> None:
        n_steps = self._prepare(stage)
        later = [each.name for each in self.model.stages[self.position["stage"] + 1 :]]
        self.log.stage(stage.name, n_steps, self.position["step"], later)
        # a run that was killed after the last step of an epoch must still end that epoch
        while self._unfinished(stage, n_steps) and not self._ended_early(stage):
            epoch = self.position["epoch"]
            self._run_epoch(stage, n_steps)
            self.position |= {"epoch": epoch + 1, "batch": 0}
            last = not self._unfinished(stage, n_steps)
            if last or (epoch + 1) % self.options.val_epoch_freq == 0:
                self._validate(stage)
            if stage.epochs_before is not None:
                number = stage.epochs_before + epoch + 1
                if number % self.options.save_epoch_freq == 0:
                    self.save(str(number))
        self._log_end(stage)
        if reason := self._ended_early(stage):
            self.log.note(f"{stage.name}: stopped after epoch {self.position['epoch']}: {reason}")

    def _keep_end_of(self, stage: Stage) -> None:
        """Save EPOCH.pt where another stage goes on with the networks, unless there is one.

        The stage may have ended in an earlier start of the run, with another --save_epoch_freq.
        """
        if stage.epochs_before is not None:
            number = stage.epochs_before + self.position["epoch"]
            if not self.processes.alone(partial(self.checkpoints.has, number)):
                self.save(str(number))

    def _prepare(self, stage: Stage) -> int:
        """Set up networks, partners and micro-batch before a stage's first step. Returns its number of steps."""
        stage.begin(self.model)
        self.losses, self.batch = {}, None
        partners = None
        if stage.chooses_partners:
            self.log.note("SGP: finding the nearest high-field slices of every low-field slice")
            levels = self.dataset.levels()
            low, high = (
                self.dataset.slices(domain, PARTNER_CHUNK, part=self.processes.part(len(of_domain)))
                for domain, of_domain in zip("AB", levels, strict=True)
            )
            partners = stage.partners_from(low, high, levels, self.processes)
        self.dataset.set_partners(partners)
        first = self._batches(stage, 0)
        self.context.images_seen = self.saved_images = self.position["images"]
        self.context.micro_batch = self._micro_batch(stage)
        return min(len(first) * stage.epochs, stage.steps or len(first) * stage.epochs)

    def _unfinished(self, stage: Stage, n_steps: int) -> bool:
        at = self.position
        return at["epoch"] < stage.epochs and (at["step"] < n_steps or at["batch"] > 0)

    def _ended_early(self, stage: Stage) -> str:
        """The reason, or nothing. The first process decides: in others the figures may differ in the last digit."""
        return self.processes.agreed(stage.ended_early())

    def _batches(self, stage: Stage, epoch: int) -> Batches:
        size = max(self.options.batch_size, stage.least_batch)
        return self.dataset.batches(stage.name, stage.sampling, epoch, size, places=stage.places)

    def _run_epoch(self, stage: Stage, n_steps: int) -> None:
        epoch, done = self.position["epoch"], self.position["batch"]
        batches = self._batches(stage, epoch)[done:]
        batches = batches[: n_steps - self.position["step"]]
        for whole, batch in zip(map(len, batches), self._loaded(self.dataset, batches, self.processes), strict=True):
            self.context.images = whole
            stage.set_learning_rate(epoch, self.position["step"])
            self.losses, self.batch = stage.step(batch, self.context), batch
            self.context.end_step()
            self.position["step"] += 1
            self.position["batch"] += 1
            self.position["images"] += whole
            self.context.images_seen += whole
            self.log.advance(whole)
            # read the signal once: it may arrive between saving and ending, and in some processes first
            last = self.position["step"] == n_steps
            due, stop = map(self.processes.largest, (self.log.losses_due(last), self.stop.signal or 0))
            if due or self.context.device.type == "cpu":  # on a GPU this check would wait for the device
                numbers = self._finite()
            if due:
                self.log.losses(epoch + 1, self.position["step"], numbers, stage.last_rate())
            self._log_images(epoch + 1, stage, last)
            if stop or self.position["images"] - self.saved_images >= self.options.save_latest_freq:
                self.saved_images = self.position["images"]
                self.save()
            if stop:
                raise Stopped(signal.Signals(stop))
        self._finite()

    def _log_end(self, stage: Stage) -> None:
        """Log the stage's last step if it has not been logged: the stage has ended early, or by its epochs."""
        if self.batch is None:  # resumed after the last step
            return
        if self.processes.largest(self.log.losses_due(last=True)):
            self.log.losses(self.position["epoch"], self.position["step"], self._finite(), stage.last_rate())
        self._log_images(self.position["epoch"], stage, last=True)

    def _log_images(self, epoch: int, stage: Stage, last: bool) -> None:
        if self.batch and self.log.images_due(last):  # of another process' images nothing is shown
            self.log.images(epoch, self.position["step"], self._visuals(self.batch, stage), last)

    def _finite(self) -> dict[str, float]:
        """The last step's losses as numbers. Raises UserError if they or the gradients are not finite."""
        stage = self.model.stages[self.position["stage"]].name
        place = f"step {self.position['step']} of stage {stage}; {self.checkpoints.last_saved()}"
        with self.processes.alike():
            return finite(self.model, self.losses, self.context, place)

    def _validate(self, stage: Stage) -> None:
        if self.unseen is None:
            return
        size = max(self.options.batch_size, stage.least_batch)
        unseen, seen = (
            self._loaded(dataset, dataset.batches("val", stage.sampling, 0, size)[:VALIDATION_BATCHES])
            for dataset in (self.unseen, self.dataset)
        )
        figures = stage.validate(unseen, seen, self.context)
        if figures:
            self.log.validation(self.position["epoch"], self.position["step"], figures)

    def _visuals(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        few = batch.rows(0, 4).to(self.context.device)
        return {name: image.float().cpu() for name, image in stage.visuals(few).items()}

    def _loaded(self, dataset: UnalignedMaskDataset, batches: Batches, processes: Processes = ALONE) -> Iterator[Batch]:
        return load(dataset, batches, workers=self.options.num_threads, device=self.context.device, processes=processes)

    def _micro_batch(self, stage: Stage) -> int:
        if self.options.micro_batch != "auto":
            return int(self.options.micro_batch)
        if saved := self.position["micro_batch"]:  # another size would round differently
            return saved
        most = -(-max(self.options.batch_size, stage.least_batch) // self.processes.size)
        needed = self.activations.get(stage.name)
        size = -self.processes.largest(
            -fitting_micro_batch(needed, most, self.context.device, self.processes.local_size)
        )
        if size < most:
            self.log.note(f"{stage.name}: batches of {most} are computed {size} images at a time")
        self.position["micro_batch"] = size
        return size

    # checkpoints -------------------------------------------------------------------------------------------------

    def save(self, *epochs: str) -> None:
        """Write `latest.pt`, and `EPOCH.pt` for `epochs`, each with its weights files.

        Raises:
            UserError: the last step was not finite, or the files cannot be written; the earlier state is unchanged.
        """
        self._finite()
        mine = {"generators": random_state(self.context.device), **self.model.process_state()}
        processes = self.processes.gathered(mine)
        # all processes wait until it is written: torchrun ends all of them as soon as one has ended
        self.processes.alone(partial(self._write, epochs, processes))

    def _write(self, epochs: tuple[str, ...], processes: list[dict[str, Any]]) -> None:
        content = {
            "model": self.model.state_dict(),
            "training": self.model.training_state(),
            "position": dict(self.position),
            "epochs_before": self.model.stages[self.position["stage"]].epochs_before,
            "scaler": self.context.scaler.state_dict(),
            "processes": processes,
        }
        self.checkpoints.save((*epochs, LATEST), content, self.model.exported_networks())

    def restore(self, newest: NewestCheckpoint) -> None:
        """Restore a checkpoint and continue from it.

        Raises:
            UserError: it is not a state of this run.
        """
        content = newest.content
        self.position = position_in(content, newest.path)
        try:
            self.model.load_state_dict(content["model"])
            self.model.load_training_state(content["training"])
            if self.context.scaler.is_enabled():
                self.context.scaler.load_state_dict(content["scaler"])
            processes = content["processes"]
            if not isinstance(processes, list) or not processes:
                raise ValueError("it has no state of any process")
            mine = processes[self.processes.rank % len(processes)]
            self.model.load_process_state(mine)
            set_random_state(mine["generators"], self.context.device)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(f"{newest.path}: cannot be continued, it is not a state of this run ({reason})") from error
        if len(processes) != self.processes.size:
            self.log.warn(
                f"{newest.path} was saved by {len(processes)} processes, now there are {self.processes.size}: "
                "training continues, but not bit for bit"
            )
        if self.processes.first:
            self.checkpoints.export(content, self.model.exported_networks())
        self.log.resume(self.model.stages[self.position["stage"]].name, self.position["step"])
