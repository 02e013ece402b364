"""Refinement: the --n_epochs_refine last epochs train G_AB alone (docs/method.md section 3.6). Ours, not published.

The trained G_BA turns b into low-field images whose truth, b, is known; what changes smoothly in them is taken from a
slice of A that SGP has chosen. A part of them is made by estimated physics instead, as in models/degrade_model.py: its
grey values are further from a scan's than G_BA's, but every edge lies where b has it. No other term acts on G_AB, and a
step costs a fifth of an adversarial one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from data.batch import PAIR, Batch, Levels, Pairs
from models.base_model import adam
from models.chance import uniform
from models.degradation import Physics, degraded
from models.gan_stage import GANStage
from models.low_field import LowFieldScan
from models.low_field_options import PARTNER, RANDOM
from models.passes import translate
from models.restoration import hold_restoration
from models.shading import shading
from models.stage import Stage
from models.update import StepContext, Update
from util.errors import UserError
from util.processes import Processes

REFINE_BATCH = 4  # images per step, at least: 34 images of 96 px per second on two cores, 24 with two; equally good


def with_refinement(gan: GANStage) -> list[Stage]:
    """The adversarial stage, followed by the refinement if --n_epochs_refine is above 0."""
    return [gan, RefineStage(gan)] if gan.options.n_epochs_refine else [gan]


class RefineStage(Stage):
    """G_AB learns to restore b from the averaged G_BA's image of it, or from a scan of it by physics.

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
        if o.lf_shading == PARTNER:
            self.places, self.chooses_partners = PAIR, gan.chooses_partners
        self.optimisers = {self.name: adam([gan.G["B"]], o)}

    def learning_rate(self, epoch: int, step: int) -> float:
        """Falls linearly to zero one epoch after the last."""
        return self.options.lr * (1 - epoch / (self.options.n_epochs_refine + 1))

    def losses(self, batch: Batch, update: Update) -> None:
        """The B half of L_cycle, combined with SSIM (Zhao et al. 2017), and L_seg."""
        w = self.weights
        fake_A, batch = self._low_field(batch)
        weights = {"l1": w.cycle, "ssim": w.cycle * self.options.refine_ssim, "seg": w.seg}
        restored = translate(self.gan.G["B"], fake_A)
        hold_restoration(update, restored, batch.B, batch.mask_B, name="cycle", **weights)
        update.join()

    def _low_field(self, batch: Batch) -> tuple[Tensor, Batch]:
        """What b is restored from, (N, 1, H, W), and the batch in its order."""
        by_physics = uniform(batch.key, "physics in the place of G_BA") < self.options.refine_physics
        fakes, order = list[Tensor](), list[int]()
        for physics, make in ((False, self._synthesised), (True, self._by_physics)):
            if rows := [row for row, drawn in enumerate(by_physics.tolist()) if drawn == physics]:
                fakes.append(make(batch.items(rows)))
                order += rows
        return torch.cat(fakes), batch.items(order)

    @torch.no_grad()
    def _synthesised(self, batch: Batch) -> Tensor:
        """G_BA's images of b, as a scanner would show them."""
        made, _ = translate(self.gan.averages.averaged["G_BA"], batch.B)
        return LowFieldScan(self.options, batch).on_fake("A", made, self._shading(made, batch))

    @torch.no_grad()
    def _by_physics(self, batch: Batch) -> Tensor:
        """Scans of b by the physics that is estimated for the low field, without any network."""
        partner = (batch.A, batch.mask_A) if self.options.lf_shading == PARTNER else None
        return degraded(batch.B, batch.mask_B, batch.key, Physics.of(self.options), partner)

    def _shading(self, made: Tensor, batch: Batch) -> Tensor | None:
        """What gives G_BA's images of b the smooth part of a, b's partner; None: they keep their own."""
        if self.options.lf_shading == RANDOM:
            return None
        return shading(made, batch.mask_B, batch.A, batch.mask_A)

    def partners_from(
        self, low: Iterator[Tensor], high: Iterator[Tensor], levels: Levels, processes: Processes
    ) -> Pairs:
        """The adversarial stage's: SGP's, if the model has one."""
        return self.gan.partners_from(low, high, levels, processes)

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        terms = super().step(batch, context)
        self.gan.averages.update("G_AB")
        return terms

    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        return self.gan.visuals(batch)
