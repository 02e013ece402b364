"""What the files of a run will take on its disk."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.base_model import BaseModel, Stage
from models.weights import weights_files
from util.checkpoint import LATEST, PREVIOUS, checkpoint_path
from util.errors import UserError

# bytes of torch.save's and of safetensors' archives beside the numbers, from checkpoints of 167 to 1442 tensors
TENSOR, ARCHIVE = 300, 1500
SAFETENSOR, SAFETENSORS = 92, 250
GENERATORS = 22_000  # states of the random generators, learning rates, position


@dataclass(frozen=True)
class DiskNeed:
    """Bytes of one checkpoint, of one set of weights alone in both formats, and the epochs that will be kept too."""

    checkpoint: int
    weights: int
    epochs: tuple[int, ...]  # numbers of the EPOCH.pt still to be written
    keep_last: int  # of them; 0: all
    kept: int = 0  # EPOCH.pt that are there

    @property
    def save(self) -> int:
        """One state with its weights."""
        return self.checkpoint + self.weights

    @property
    def at_once(self) -> int:
        """latest.pt, previous.pt (which has no weights beside it) and a save in progress, of an EPOCH.pt too if any."""
        return 2 * self.checkpoint + self.weights + self.save * (2 if self.epochs else 1)

    @property
    def more_epochs(self) -> int:
        """How many more EPOCH.pt there are at most than now; old ones go after a new one has come."""
        if not self.keep_last:
            return len(self.epochs)
        return min(len(self.epochs), max(0, self.keep_last - self.kept) + 1)

    @property
    def most(self) -> int:
        """All files at the moment when they are most, EPOCH.pt of earlier sessions left out."""
        return self.at_once + self.save * max(0, self.more_epochs - 1)


def disk_need(
    model: BaseModel, image_bytes: int, epochs: Sequence[int], *, keep_last: int = 0, here: Sequence[int] = ()
) -> DiskNeed:
    """What a run of `model` writes that saves these `epochs` (numbers, ascending); those in `here` are saved already.

    Not counted: report, pictures and logs (some MB), other programs' use of the disk, quotas, inodes, block sizes.
    """
    state = _sizes(model.state_dict())
    moments = [size for optimiser in model.optimisers.values() for size in moment_sizes(optimiser)]
    pools = model.pool_bytes(image_bytes)
    tensors = len(state) + len(moments) + pools // image_bytes
    networks = [_sizes(network.state_dict()) for network in model.exported_networks().values()]
    return DiskNeed(
        checkpoint=sum((*state, *moments, pools)) + TENSOR * tensors + GENERATORS,
        weights=sum(2 * sum(sizes) + (TENSOR + SAFETENSOR) * len(sizes) + ARCHIVE + SAFETENSORS for sizes in networks),
        epochs=tuple(number for number in epochs if number not in here),
        keep_last=keep_last,
        kept=len(here),
    )


def moment_sizes(optimiser: torch.optim.Optimizer) -> Iterator[int]:
    """Bytes of the tensors that Adam keeps for its parameters: two moments, and the steps in float32."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            yield from (parameter.nbytes, parameter.nbytes, 4)


def _sizes(state: Mapping[str, Tensor]) -> list[int]:
    return [tensor.nbytes for tensor in state.values()]


def epochs_to_write(stages: Sequence[Stage], position: Mapping[str, int], every: int, batches: int) -> list[int]:
    """Numbers of the EPOCH.pt that a training from `position` on writes, with so many `batches` an epoch."""
    numbers: list[int] = []
    for index, stage in enumerate(stages[position["stage"] :], start=position["stage"]):
        if stage.epochs_before is None:
            continue
        done = position["epoch"] if index == position["stage"] else 0
        length = stage.epochs if stage.steps is None else min(stage.epochs, -(-stage.steps // max(batches, 1)))
        first = stage.epochs_before + done + 1
        numbers += [n for n in range(first, stage.epochs_before + length + 1) if n % every == 0]
    return numbers


def check_disk(need: DiskNeed, run_dir: Path, cleared: Sequence[Path], every: int) -> str:
    """Whether the files fit beside what is there; `cleared` will be removed first. Returns a warning, or nothing.

    Raises:
        UserError: not even one save fits beside latest.pt and previous.pt.
    """
    free = shutil.disk_usage(run_dir).free + _size(cleared)
    own = [checkpoint_path(run_dir, LATEST), checkpoint_path(run_dir, PREVIOUS), *weights_files(run_dir)]
    newest = [path for path in own if path not in cleared and not path.name[0].isdigit()]
    room = free + _size(newest)
    if room < need.at_once:
        raise UserError(
            f"{run_dir}: its disk has {in_words(free)} free and this run's files need {in_words(need.at_once)} at once "
            f"({in_words(_size(newest))} of it are there): latest.pt, previous.pt and a save in progress, "
            f"{in_words(need.checkpoint)} each, with weights of {in_words(need.weights)}; make room, or give another "
            "--checkpoints_dir"
        )
    fit = (room - need.at_once) // need.save + 1
    if fit >= need.more_epochs:
        return ""
    rarer = next(n for n in itertools.count(2 * every, every) if sum(e % n == 0 for e in need.epochs) <= fit)
    keep_last = need.kept + fit - 1
    ways = [f"--keep_last {keep_last}"] * (keep_last > 0) + [f"--save_epoch_freq {rarer}"]
    return (
        f"{run_dir}: its disk has {in_words(free)} free and this run's {len(need.epochs)} EPOCH.pt with their weights "
        f"take {in_words(need.save)} each; it will be full at epoch {need.epochs[fit]}: give {' or '.join(ways)}"
    )


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def in_words(count: int) -> str:
    """Bytes for a reader: `1.46 GB`, `640 kB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:.0f} {unit}"
    return f"{count} bytes"
