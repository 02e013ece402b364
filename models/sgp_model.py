"""SGP: slice-wise gap perception, the contrastive pretext task (docs/method.md section 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from data.batch import LEVELS, Batch, Levels
from models.base_model import BaseModel
from models.chance import uniform
from models.losses import clip_loss
from models.networks.sgp import VIEW_DRAWS, SGPNetwork, random_views
from models.passes import full
from models.sgp_options import SGP_STEPS, SGPOptions, SGPTraining
from models.stage import Stage
from models.update import StepContext, Update
from util.processes import ALONE, Processes

OUTSIDE = 10.0  # taken off for each width of the window beyond it, from similarities of -4 to 4
SIMILARITY_BYTES = 256 << 20  # most memory of the similarities between some slices of one field and all of the other


class SGP(nn.Module):
    """The encoders and their loss; used by `--model sgp` and inside the PTA models."""

    def __init__(self, options: SGPTraining) -> None:
        super().__init__()
        self.options = options
        self.network = SGPNetwork(options)

    def loss(self, batch: Batch, context: StepContext) -> Tensor:
        """Contrastive loss of a batch of distinct levels, on --sgp_views random views of each, one encoder per domain.

        It couples all images of a step. Each of several processes computes the whole loss; gradients flow to its own
        images only.
        """
        n = self.options.sgp_views
        counts, place = [n * count for count in context.images_by_process(batch)], context.processes.rank
        pairs = []
        for domain, images in (("A", batch.A), ("B", batch.B)):
            mine = images.new_zeros(0, self.options.sgp_embedding)
            if len(images):
                draws, corners = (
                    uniform(batch.key, f"{what} {domain}", n, numbers).flatten(0, 1)
                    for what, numbers in (("view", VIEW_DRAWS), ("crop", 2))
                )
                views = random_views(images.repeat_interleave(n, 0), draws)
                mine = full(self.network(views, domain, corners))
            everyone = context.processes.gather_rows(mine, counts)
            everyone[place] = mine
            pairs.append(torch.cat(everyone))  # (n N, D)
        levels = torch.cat(context.processes.gather_rows(batch.p_A.repeat_interleave(n), counts))
        part = context.fraction(batch, batch) if len(batch) else 0.0  # else every process would add t's whole gradient
        t = part * self.network.log_scale + (1 - part) * self.network.log_scale.detach()
        return clip_loss(pairs[0], pairs[1], t, levels, self.options.sgp_soft_sigma)

    @torch.no_grad()
    def embed(self, images: Tensor, domain: str) -> Tensor:
        """Unit embeddings (N, D) of slices (N, 1, H, W) in [-1, 1] of domain 'A' or 'B'; centre crop, no gradients."""
        was_training = self.network.training
        self.network.eval()
        embedding = self.network(images, domain)
        self.network.train(was_training)
        return embedding

    def nearest(
        self,
        low: Iterator[Tensor],
        high: Iterator[Tensor],
        k: int,
        levels: Levels,
        *,
        window: float = 0.0,
        processes: Processes = ALONE,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The k nearest slices of the other field for each slice: (len low, k) and (len high, k).

        Near is what is similar and not similar to everybody: from the cosine of two embeddings each one's mean cosine
        with its own k nearest is taken off (CSLS, Conneau et al. 2018). Without that a few slices are near all others.

        With a `window` above 0, slices whose `levels` differ by more lose OUTSIDE for each further width of it.

        Each of several processes embeds and looks up its part of the slices; all get the whole tables.
        """
        totals = [len(of_field) for of_field in levels]
        counts = [[len(range(n)[processes.part(n, rank)]) for rank in range(processes.size)] for n in totals]

        def whole(parts: Iterable[Tensor]) -> list[Tensor]:
            return [torch.cat(processes.gather_rows(x, n)) for x, n in zip(parts, counts, strict=True)]

        mine = self._embedded(low, "A"), self._embedded(high, "B")
        every = whole(mine)
        crowds = whole(_most_similar(x, others, k)[0].mean(1) for x, others in zip(mine, every[::-1], strict=True))
        at = [x.new_tensor(of_field) for of_field, x in zip(levels, mine, strict=True)]
        here = [of_field[processes.part(n)] for of_field, n in zip(at, totals, strict=True)]
        near = (
            _most_similar(x, others, k, crowd, (own, theirs, window) if window else None)[1]
            for x, others, crowd, own, theirs in zip(mine, every[::-1], crowds[::-1], here, at[::-1], strict=True)
        )
        of_low, of_high = (table.cpu().numpy().astype(np.int64) for table in whole(near))
        return of_low, of_high

    def _embedded(self, slices: Iterator[Tensor], domain: str) -> Tensor:
        like = self.network.log_scale
        empty = like.detach().new_zeros(0, self.options.sgp_embedding)
        return torch.cat([empty, *(self.embed(images.to(like), domain) for images in slices)])

    def assign(self, batch: Batch, context: StepContext) -> Tensor:
        """`--sgp_match batch`: the permutation (N,) of the step's b that best matches its a (Hungarian assignment)."""
        counts = context.images_by_process(batch)
        u, v = (
            torch.cat(context.processes.gather_rows(self.embed(x, d), counts))
            for x, d in ((batch.A, "A"), (batch.B, "B"))
        )
        similarity = u @ v.T
        _, columns = linear_sum_assignment(-similarity.cpu().numpy())
        return torch.as_tensor(columns, device=batch.A.device)


