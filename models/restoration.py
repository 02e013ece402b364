"""G_AB learns from images whose truth is known: the loss, the stage and the score that such models share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from data.batch import Batch
from models.base_model import adam, learning_rate
from models.generator_model import GeneratorModel, one_way_visuals, shows_masks
from models.losses import restoration_loss, seg_loss, ssim_loss
from models.passes import full, translate
from models.restoration_options import RestorationOptions
from models.stage import Stage
from models.training_state import count_in
from models.update import StepContext, Update
from models.validation import psnr_in_head

L1 = "l1"


def hold_restoration(
    update: Update,
    made: tuple[Tensor, Tensor | None],
    truth: Tensor,
    mask: Tensor,
    *,
    l1: float,
    ssim: float,
    seg: float,
    name: str = L1,
) -> None:
    """Hold the weighted L1 distance, 1 - SSIM inside the mask (Zhao et al. 2017 combine the two) and L_seg.

    Args:
        made: image (N, 1, H, W) and foreground logits of `translate`.
        truth, mask: (N, 1, H, W), what the image should be, and its foreground.
        l1, ssim, seg: weights; a term of weight 0 is not computed. name: of the L1 distance in the log.
    """
    image, logits = made
    update.hold(name, l1, restoration_loss(image, truth))
    if ssim:
        update.hold("1-ssim", ssim, ssim_loss(full(image), truth, mask))
    if seg and logits is not None:
        update.hold("seg", seg, seg_loss(logits, mask))


class RestorationStage(Stage):
    """G_AB alone learns to restore b: from its low-field scan, or from what a subclass makes of it."""

    name = "restore"
    options: Any  # RestorationOptions, or those of a subclass

    def __init__(self, model: GeneratorModel, options: RestorationOptions) -> None:
        super().__init__([model.G_AB], options.n_epochs + options.n_epochs_decay)
        self.G, self.averages, self.options = model.G_AB, model.averages, options
        self.splits = options.norm != "batch"  # batch statistics need the whole batch
        self.smaller = ("--load_size", *(("--hybrid_width",) if options.netG == "hybrid" else ("--ngf",)))
        self.optimisers = {"G": adam([model.G_AB], options)}

    def learning_rate(self, epoch: int, step: int) -> float:
        return learning_rate(self.options, epoch)

    def low_field(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The images from which b is restored, and their foreground masks, (N, 1, H, W) each."""
        return batch.A, batch.mask_A

    def losses(self, batch: Batch, update: Update) -> None:
        """L = |G_AB(low) - b| + lambda_ssim (1 - SSIM(G_AB(low), b)) + lambda_seg L_seg."""
        o = self.options
        low, mask = self.low_field(batch)
        made = translate(self.G, low, mask if shows_masks(o, update.context) else None)
        hold_restoration(update, made, batch.B, batch.mask_B, l1=1.0, ssim=o.lambda_ssim, seg=o.lambda_seg)
        update.join()

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        terms = super().step(batch, context)
        self.averages.update("G_AB")
        return terms

    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        return one_way_visuals(self.averages.averaged["G_AB"], batch)

    def state(self) -> dict[str, int]:
        return {"updates": self.averages.updates}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.averages.updates = count_in(state["updates"], "updates")


def psnr_of_pairs(
    G_AB: nn.Module, unseen: Iterator[Batch], seen: Iterator[Batch], context: StepContext
) -> dict[str, float]:
    """PSNR of G_AB(a) inside the head of its truth b, in dB (data range 1), on unseen and on training slices."""
    found = {"psnr": _psnr(G_AB, unseen, context), "train_psnr": _psnr(G_AB, seen, context)}
    return found if all(map(math.isfinite, found.values())) else {}


def _psnr(G_AB: nn.Module, batches: Iterator[Batch], context: StepContext) -> float:
    moved = (batch.to(context.device) for batch in batches)
    return psnr_in_head((translate(G_AB, batch.A)[0], batch.B, batch.mask_B) for batch in moved)
