"""Gradients of one step, summed over the processes of a run while other work goes on.

What torch's DistributedDataParallel does inside `backward` is done here after it, once for all micro-batches: a step
passes through every generator several times, freezes the discriminators for a while, and leaves a process without
images where the last batch of an epoch is smaller than the number of processes. DistributedDataParallel allows none of
these without waste, and its mean over processes is wrong where they have different numbers of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from util.processes import Processes

BUCKET_BYTES = 25 << 20  # sent at once: large enough for the network, small enough to begin early


class GradientSum:
    """Begins to sum the gradients of `parameters` over all processes; `wait` ends it, with the sums in `.grad`.

    A parameter that no process has a gradient for keeps None; one that only others have a gradient for counts as zero
    here. With one process there is nothing to do.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], processes: Processes) -> None:
        self._world = processes
        self._sent: list[tuple[list[Tensor], Tensor, dist.Work]] = []
        if processes.size == 1:
            return
        for bucket in _buckets(_completed(parameters, processes)):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            with processes.talking():
                self._sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))

    def wait(self) -> None:
        """Put the sums in place."""
        for bucket, flat, work in self._sent:
            with self._world.talking():
                work.wait()
            sums = flat.split([gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(sums, bucket, strict=True)])
        self._sent.clear()


def _completed(parameters: Sequence[nn.Parameter], processes: Processes) -> list[Tensor]:
    """Gradients of those parameters for which any process has one: attention without background tokens has none."""
    here = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    with processes.talking():
        dist.all_reduce(here, dist.ReduceOp.MAX, group=processes.messages)
    for parameter, anywhere in zip(parameters, here.tolist(), strict=True):
        if anywhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in parameters if p.grad is not None]


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Neighbours of one number format, together at most BUCKET_BYTES unless one alone is larger."""
    buckets: list[list[Tensor]] = []
    room = 0
    for gradient in gradients:
        if not buckets or gradient.nbytes > room or buckets[-1][0].dtype != gradient.dtype:
            buckets.append([])
            room = BUCKET_BYTES
        buckets[-1].append(gradient)
        room -= gradient.nbytes
    return buckets
