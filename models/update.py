"""One update of the weights, with the gradients of the loss taken term by term.

The graph of a term is freed as soon as its gradients are computed. That takes a third of the memory of one graph for
the whole loss, and no additional operation. Terms on the same synthesised image use a detached copy of it:

    leaf = update.cut(fake)                             # the terms below do not need the generator's graph
    update.add("adv", w.adv, adversarial_loss(D(leaf), real=True))
    update.hold("seg", w.seg, seg_loss(logits, mask))   # shares the generator's graph, so it waits for `join`
    update.join(leaf)                                   # one backward pass through the generator, for all terms
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from data.batch import Batch
from models.gradients import GradientSum
from models.passes import full
from util.processes import ALONE, Processes


@dataclass
class StepContext:
    """What a training step needs besides the batch: device, micro-batch, number format, the processes of the run.

    A batch is this process' part of a step; `images` counts the images of all processes. None: there is one process.
    """

    device: torch.device
    micro_batch: int  # images computed at once, if the stage can split its steps
    amp_dtype: torch.dtype | None = None
    processes: Processes = ALONE
    images: int | None = None
    images_seen: int = field(default=0)  # in the current stage, by all processes
    room: int | None = None  # most bytes that autograd may keep while a step is measured

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Mixed precision, if enabled; by autocast's own rules losses and reductions stay in float32."""
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    def float32(self) -> torch.autocast:
        """Disables `autocast` within a block."""
        return torch.autocast(self.device.type, enabled=False)

    def end_step(self) -> None:
        """Call after a step's last update; adapts float16's loss scale to overflows."""
        if self.scaler.is_enabled():
            self.scaler.update()

    def fraction(self, part: Batch, batch: Batch) -> float:
        """The fraction of the step's images that `part` of this process' `batch` holds."""
        return len(part) / (len(batch) if self.images is None else self.images)

    def images_by_process(self, batch: Batch) -> list[int]:
        """The number of the step's images in each process."""
        if self.images is None:
            return [len(batch)]
        parts = [self.processes.part(self.images, rank) for rank in range(self.processes.size)]
        return [part.stop - part.start for part in parts]


class Update:
    """One update of one optimiser. Gradients add up over terms, micro-batches and processes; `apply` uses them.

    In float16 the loss is scaled so that small gradients survive (torch.amp.GradScaler); a step that overflows is
    skipped.

    Attributes:
        terms: unweighted terms by name, detached, averaged over the step's images; with several processes, this
            process' contribution to that average.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, context: StepContext) -> None:
        self._optimiser, self.context = optimiser, context
        self.terms: dict[str, Tensor] = {}
        self._fraction = 1.0  # the fraction of the step's images in the current micro-batch
        self._cut: dict[Tensor, Tensor] = {}  # leaf -> the image that it was cut from
        self._held: list[Tensor] = []
        self._sum: GradientSum | None = None
        optimiser.zero_grad(set_to_none=True)
        if context.scaler.is_enabled():  # initialised by its first loss, and a process without images has none
            context.scaler.scale(torch.zeros((), device=context.device))

    def micro_batches(self, batch: Batch, *, split: bool = True) -> Iterator[tuple[slice, Batch]]:
        """The micro-batches of `batch`, each with its slice of the batch; no micro-batch if this process has no images.

        Until the next one, terms are weighted by the micro-batch's fraction of the step, so that means over
        micro-batches add up to the mean over all images.
        """
        size = self.context.micro_batch if split else max(1, len(batch))
        for start in range(0, len(batch), size):
            rows = slice(start, min(start + size, len(batch)))
            part = batch.rows(rows.start, rows.stop)
            self._fraction = self.context.fraction(part, batch)
            yield rows, part

    def note(self, name: str, value: Tensor) -> None:
        """Record `value` under `name` in `terms`, averaged like a term of the loss."""
        before = self.terms.get(name, torch.zeros((), device=value.device))
        self.terms[name] = before + self._fraction * value.detach()

    def add(self, name: str, weight: float, term: Tensor) -> None:
        """Compute the gradients of `weight * term` now, which frees its graph. `term`: mean over the micro-batch."""
        self.note(name, term)
        self._backward([(self._fraction * (weight * full(term)), None)])

    def add_whole(self, name: str, batch: Batch, term: Tensor) -> None:
        """As `add`, for a term that couples all images of a step, so that every process computes the whole term."""
        self._fraction = self.context.fraction(batch, batch) if len(batch) else 0.0
        self.note(name, term)
        if len(batch):
            self._backward([(full(term), None)])

    def cut(self, image: Tensor) -> Tensor:
        """A detached copy of `image` that collects gradients until `join` passes them on."""
        leaf = image.detach().requires_grad_()
        self._cut[leaf] = image
        return leaf

    def hold(self, name: str, weight: float, term: Tensor) -> None:
        """As `add`, but the gradients are computed by the next `join`, with whose image `term` shares its graph."""
        self.note(name, term)
        self._held.append(weight * full(term))

    def join(self, leaf: Tensor | None = None) -> None:
        """One backward pass: from the held terms, and from the image of `leaf` with the gradient collected there."""
        roots: list[tuple[Tensor, Tensor | None]] = []
        if self._held:
            roots.append((self._fraction * torch.stack(self._held).sum(), None))
        if leaf is not None:
            image = self._cut.pop(leaf)
            if leaf.grad is not None:
                roots.append((image, leaf.grad))
        self._held.clear()
        self._backward(roots)

    def _backward(self, roots: list[tuple[Tensor, Tensor | None]]) -> None:
        """Backward pass from losses (gradient None, not yet scaled) and from images with a known gradient."""
        if not roots:
            return
        scaled = [self.context.scaler.scale(root) if gradient is None else root for root, gradient in roots]
        with self.context.float32():
            torch.autograd.backward(scaled, [gradient for _, gradient in roots])

    def send(self) -> None:
        """Start the sum over processes; work between this call and `apply` overlaps with the communication."""
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        self._sum = GradientSum(parameters, self.context.processes)

    def apply(self) -> None:
        """Wait for the sum and update the weights."""
        if self._sum is None:
            self.send()
        assert self._sum is not None
        self._sum.wait()
        self.context.scaler.step(self._optimiser)
