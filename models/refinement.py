"""Refinement: the last epochs of --n_epochs_refine, in which G_AB alone learns. Ours; not part of the published method.

The finished G_BA's images of B are low-field images with their truth beside them: no other term pulls at G_AB, and a
step costs a fifth of an adversarial one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from data.batch import Batch
from models.base_model import adam
from models.gan_stage import GANStage
from models.losses import cycle_loss, seg_loss, ssim_loss
from models.low_field import LowFieldChance
from models.passes import full, translate
from models.stage import Stage
from models.update import StepContext, Update
from util.errors import UserError

REFINE_BATCH = 4  # images a step at least: 34 of 96 px a second on two cores instead of 24 by twos, and as good


def with_refinement(gan: GANStage) -> list[Stage]:
    """The adversarial stage, and after it the refinement that its options ask for."""
    return [gan, RefineStage(gan)] if gan.options.n_epochs_refine else [gan]


class RefineStage(Stage):
    """G_AB learns to restore b from what the averaged G_BA of the adversarial stage makes of it.

    Raises: UserError: the weight of L_cycle is zero.
    """

    name = "refine"
    least_batch = REFINE_BATCH

    def __init__(self, gan: GANStage) -> None:
        o = gan.options
        if not gan.weights.cycle:
            raise UserError(f"--n_epochs_refine {o.n_epochs_refine} needs a --lambda_cycle above 0")
        super().__init__([gan.G["B"]], o.n_epochs_refine, epochs_before=o.n_epochs + o.n_epochs_decay)
        self.gan, self.options, self.weights = gan, o, gan.weights
        self.splits, self.smaller = gan.splits, gan.smaller
        optimiser = adam([gan.G["B"]], o)
        self.optimisers = {self.name: optimiser}
        # falls in a line to zero one epoch after the last
        self.schedulers = {self.name: LambdaLR(optimiser, lambda epoch: 1 - epoch / (o.n_epochs_refine + 1))}

    def losses(self, batch: Batch, update: Update) -> None:
        """The B half of L_cycle, SSIM beside it (Zhao et al. 2017), and L_seg."""
        w, scan = self.weights, LowFieldChance(self.options, batch)
        with torch.no_grad():
            made, _ = translate(self.gan.averages.of["G_BA"], batch.B)
            fake_A = scan.on_fake("A", made)
        rec_B, logits = translate(self.gan.G["B"], fake_A)
        update.hold("cycle", w.cycle, cycle_loss(rec_B, batch.B))
        if ratio := self.options.refine_ssim:
            update.hold("ssim", w.cycle * ratio, ssim_loss(full(rec_B), batch.B, batch.mask_B))
        if w.seg and logits is not None:
            update.hold("seg", w.seg, seg_loss(logits, batch.mask_B))
        update.join()

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        terms = super().step(batch, context)
        self.gan.averages.update("G_AB")
        return terms

    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        return self.gan.visuals(batch)
