"""The training loop: any model, any dataset, stage after stage, epoch after epoch, step after step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.batch import Batch
from data.unaligned_dataset import UnalignedMaskDataset, collate
from models.base_model import BaseModel, Stage, StepContext
from models.weights import weights_name
from options.train_options import TrainOptions
from training.memory import fitting_micro_batch
from util.checkpoint import checkpoint_path, write_atomically, write_checkpoint
from util.errors import UserError
from util.run_log import RunLog

VALIDATION_BATCHES = 8
PARTNER_CHUNK = 64


class Trainer:
    """Runs a model's stages on a dataset and keeps the run folder.

    Where it stands is `position`: stage, epoch, batches done in the epoch, steps and images in the stage. Together with
    the model's state and the generators' it makes a checkpoint from which training goes on as if it had never stopped.
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
    ) -> None:
        self.model, self.dataset, self.unseen, self.options = model, dataset, unseen, options
        self.run_dir, self.log = run_dir, log
        generator = torch.Generator().manual_seed(options.seed)
        self.context = StepContext(device, generator, micro_batch=options.batch_size, amp_dtype=amp_dtype)
        self.position = {"stage": 0, "epoch": 0, "batch": 0, "step": 0, "images": 0}
        self.saved_images = 0

    def fit(self) -> None:
        """Train from the current position to the end of the last stage, where a longer run may go on later."""
        stages = self.model.stages
        for index in range(self.position["stage"], len(stages)):
            self._run_stage(stages[index])
            if index + 1 < len(stages):
                self.position = {"stage": index + 1, "epoch": 0, "batch": 0, "step": 0, "images": 0}
            self.save("latest")
        self.log.report()

    # one stage ---------------------------------------------------------------------------------------------------

    def _run_stage(self, stage: Stage) -> None:
        self.model.eval()
        for network in self.model.stage_networks(stage):
            network.train()
        partners = None
        if self.model.wants_partners(stage):
            self.log.note("SGP: finding every low-field slice's nearest high-field slices")
            partners = self.model.partners(*(self.dataset.slices(domain, PARTNER_CHUNK) for domain in ("A", "B")))
        self.dataset.set_partners(partners)
        first = self._batches(stage, 0)
        n_steps = min(len(first) * stage.epochs, stage.steps or len(first) * stage.epochs)
        self.context.images_seen = self.saved_images = self.position["images"]
        self.context.micro_batch = self._micro_batch(stage, first[0])
        self.log.stage(stage.name, n_steps, self.position["step"])
        while self.position["epoch"] < stage.epochs and self.position["step"] < n_steps:
            epoch = self.position["epoch"]
            self._run_epoch(stage, n_steps)
            self.model.step_schedulers(stage)
            self.position |= {"epoch": epoch + 1, "batch": 0}
            last = epoch + 1 == stage.epochs or self.position["step"] >= n_steps
            if last or (epoch + 1) % self.options.val_epoch_freq == 0:
                self._validate(stage)
            if stage.epochs_before is not None:
                number = stage.epochs_before + epoch + 1
                if number % self.options.save_epoch_freq == 0:
                    self.save(str(number))
                    self.save("latest")
            if reason := self.model.wants_to_stop(stage):
                self.log.note(f"{stage.name}: stopped after epoch {epoch + 1}: {reason}")
                return

    def _batches(self, stage: Stage, epoch: int) -> list[list[Any]]:
        size = max(self.options.batch_size, stage.least_batch)
        return self.dataset.batches(stage.name, stage.sampling, epoch, size)

    def _run_epoch(self, stage: Stage, n_steps: int) -> None:
        epoch, done = self.position["epoch"], self.position["batch"]
        draws = self._batches(stage, epoch)[done:]
        for batch in self._loader(self.dataset, draws[: n_steps - self.position["step"]]):
            losses = self.model.training_step(batch.to(self.context.device), stage, self.context)
            self.position["step"] += 1
            self.position["batch"] += 1
            self.position["images"] += len(batch)
            self.context.images_seen += len(batch)
            self.log.advance(len(batch))
            if self.log.losses_due():
                self.log.losses(epoch + 1, self.position["step"], self._finite(losses, stage))
            if self.log.images_due():
                self.log.images(epoch + 1, self.position["step"], self._visuals(batch, stage))
            if self.position["images"] - self.saved_images >= self.options.save_latest_freq:
                self.saved_images = self.position["images"]
                self._finite(losses, stage)
                self.save("latest")

    def _finite(self, losses: dict[str, Tensor], stage: Stage) -> dict[str, float]:
        """The losses as numbers: the only place that waits for the device. Stops at the first that is not finite."""
        numbers = {name: float(value) for name, value in losses.items()}
        for name, value in numbers.items():
            if not -float("inf") < value < float("inf"):
                raise UserError(
                    f"loss '{name}' is {value} at step {self.position['step']} of stage {stage.name}; "
                    f"the last good state is {checkpoint_path(self.run_dir, 'latest')}, a smaller --lr may help"
                )
        return numbers

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
                pin_memory=self.context.device.type == "cuda",
            )
        )

    def _micro_batch(self, stage: Stage, draws: list[Any]) -> int:
        if self.options.micro_batch != "auto":
            return int(self.options.micro_batch)
        one = collate([self.dataset[draws[0]]]).to(self.context.device)
        needed = self.model.activation_bytes(one, stage, self.context)
        whole = max(self.options.batch_size, stage.least_batch)
        size = fitting_micro_batch(needed, whole, self.context.device)
        if size < whole:
            self.log.note(f"{stage.name}: batches of {whole} are computed {size} images at a time")
        return size

    # checkpoints -------------------------------------------------------------------------------------------------

    def save(self, epoch: str) -> None:
        """Write `EPOCH.pt`, and with `latest` the weights alone."""
        content = {
            "model": self.model.state_dict(),
            "training": self.model.training_state(),
            "position": dict(self.position),
            "epochs_before": self.model.stages[self.position["stage"]].epochs_before,
            "generators": {"torch": torch.get_rng_state(), "steps": self.context.generator.get_state()},
        }
        write_checkpoint(checkpoint_path(self.run_dir, epoch), content)
        for name, network in self.model.exported_networks().items():
            write_atomically(self.run_dir / weights_name(epoch, name), network.state_dict())

    def restore(self, content: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.model.load_state_dict(content["model"])
        self.model.load_training_state(content["training"])
        self.position = dict(content["position"])
        torch.set_rng_state(content["generators"]["torch"])
        self.context.generator.set_state(content["generators"]["steps"])
        self.log.resume(self.model.stages[self.position["stage"]].name, self.position["step"])
