"""What a run will take of memory: networks and Adam from their sizes, a step from what it keeps for one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from data.batch import Batch
from data.sampling import Draws
from data.unaligned_dataset import UnalignedMaskDataset
from models.base_model import BaseModel, Stage, StepContext
from options.train_options import RunOptions
from training.activations import Activations, estimate_activations, measure_activations
from training.disk_need import in_words, moment_sizes
from util.errors import UserError

WORKER = 50 << 20  # bytes that a loading process has for itself: two had 53 and 57 MB
PREFETCH = 2  # batches that a loading process makes ahead, torch's default
WORKSPACE = 3  # times one image's activations: a step took so much more on a CPU at 128 and 224 pixels


@dataclass(frozen=True)
class StaticNeed:
    """Bytes that stay as long as the run lasts, once each of its stages has made a step."""

    weights: int  # of all networks, averages and running statistics too
    gradients: int
    moments: int  # Adam's
    pools: int  # of images, once they are full

    @property
    def to_come(self) -> int:
        """What is not there yet when the model has been made."""
        return self.gradients + self.moments + self.pools


@dataclass(frozen=True)
class StepNeed:
    """A step of one stage: what autograd keeps, and how many images must go at once."""

    stage: Stage
    activations: Activations
    at_once: int
    splits: bool

    @property
    def bytes(self) -> int:
        """For the images that go at once."""
        return self.activations.of(self.at_once)

    @property
    def likely(self) -> int:
        """The same with a workspace."""
        return self.bytes + WORKSPACE * self.activations.further


def static_need(model: BaseModel, image_bytes: int) -> StaticNeed:
    """Exact but for parameters that no loss reaches: they have neither gradient nor moments."""
    groups = [group for optimiser in model.optimisers.values() for group in optimiser.param_groups]
    trained = {parameter for group in groups for parameter in group["params"]}
    return StaticNeed(
        weights=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        gradients=sum(parameter.nbytes for parameter in trained),
        moments=sum(size for optimiser in model.optimisers.values() for size in moment_sizes(optimiser)),
        pools=model.pool_bytes(image_bytes),
    )


def part_of_batch(run: RunOptions, stage: Stage, n_processes: int) -> int:
    """The most images that one of a run's processes has of a step's batch."""
    return -(-max(run.train.batch_size, stage.least_batch) // n_processes)


def step_need(
    run: RunOptions,
    model: BaseModel,
    stage: Stage,
    dataset: UnalignedMaskDataset,
    context: StepContext,
    kept: int,
    n_processes: int,
) -> StepNeed:
    """Measure what a step of `stage` keeps on the middle of a head: on one image or two, see `training.activations`.

    Changes neither random numbers nor running statistics; networks are left in the stage's modes.

    Args:
        kept: images at once that the continued run has chosen before; 0: none.
    Raises:
        UserError: there is not even memory for one image.
    """
    whole, splits = part_of_batch(run, stage, n_processes), model.splits(stage)
    model.eval()
    for network in model.stage_networks(stage):
        network.train()
    batch = middle(dataset, min(2, whole)).to(context.device)
    measure = measure_activations if splits else estimate_activations
    try:
        activations = measure(model, batch, stage, context)
    except (MemoryError, torch.OutOfMemoryError) as error:
        flags = ", ".join(smaller(run, stage))
        room = f"the {in_words(context.room)} that are free" if context.room is not None else "is free"
        raise UserError(
            f"a step of stage {stage.name} needs more memory than {room} for the least that can be computed at once, "
            f"{1 if splits else len(batch)} of its {whole} images; lower {flags}"
        ) from error
    at_once = whole
    if splits:
        at_once = min(whole, kept or 1 if run.train.micro_batch == "auto" else int(run.train.micro_batch))
    return StepNeed(stage, activations, at_once, splits)


def middle(dataset: UnalignedMaskDataset, n: int) -> Batch:
    """A batch of the slice of either domain that lies nearest the middle, where heads are largest, n times."""
    a, b = (int(np.abs(folder.p - 0.5).argmin()) for folder in (dataset.A, dataset.B))
    places = np.full(n, a), np.full(n, b)
    return dataset.__getitems__(Draws(*places, dataset.A.p[places[0]], dataset.B.p[places[1]], np.arange(n)))


def loading_bytes(run: RunOptions, image_bytes: int, images: int) -> tuple[int, int]:
    """What the loading processes take: all of it, and of it the batches of `images` made ahead (shared memory)."""
    ahead = PREFETCH * run.train.num_threads * images * 4 * image_bytes  # A, B, and their masks
    return run.train.num_threads * WORKER + ahead, ahead


def saving_bytes(model: BaseModel, device: torch.device, states: int) -> int:
    """Memory of a save beside the state: safetensors' copies of one network; all weights `states` times from a GPU."""
    sizes = [
        sum(tensor.nbytes for tensor in network.state_dict().values()) for network in model.exported_networks().values()
    ]
    return 2 * max(sizes, default=0) + (states * sum(sizes) if device.type == "cuda" else 0)


def smaller(run: RunOptions, stage: Stage) -> list[str]:
    """Flags that make a step of `stage` smaller, the most harmless first."""
    size = "--crop_size" if "crop" in run.data.preprocess and run.data.crop_size else "--load_size"
    if stage.name in ("sgp", "lsc"):
        own = ["--sgp_batch_size", "--sgp_width"] if stage.name == "sgp" else ["--lsc_batch_size", "--lsc_features"]
        return ["--batch_size", own[0], size, own[1]]
    hybrid = getattr(run.network, "netG", "") == "hybrid"
    return [size, *(["--hybrid_width", "--hybrid_features"] if hybrid else ["--ngf"])]
