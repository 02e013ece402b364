"""One update of the weights: the terms of a loss go in one by one, and each gives its gradients at once.

A term's graph is dropped as soon as its gradients are known. That takes a third of the memory of one graph for the
whole loss, and not one operation more. Terms that use the same synthesis meet at a copy of it without a graph:

    leaf = update.cut(fake)                          # below this line the generator's graph is not needed
    update.add("adv", w.adv, adversarial_loss(D(leaf), real=True))
    update.hold("seg", w.seg, seg_loss(logits, mask))   # shares the generator's graph, so it waits
    update.join(leaf)                                # one pass back through the generator, for all of them
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
    """What a training step may use besides the batch: memory, number format, and the other processes of the run.

    A batch is this process' part of a step; `images` counts those of all processes, None: there is only this one.
    """

    device: torch.device
    micro_batch: int  # images computed at once, where a stage can split its steps
    amp_dtype: torch.dtype | None = None
    processes: Processes = ALONE
    images: int | None = None
    images_seen: int = field(default=0)  # in the current stage, by all processes
    room: int | None = None  # most bytes that measuring a step may take

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Mixed precision if asked for; losses and reductions stay in float32 by autocast's own rules."""
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    def float32(self) -> torch.autocast:
        """Within `autocast`, a block without it."""
        return torch.autocast(self.device.type, enabled=False)

    def end_step(self) -> None:
        """After a step's last update: float16's scale follows what has overflowed."""
        if self.scaler.is_enabled():
            self.scaler.update()

    def fraction(self, part: Batch, batch: Batch) -> float:
        """Which fraction of the step's images `part` of this process' `batch` is."""
        return len(part) / (len(batch) if self.images is None else self.images)

    def images_by_process(self, batch: Batch) -> list[int]:
        """How many of the step's images each process has."""
        if self.images is None:
            return [len(batch)]
        parts = [self.processes.part(self.images, rank) for rank in range(self.processes.size)]
        return [part.stop - part.start for part in parts]


class Update:
    """One update of one optimiser. Gradients add up over terms, micro-batches and processes, then `apply` uses them.

    float16's small gradients are scaled up on the way (torch.amp.GradScaler); steps that overflow are left out.

    Attributes:
        terms: unweighted terms by name, without graph, averaged over the step's images; with several processes, this
            one's summand.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, context: StepContext) -> None:
        self._optimiser, self.context = optimiser, context
        self.terms: dict[str, Tensor] = {}
        self._fraction = 1.0  # of the step's images that the current micro-batch holds
        self._cut: dict[Tensor, Tensor] = {}  # leaf -> the image that it was cut from
        self._held: list[Tensor] = []
        self._sum: GradientSum | None = None
        optimiser.zero_grad(set_to_none=True)
        if context.scaler.is_enabled():  # which begins with the first loss, and a process may have no images
            context.scaler.scale(torch.zeros((), device=context.device))

    def micro_batches(self, batch: Batch, *, split: bool = True) -> Iterator[tuple[slice, Batch]]:
        """The parts of `batch` that fit in memory, with their places in it. None if this process has no images.

        Until the next part, terms are weighted by the part's fraction of the step, so that means over parts add up to
        the mean over all images.
        """
        size = self.context.micro_batch if split else max(1, len(batch))
        for start in range(0, len(batch), size):
            rows = slice(start, min(start + size, len(batch)))
            part = batch.rows(rows.start, rows.stop)
            self._fraction = self.context.fraction(part, batch)
            yield rows, part

    def note(self, name: str, value: Tensor) -> None:
        """Log `value` under `name`, averaged like a term of the loss."""
        before = self.terms.get(name, torch.zeros((), device=value.device))
        self.terms[name] = before + self._fraction * value.detach()

    def add(self, name: str, weight: float, term: Tensor) -> None:
        """Add the gradients of `weight * term` now; its graph is then gone. `term`: mean over the micro-batch."""
        self.note(name, term)
        self._backward([(self._fraction * (weight * full(term)), None)])

    def add_whole(self, name: str, batch: Batch, term: Tensor) -> None:
        """As `add`, for a term that couples all images of a step and that every process therefore computes whole."""
        self._fraction = self.context.fraction(batch, batch) if len(batch) else 0.0
        self.note(name, term)
        if len(batch):
            self._backward([(full(term), None)])

    def cut(self, image: Tensor) -> Tensor:
        """A copy of `image` at which gradients stop, until `join` sends them on."""
        leaf = image.detach().requires_grad_()
        self._cut[leaf] = image
        return leaf

    def hold(self, name: str, weight: float, term: Tensor) -> None:
        """As `add`, but the gradients are computed in the next `join`, whose graph `term` shares."""
        self.note(name, term)
        self._held.append(weight * full(term))

    def join(self, leaf: Tensor | None = None) -> None:
        """Compute the gradients of the terms held, and send those that arrived at `leaf` back through its image."""
        ends: list[tuple[Tensor, Tensor | None]] = []
        if self._held:
            ends.append((self._fraction * torch.stack(self._held).sum(), None))
        if leaf is not None:
            image = self._cut.pop(leaf)
            if leaf.grad is not None:
                ends.append((image, leaf.grad))
        self._held.clear()
        self._backward(ends)

    def _backward(self, ends: list[tuple[Tensor, Tensor | None]]) -> None:
        """Gradients of losses (second item None, still to be scaled) and of images whose own gradient is known."""
        if not ends:
            return
        scaled = [self.context.scaler.scale(end) if gradient is None else end for end, gradient in ends]
        with self.context.float32():
            torch.autograd.backward(scaled, [gradient for _, gradient in ends])

    def send(self) -> None:
        """Begin to sum over processes; what is computed until `apply` hides the wait."""
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        self._sum = GradientSum(parameters, self.context.processes)

    def apply(self) -> None:
        """Wait for the sum and move the weights."""
        if self._sum is None:
            self.send()
        assert self._sum is not None
        self._sum.wait()
        self.context.scaler.step(self._optimiser)