class SGPStage(Stage):
    """Trains SGP; its learning rate changes with every step. Steps are never split: the loss couples all images.

    Args: as `Stage`.
    """

    name = "sgp"
    sampling = LEVELS
    smaller = ("--sgp_batch_size", "--sgp_width")

    def __init__(self, sgp: SGP, options: SGPTraining, epochs: int, epochs_before: int | None = 0) -> None:
        super().__init__([sgp], epochs, options.sgp_steps, epochs_before)
        self.sgp, self.least_batch = sgp, options.sgp_batch_size
        self.optimiser = torch.optim.AdamW(sgp.parameters(), lr=options.sgp_lr, weight_decay=0.05, fused=True)
        self.optimisers = {self.name: self.optimiser}
        self._lr, self._factor = options.sgp_lr, warm_half_cosine(options.sgp_steps)

    def learning_rate(self, epoch: int, step: int) -> float:
        return self._lr * self._factor(step)

    def losses(self, batch: Batch, update: Update) -> None:
        update.add_whole("sgp", batch, self.sgp.loss(batch, update.context))

    def step(self, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        update = Update(self.optimiser, context)
        with context.autocast():  # also if this process has no images: the loss gathers those of all processes
            self.losses(batch, update)
        update.apply()
        with torch.no_grad():
            self.sgp.network.log_scale.clamp_(max=float(np.log(100)))  # as CLIP does, or logits overflow
        update.note("temperature", (-self.sgp.network.log_scale).exp())
        return update.terms

    def validate(self, unseen: Iterator[Batch], seen: Iterator[Batch], context: StepContext) -> dict[str, float]:
        """Mean |p_A - p_B| between low-field slices and their nearest high-field slices in a batch, unseen subjects."""
        errors = []
        for batch in unseen:
            batch = batch.to(context.device)
            chosen = (self.sgp.embed(batch.A, "A") @ self.sgp.embed(batch.B, "B").T).argmax(1)
            errors.append((batch.p_A - batch.p_B[chosen]).abs().mean().item())
        return {"p_error": float(np.mean(errors))} if errors else {}


class SGPModel(BaseModel):
    """`--model sgp`: the contrastive pretext task alone."""

    Options = SGPOptions
    sgp: SGP

    def __init__(self, options: SGPOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        self.sgp = SGP(options)
        self.stages = [SGPStage(self.sgp, options, options.n_epochs + options.n_epochs_decay)]

    def costly_networks(self) -> list[nn.Module]:
        return list(self.sgp.network.encoders.values())

    def exported_networks(self) -> dict[str, nn.Module]:
        return {"SGP": self.sgp.network}


def warm_half_cosine(steps: int | None) -> Callable[[int], float]:
    """Learning rate factor by step: a short linear warm-up, then half a cosine to 0 (`steps` None: as on a GPU)."""
    n = steps or SGP_STEPS.gpu
    warm = max(1, n // 20)

    def rate(step: int) -> float:
        done = max(0, step - warm) / max(1, n - warm)
        return min((step + 1) / warm, 0.5 * (1 + float(np.cos(np.pi * min(done, 1)))))

    return rate


def _most_similar(
    queries: Tensor,
    others: Tensor,
    k: int,
    crowd: Tensor | None = None,
    window: tuple[Tensor, Tensor, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """The k of `others` (M, D) that are most similar to each of `queries` (n, D).

    Args:
        crowd: (M,) mean similarity of each of `others` to those nearest to it, to be taken off.
        window: levels (n,) and (M,), and by how much they may differ.
    Returns: (n, k) cosines, or with a crowd twice the cosines less the crowd; and (n, k) positions.
    """
    at_once, k = max(1, SIMILARITY_BYTES // (4 * len(others))), min(k, len(others))
    found = []
    for rows in torch.arange(len(queries), device=queries.device).split(at_once):  # one part at least, even of none
        part = queries[rows]
        similarity = part @ others.T if crowd is None else 2 * part @ others.T - crowd
        if window is not None:
            own, theirs, width = window
            apart = (own[rows, None] - theirs).abs() / width
            similarity = similarity - OUTSIDE * (apart - 1).clamp(min=0)
        found.append(similarity.topk(k, dim=1))
    values, positions = (torch.cat(parts) for parts in zip(*found, strict=True))
    return values, positions
