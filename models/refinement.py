"""Refinement: the last epochs of --n_epochs_refine, in which G_AB alone learns. Ours; not part of the published method.

The finished G_BA's images of B are low-field images with their truth beside them: no other term pulls at G_AB, and a
step costs a fifth of an adversarial one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from data.batch import Batch
from models import losses
from models.adversarial_options import AdversarialOptions
from models.base_model import Stage, StepContext, adam
from models.low_field import disturbed
from models.passes import full, translate

REFINE = "refine"  # the stage's name
REFINE_BATCH = 4  # images a step at least: 34 of 96 px a second on two cores instead of 24 by twos, and as good


def refine_stage(options: AdversarialOptions) -> Stage:
    """The stage; its epochs are counted on from the adversarial ones."""
    adversarial = options.n_epochs + options.n_epochs_decay
    return Stage(REFINE, options.n_epochs_refine, least_batch=REFINE_BATCH, epochs_before=adversarial)


def refine_optimiser(G_AB: nn.Module, options: AdversarialOptions) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """Adam, and a learning rate that falls in a line to zero one epoch after the last."""
    optimiser = adam([G_AB], options)
    return optimiser, LambdaLR(optimiser, lambda epoch: 1 - epoch / (options.n_epochs_refine + 1))


def refine_terms(
    G_AB: nn.Module,
    finished_G_BA: nn.Module,
    batch: Batch,
    extras: Mapping[str, Tensor],
    context: StepContext,
    *,
    ssim: bool,
    seg: bool,
) -> dict[str, Tensor]:
    """G_AB's unweighted losses: the B half of L_cycle, SSIM beside it (Zhao et al. 2017), and L_seg.

    Args: extras: `noise_fake_A` and `field_fake_A` if the low field's chance is put on fake_A.
    """
    with context.autocast():
        with torch.no_grad():
            fake_A, _ = translate(finished_G_BA, batch.B)
            fake_A = disturbed(fake_A, extras.get("noise_fake_A"), extras.get("field_fake_A"))
        rec_B, logits = translate(G_AB, fake_A)
        L = {"cycle": losses.cycle_loss(rec_B, batch.B)}
        if ssim:
            L["ssim"] = losses.ssim_loss(full(rec_B), batch.B, batch.mask_B)
        if logits is not None and seg:
            L["seg"] = losses.seg_loss(logits, batch.mask_B)
    return L
