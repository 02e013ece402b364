"""SGP: slice-wise gap perception, the contrastive pretext task (method.md section 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from data.batch import Batch
from models.base_model import BaseModel, OptimiserOptions, Stage, StepContext, StepsByDevice
from models.losses import clip_loss
from models.networks.sgp import SGPNetwork, SGPSizes, random_views
from util.schema import flag

SGP_STEPS = StepsByDevice(gpu=4000, cpu=400)
EMBEDDING_CHUNK = 4096  # rows of A compared with all of B at once


@dataclass(frozen=True)
class SGPTraining(SGPSizes):
    """How SGP is trained, alone or before the adversarial epochs."""

    sgp_steps: int | None = flag(None, f"most steps of SGP training; none: {SGP_STEPS}", group="SGP", low=1)
    sgp_batch_size: int = flag(16, "SGP's batches hold at least so many levels", group="SGP", low=2)
    sgp_lr: float = flag(
        1e-4, "SGP's learning rate (AdamW), warmed up, then half a cosine", group="SGP", low=1e-9, high=1
    )
    sgp_soft_sigma: float = flag(0.05, "width in p of soft targets; 0: the diagonal alone", group="SGP", low=0, high=1)


@dataclass(frozen=True)
class SGPOptions(SGPTraining, OptimiserOptions):
    """Options of `--model sgp`."""


class SGP(nn.Module):
    """The encoders with their loss; used by `--model sgp` and inside the PTA models."""

    def __init__(self, options: SGPTraining) -> None:
        super().__init__()
        self.options = options
        self.network = SGPNetwork(options)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Contrastive loss of a batch of distinct levels, random views, each domain through its own encoder."""
        u = self.network(random_views(batch.A, generator), "A", generator)  # (N, D)
        v = self.network(random_views(batch.B, generator), "B", generator)
        return clip_loss(u, v, self.network.log_scale, batch.p_A, self.options.sgp_soft_sigma)

    @torch.no_grad()
    def embed(self, images: Tensor, domain: str) -> Tensor:
        """Unit embeddings (N, D) of slices (N, 1, H, W) in [-1, 1] of domain 'A' or 'B'; centre crop, no graph."""
        was_training = self.network.training
        self.network.eval()
        embedding = self.network(images, domain)
        self.network.train(was_training)
        return embedding

    def nearest(self, low: Iterator[Tensor], high: Iterator[Tensor], k: int) -> NDArray[np.int64]:
        """Positions (len low, k) of the k high-field slices whose embeddings lie nearest each low-field slice."""
        device = self.network.log_scale.device
        u = torch.cat([self.embed(images.to(device), "A") for images in low])
        v = torch.cat([self.embed(images.to(device), "B") for images in high])
        k = min(k, len(v))
        rows = [(part @ v.T).topk(k, dim=1).indices for part in u.split(EMBEDDING_CHUNK)]
        return torch.cat(rows).cpu().numpy().astype(np.int64)

    def assign(self, batch: Batch) -> Tensor:
        """`--sgp_match batch`: order (N,) in which the batch's b's are the best partners of its a's (Hungarian)."""
        similarity = self.embed(batch.A, "A") @ self.embed(batch.B, "B").T
        _, columns = linear_sum_assignment(-similarity.cpu().numpy())
        return torch.as_tensor(columns, device=batch.A.device)


class SGPModel(BaseModel):
    """`--model sgp`: the contrastive pretext task alone."""

    Options = SGPOptions
    pretext_steps: ClassVar = {"sgp_steps": SGP_STEPS}

    def __init__(self, options: SGPOptions, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.options = options
        self.sgp = SGP(options)
        self.stages = (sgp_stage(options, options.n_epochs + options.n_epochs_decay),)
        self.optimisers, self.schedulers = sgp_optimiser(self.sgp, options)

    def training_step(self, batch: Batch, stage: Stage, context: StepContext) -> dict[str, Tensor]:
        return sgp_step(self.sgp, self.optimisers["sgp"], self.schedulers["sgp"], batch, context)

    def step_schedulers(self, stage: Stage) -> None:
        """SGP's learning rate moves with every step, not with the epoch."""

    def validate(self, stage: Stage, batches: Iterator[Batch], context: StepContext) -> dict[str, float]:
        return sgp_figures(self.sgp, batches, context)

    def exported_networks(self) -> dict[str, nn.Module]:
        return {"SGP": self.sgp.network}


def sgp_stage(options: SGPTraining, epochs: int) -> Stage:
    return Stage("sgp", epochs, options.sgp_steps, sampling="levels", least_batch=options.sgp_batch_size)


def sgp_optimiser(sgp: SGP, options: SGPTraining) -> tuple[dict[str, Any], dict[str, Any]]:
    """AdamW with a short linear warm-up and half a cosine over `sgp_steps`."""
    optimiser = torch.optim.AdamW(sgp.parameters(), lr=options.sgp_lr, weight_decay=0.05, fused=True)
    steps = options.sgp_steps or SGP_STEPS.gpu
    warm = max(1, steps // 20)

    def rate(step: int) -> float:
        done = max(0, step - warm) / max(1, steps - warm)
        return min((step + 1) / warm, 0.5 * (1 + float(np.cos(np.pi * min(done, 1)))))

    return {"sgp": optimiser}, {"sgp": torch.optim.lr_scheduler.LambdaLR(optimiser, rate)}


def sgp_step(
    sgp: SGP,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batch: Batch,
    context: StepContext,
) -> dict[str, Tensor]:
    """One update; the loss couples all rows of a batch, so it is never split into micro-batches."""
    with context.autocast():
        loss = sgp.loss(batch, context.generator)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    schedule.step()
    with torch.no_grad():
        sgp.network.log_scale.clamp_(max=float(np.log(100)))  # as CLIP does, or logits overflow
    return {"sgp": loss.detach(), "temperature": (-sgp.network.log_scale).exp().detach()}


def sgp_figures(sgp: SGP, batches: Iterator[Batch], context: StepContext) -> dict[str, float]:
    """Mean |p - p of the nearest| among the slices of a batch, in p: what the loss aims at, on unseen subjects."""
    errors = []
    for batch in batches:
        batch = batch.to(context.device)
        chosen = (sgp.embed(batch.A, "A") @ sgp.embed(batch.B, "B").T).argmax(1)
        errors.append((batch.p_A - batch.p_B[chosen]).abs().mean().item())
    return {"val_p_error": float(np.mean(errors))} if errors else {}
