"""A segmenter of CSF, grey matter, white matter and lesions, trained on true high-field slices of training people.

It measures whether a synthesis shows the tissues where they are; it is part of no loss and the same for all models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.metrics.tissues import LESION, Classes
from models.networks.layers import ResidualUnit
from util.device import amp_dtype
from util.errors import UserError
from util.files import replace_files
from util.torch_file import read_torch, torch_writer

Floats = NDArray[np.float32]

N_CLASSES = LESION + 1
WIDTHS = (12, 24, 48, 96)
MULTIPLE = 2 ** (len(WIDTHS) - 1)
BATCH, LEARNING_RATE = 8, 3e-3
WEIGHTS = (0.3, 1.0, 1.0, 1.0, 3.0)  # of the classes in the cross-entropy: lesions are rare, air is not
GAIN, OFFSET = 0.15, 0.05  # random changes of contrast and brightness in training, at most
TURN, SCALE, SHIFT = 0.3, 0.15, 0.1  # radians, logarithm, half sides: random changes of place in training, at most
SLICES_AT_ONCE = 16


class Segmenter(nn.Module):
    """A residual U-Net: (N, 1, H, W) in [0, 1] to logits (N, 5, H, W), H and W multiples of 8."""

    def __init__(self) -> None:
        super().__init__()

        def norm(channels: int) -> nn.Module:
            return nn.GroupNorm(4, channels)

        above = (1, *WIDTHS[:-1])
        self.down = nn.ModuleList(
            ResidualUnit(a, b, norm, stride=1 if scale == 0 else 2)
            for scale, (a, b) in enumerate(zip(above, WIDTHS, strict=True))
        )
        self.up = nn.ModuleList(
            ResidualUnit(a + b, b, norm) for a, b in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(WIDTHS[0], N_CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for unit in self.down:
            x = unit(x)
            skips.append(x)
        for unit, skip in zip(self.up, skips[-2::-1], strict=True):
            x = unit(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1))
        return self.head(x)


def _padded(x: Tensor) -> Tensor:
    """The slices with zeros at their right and lower side, to a multiple of 8."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE))


def fit_segmenter(images: Sequence[Floats], classes: Sequence[Classes], *, steps: int, seed: int) -> Segmenter:
    """Train on volumes of slices (S, H, W) in [0, 1] with their classes; half of a batch are slices with lesions."""
    slices = [(image, truth) for volume, known in zip(images, classes, strict=True)
              for image, truth in zip(volume, known, strict=True)]  # fmt: skip
    with_lesion = [i for i, (_, truth) in enumerate(slices) if (truth == LESION).any()]
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Segmenter()
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    weights, fast = torch.tensor(WEIGHTS), amp_dtype("auto", torch.device("cpu")) is torch.bfloat16
    for _ in range(steps):
        chosen = rng.integers(len(slices), size=BATCH)
        if with_lesion:
            chosen[: BATCH // 2] = rng.choice(with_lesion, BATCH // 2)
        x = _padded(torch.from_numpy(np.stack([slices[i][0] for i in chosen]))[:, None])
        target = _padded(torch.from_numpy(np.stack([slices[i][1] for i in chosen]).astype(np.int64)))
        flipped = torch.from_numpy(rng.random(BATCH) < 0.5)
        x[flipped], target[flipped] = x[flipped].flip(-1), target[flipped].flip(-1)
        x, target = _other_lesions(*_turned(x, target, rng), rng)
        gain, offset = (torch.from_numpy(rng.uniform(-1, 1, (2, BATCH, 1, 1, 1)))).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            logits = network(((1 + GAIN * gain) * x + OFFSET * offset * (x > 0)).clamp(0, 1)).float()
        loss = F.cross_entropy(logits, target, weights) + _dice_loss(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _turned(x: Tensor, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Slices (N, 1, H, W) and classes (N, H, W), each turned, scaled and shifted at random."""
    angle, scale = rng.uniform(-TURN, TURN, len(x)), np.exp(rng.uniform(-SCALE, SCALE, len(x)))
    turn = np.stack([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    matrix = np.concatenate([turn, rng.uniform(-SHIFT, SHIFT, (2, 1, len(x)))], 1).transpose(2, 0, 1)
    grid = F.affine_grid(torch.from_numpy(matrix).float(), list(x.shape), align_corners=False)
    moved = F.grid_sample(target[:, None].float(), grid, mode="nearest", align_corners=False)
    return F.grid_sample(x, grid, align_corners=False), moved[:, 0].long()


def _other_lesions(x: Tensor, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The same with lesions of one slice copied into the brain of another, elsewhere (copy-paste, Ghiasi et al. 2021).

    A few heads have few lesions, and a network learns their places by heart.
    """
    order = torch.from_numpy(rng.permutation(len(x)))
    rows, columns = (int(n) for n in rng.integers(0, x.shape[-1], 2))
    given, classes = (t[order].roll((rows, columns), (-2, -1)) for t in (x, target))
    there = (classes == LESION) & (target > 0)
    return torch.where(there[:, None], given, x), torch.where(there, classes, target)


def _dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - mean soft Dice of all classes but the first, over the batch."""
    shares, truth = logits.softmax(1)[:, 1:], F.one_hot(target, N_CLASSES).movedim(-1, 1)[:, 1:].float()
    both, sizes = (shares * truth).sum((0, 2, 3)), (shares + truth).sum((0, 2, 3))
    return 1 - ((2 * both + 1) / (sizes + 1)).mean()


@torch.no_grad()
def segment(network: Segmenter, slices: Floats) -> Classes:
    """The classes of slices (S, H, W) in [0, 1]."""
    height, width = slices.shape[1:]
    parts = _padded(torch.from_numpy(slices)[:, None]).split(SLICES_AT_ONCE)
    found = torch.cat([network(part).argmax(1) for part in parts])[:, :height, :width]
    return found.to(torch.uint8).numpy()


def save_segmenter(network: Segmenter, path: Path) -> None:
    """Write the weights, whole or not at all."""
    replace_files({path: torch_writer(network.state_dict())})


def load_segmenter(path: Path) -> Segmenter:
    """Read the weights. Raises: UserError: the file cannot be read or holds something else."""
    network = Segmenter()
    try:
        network.load_state_dict(read_torch(path)[0])
    except Exception as error:  # torch raises many kinds for other files
        raise UserError(f"{path}: not the weights of a segmenter ({type(error).__name__})") from error
    return network.eval().requires_grad_(False)
