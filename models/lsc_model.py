"""LSC: local structure correction, the self-supervised pretext task (docs/method.md section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.batch import Batch
from models.base_model import BaseModel
from models.chance import drawn
from models.losses import restoration_loss
from models.lsc_options import LSC_STEPS, LSCOptions, LSCTraining
from models.networks.lsc import LSCNetwork, corrupt, draw_corruption
from models.passes import full
from models.stage import Stage
from models.update import StepContext, Update

MEMORISED_DB = 1.0  # docs/method.md section 2: beyond this R has memorised B, and D_B could tell real from fake by it
VALIDATION_SEED = 20_250_305


class LSC(nn.Module):
    """Corruption C and restoration network R; used by `--model lsc` and inside the PTA models."""

    def __init__(self, options: LSCTraining) -> None:
        super().__init__()
        self.options = options
        self.network = LSCNetwork(options.lsc_features, n_blocks=options.lsc_blocks, rotate_ratio=options.rotate_ratio)

    def draw(self, x: Tensor, keys: Tensor, purpose: str) -> Tensor:
        """Random numbers for one corruption of x (N, 1, H, W), see `draw_corruption`; keys, purpose: as in `drawn`."""
        size = (x.shape[-2], x.shape[-1])
        return drawn(keys, purpose, lambda g: draw_corruption(1, size, self.options.lsc_blocks, g)[0])

    def apply_corruption(self, x: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """C(x), (N, 1, H, W) in [-1, 1], and where it is masked, (N, 1, H, W) bool."""
        o = self.options
        return corrupt(x, draws, n_blocks=o.lsc_blocks, rotate_ratio=o.rotate_ratio, mask_ratio=o.mask_ratio)

    def corrupt(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """C(x) for an evaluation, and where it is masked, as `apply_corruption` returns them."""
        size = (x.shape[-2], x.shape[-1])
        return self.apply_corruption(x, draw_corruption(len(x), size, self.options.lsc_blocks, generator))

    def forward(self, x: Tensor, draws: Tensor) -> Tensor:
        """R(C(x)), differentiable with respect to x."""
        return self.network(self.apply_corruption(x, draws)[0])

    @torch.no_grad()
    def restore(self, corrupted: Tensor) -> Tensor:
        """Apply R alone, for an evaluation: (N, 1, H, W) to the same shape, clamped to [-1, 1], without gradients."""
        return self.network(corrupted).clamp(-1, 1)


class MemoryWatch:
    """Compares R's error on training slices with its error on unseen ones after every epoch that is validated."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []  # squared error and pixel count of each step since the last comparison, (2,) each
        self.verdict = ""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": torch.stack(self.seen) if self.seen else torch.zeros(0, 2), "verdict": self.verdict}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        seen, verdict = state["seen"], state["verdict"]
        if not isinstance(seen, Tensor) or seen.shape[1:] != (2,) or not seen.is_floating_point():
            raise ValueError("'seen' of the early stop is not a tensor of pairs of numbers")
        if not isinstance(verdict, str):
            raise ValueError("'verdict' of the early stop is not text")
        self.seen, self.verdict = list(seen), verdict

    def figures(self, lsc: LSC, batches: Iterator[Batch], context: StepContext) -> dict[str, float]:
        """PSNR of R(C(b)) inside the head, in dB (data range 1): this epoch's training slices, and unseen ones."""
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        unseen = []
        for batch in batches:
            batch = batch.to(context.device)
            unseen.append(_squared_error(lsc.restore(lsc.corrupt(batch.B, generator)[0]), batch))
        if not unseen or not self.seen:
            return {}
        totals = (torch.stack(errors).sum(0) for errors in (self.seen, unseen))
        train, val = (-10 * float(torch.log10(error / pixels.clamp(min=1))) for error, pixels in totals)
        self.seen = []
        if train - val > MEMORISED_DB:
            self.verdict = f"R restores training slices {train - val:.2f} dB better than unseen ones"
        return {"psnr": val, "train_psnr": train}


def _squared_error(restored: Tensor, batch: Batch) -> Tensor:
    """Sum of squared errors inside the head, intensities in [0, 1], and the number of its pixels: (2,)."""
    error = ((restored - batch.B) / 2) ** 2 * batch.mask_B
    return torch.stack([error.sum(), batch.mask_B.sum()]).detach()


class LSCStage(Stage):
    """Trains LSC on high-field slices alone; its learning rate changes with every step.

    It stops early if R restores training slices much better than unseen ones, see `MemoryWatch`. Args: as `Stage`.
    """

    name = "lsc"
    smaller = ("--lsc_batch_size", "--lsc_features")

    def __init__(self, lsc: LSC, options: LSCTraining, epochs: int, epochs_before: int | None = 0) -> None:
        super().__init__([lsc], epochs, options.lsc_steps, epochs_before)
        self.lsc, self.least_batch, self.watch = lsc, options.lsc_batch_size, MemoryWatch()
        self.optimiser = torch.optim.Adam(lsc.parameters(), lr=options.lsc_lr, fused=True)
        self.optimisers = {self.name: self.optimiser}
        self._lr, self._factor = options.lsc_lr, half_cosine(options.lsc_steps)

    def learning_rate(self, epoch: int, step: int) -> float:
        return self._lr * self._factor(step)

    def losses(self, batch: Batch, update: Update) -> Tensor:
        """L_LSC = |R(C(b)) - b|. Returns R(C(b))."""
        restored = full(self.lsc(batch.B, self.lsc.draw(batch.B, batch.key, "C of LSC")))
        update.add("lsc", 1.0, restoration_loss(restored, batch.B))
        return restored

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        update, error = Update(self.optimiser, context), torch.zeros(2, device=context.device)
        for _, part in update.micro_batches(batch, split=False):
            with context.autocast():
                restored = self.losses(part, update)
            error = _squared_error(restored, part).float()
        update.apply()
        self.watch.seen.append(context.processes.summed(error))
        return update.terms

    def validate(self, batches: Iterator[Batch], context: StepContext) -> dict[str, float]:
        return self.watch.figures(self.lsc, batches, context)

    def ended_early(self) -> str:
        return self.watch.verdict

    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        """b, C(b) and R(C(b)) with a fixed corruption."""
        corrupted, _ = self.lsc.corrupt(batch.B, torch.Generator().manual_seed(VALIDATION_SEED))
        return {"real_B": batch.B, "corrupted_B": corrupted, "restored_B": self.lsc.restore(corrupted)}

    def state(self) -> dict[str, Any]:
        return {"watch": self.watch.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.watch.load_state_dict(state["watch"])


class LSCModel(BaseModel):
    """`--model lsc`: the restoration pretext task alone."""

    Options = LSCOptions

    def __init__(self, options: LSCOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        self.lsc = LSC(options)
        self.stages = [LSCStage(self.lsc, options, options.n_epochs + options.n_epochs_decay)]

    def costly_networks(self) -> list[nn.Module]:
        return [self.lsc.network]

    def exported_networks(self) -> dict[str, nn.Module]:
        return {"LSC": self.lsc.network}


def half_cosine(steps: int | None) -> Callable[[int], float]:
    """Learning rate factor by step: half a cosine from 1 to 1/50 over `steps` (None: the number on a GPU)."""
    n = steps or LSC_STEPS.gpu
    return lambda step: 0.02 + 0.49 * (1 + float(np.cos(np.pi * min(step / n, 1))))
