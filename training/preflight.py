"""Before a run: will memory and disk do? Too little is an error at once, with what to lower.

A refusal counts only what must be there at the same time, so that no run is refused that would fit. A run that passes
may still run out: a step's workspace is only warned of, what torch and CUDA themselves hold, slices that the dataset
keeps decoded, and what other programs take later are not counted.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from data.unaligned_dataset import UnalignedMaskDataset
from models.base_model import BaseModel, StepContext
from options.train_options import RunOptions
from training.activations import Activations
from training.disk_need import DiskNeed, check_disk, disk_need, epochs_to_write, in_words
from training.memory import known_free_bytes
from training.memory_need import (
    StaticNeed,
    StepNeed,
    loading_bytes,
    part_of_batch,
    saving_bytes,
    smaller,
    static_need,
    step_need,
)
from training.position import position_in, start_of
from training.run_folder import leftovers
from util.checkpoint import NewestCheckpoint, saved_epochs
from util.errors import UserError
from util.processes import ALONE, Processes

SHARED = Path("/dev/shm")  # where loading processes put their batches
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Forecast:
    """What a run will need, in bytes."""

    static: StaticNeed
    steps: tuple[StepNeed, ...]  # one a stage still to come
    partners: int  # while SGP's partners are looked for
    loading: int
    shared: int  # of `loading`, in SHARED
    saving: int
    disk: DiskNeed

    @property
    def activations(self) -> dict[str, Activations]:
        """What autograd keeps of a step, for every stage whose steps may be split."""
        return {step.stage.name: step.activations for step in self.steps if step.splits}

    @property
    def peak(self) -> int:
        """The most that is on the device beside what stays, one of these after the other."""
        return max([self.partners, *(step.bytes for step in self.steps)])

    def __str__(self) -> str:
        steps = (f"{step.stage.name} {in_words(step.bytes)} ({_images(step.at_once)} at once)" for step in self.steps)
        parts = [f"{in_words(self.static.weights + self.static.to_come)} for networks, gradients and Adam"]
        parts += [f"{in_words(self.peak)} for a step: {', '.join(steps)}"] if self.steps else []
        parts += [f"{in_words(self.loading)} for loading"] if self.loading else []
        disk = self.disk
        return (
            f"this run needs at least {'; '.join(parts)}. On disk {in_words(disk.most)}: {in_words(disk.checkpoint)} a "
            f"state, {in_words(disk.weights)} its weights alone, {len(disk.epochs)} EPOCH.pt to come"
        )


def preflight(
    run: RunOptions,
    model: BaseModel,
    dataset: UnalignedMaskDataset,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    newest: NewestCheckpoint | None,
    processes: Processes = ALONE,
) -> tuple[Forecast, list[str]]:
    """The forecast of a run that is about to begin, or to go on from `newest`, and warnings.

    Takes the seconds of a forward pass of one image a stage, in mixed precision of three. Changes nothing, neither on
    the disk nor in the model.

    Args:
        processes: this run's sharing; those on one machine share its memory, and each has a GPU of its own if any has.
    Raises:
        UserError: memory or disk cannot do; the message says what is needed, what is free, what to lower.
    """
    free = {place: known_free_bytes(place) for place in {device, CPU}}  # measuring takes some of it, for later use
    context = StepContext(device, micro_batch=1, amp_dtype=amp_dtype, room=free[device])  # one process measures alone
    forecast, sharing = _forecast(run, model, dataset, context, newest, processes.size), processes.local_size
    static = forecast.static
    to_come = static.gradients + (static.moments + static.pools if newest is None or device != CPU else 0)  # else read
    if device == CPU:
        warning = _check_steps(run, forecast, CPU, free[CPU], to_come, forecast.loading, sharing)
    else:
        warning = _check_steps(run, forecast, device, free[device], to_come, 0, 1)
        _check_machine(run, sharing * forecast.loading + forecast.saving, free[CPU])
    _check_shared(run, sharing * forecast.shared)
    full = check_disk(forecast.disk, run.run_dir, leftovers(run.run_dir, newest), run.train.save_epoch_freq)
    return forecast, [text for text in (warning, full) if text]


def _forecast(
    run: RunOptions,
    model: BaseModel,
    dataset: UnalignedMaskDataset,
    context: StepContext,
    newest: NewestCheckpoint | None,
    n_processes: int,
) -> Forecast:
    position = start_of(0) if newest is None else position_in(newest.content, newest.path)
    height, width = dataset.image_size()
    image_bytes = 4 * height * width
    stages = model.stages[position["stage"] :]
    chosen = [position["micro_batch"], *[0] * len(stages)]  # images at once, kept for the stage that is continued
    largest = max(part_of_batch(run, stage, n_processes) for stage in stages) if stages else 0
    loading, shared = loading_bytes(run, image_bytes, largest)
    batches = -(-max(len(dataset.A), len(dataset.B)) // run.train.batch_size)
    epochs = epochs_to_write(model.stages, position, run.train.save_epoch_freq, batches)
    here = saved_epochs(run.run_dir) if newest is not None else []
    return Forecast(
        static=static_need(model, image_bytes),
        steps=tuple(
            step_need(run, model, stage, dataset, context, kept, n_processes)
            for stage, kept in zip(stages, chosen, strict=False)
        ),
        partners=model.partner_bytes(len(dataset.A), len(dataset.B)),
        loading=loading,
        shared=shared,
        saving=saving_bytes(model, context.device, 2 if epochs else 1),
        disk=disk_need(model, image_bytes, epochs, keep_last=run.train.keep_last, here=here),
    )


def _check_steps(
    run: RunOptions,
    forecast: Forecast,
    device: torch.device,
    free: int | None,
    to_come: int,
    loading: int,
    sharing: int,
) -> str:
    """Whether networks, steps, and on a CPU loading and saving fit into the device's memory. Returns a warning, if any.

    Raises: UserError: they cannot.
    """
    largest = max(forecast.steps, key=lambda step: step.bytes, default=None)
    if free is None or largest is None:
        return ""
    saving = forecast.saving if device == CPU else 0
    needed = sharing * (to_come + loading + max(forecast.peak, saving))
    step = f"{in_words(largest.bytes)} of it for a step of stage {largest.stage.name} with {_images(largest.at_once)}"
    if forecast.partners > largest.bytes:
        step = f"{in_words(forecast.partners)} of it for SGP's partners (--sgp_match batch needs none), {step}"
    place = f"{'the machine' if device == CPU else 'the GPU'} has {in_words(free)} free"
    by = f", {sharing} sharing together" if sharing > 1 else ""
    if needed > free:
        ways = "; ".join(_ways(run, largest, free // sharing - to_come - loading, loading))
        raise UserError(f"this run needs at least {in_words(needed)} more memory{by}, {step} at once; {place}; {ways}")
    likely = sharing * (to_come + loading + max(step.likely for step in forecast.steps))
    if likely > free:
        return (
            f"this run needs at least {in_words(needed)} more memory{by}, likely {in_words(likely)}, and {place}: it "
            f"may run out; {'; '.join(_ways(run, largest, 0, loading))}"
        )
    return ""


def _ways(run: RunOptions, step: StepNeed, room: int, loading: int) -> list[str]:
    """What to lower so that a step fits, and to which number where that is known."""
    fit = step.activations.images_in(room)
    to = f" to {fit} or less" if 0 < fit < step.at_once else ""
    ways = []
    if step.splits and step.at_once > 1:
        ways.append(f"lower --micro_batch {step.at_once}{to}")
    elif not step.splits and step.stage.name not in ("sgp", "lsc"):
        ways.append(f"lower --batch_size {step.at_once}{to}, or leave --norm batch, which forbids --micro_batch")
    ways.append(f"lower {', '.join([*smaller(run, step.stage), *(['--num_threads'] if loading else [])])}")
    return ways


def _check_machine(run: RunOptions, needed: int, free: int | None) -> None:
    """Raise UserError if what a run on a GPU takes of the machine's own memory is not there."""
    if free is not None and needed > free:
        raise UserError(
            f"this run needs at least {in_words(needed)} of the machine's memory for loading and saving, "
            f"{in_words(free)} are free; lower --num_threads {run.train.num_threads} or --batch_size "
            f"{run.train.batch_size}"
        )


def _check_shared(run: RunOptions, needed: int) -> None:
    """Raise UserError if the batches that wait in shared memory do not fit: the sharing would die of a bus error."""
    if not needed or not SHARED.is_dir():
        return
    free = shutil.disk_usage(SHARED).free
    if needed > free:
        raise UserError(
            f"--num_threads {run.train.num_threads}: batches that wait need {in_words(needed)} of shared memory and "
            f"{SHARED} has {in_words(free)} free; lower --num_threads or --batch_size {run.train.batch_size}, or give "
            "the container more (docker: --shm-size)"
        )


def _images(count: int) -> str:
    return f"{count} image" + "s" * (count > 1)
