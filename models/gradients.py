"""Sums the gradients of a step over all processes while other work goes on.

torch's DistributedDataParallel reduces gradients inside `backward`. Here they are reduced after it, once for all
micro-batches. A step passes through every generator several times and freezes the discriminators for a while, and a
process has no images if the last batch of an epoch is smaller than the number of processes.
DistributedDataParallel handles none of this without waste, and its mean over processes is wrong if they have
different numbers of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from util.processes import Processes

BUCKET_BYTES = 25 << 20  # per message: large enough to use the network well, small enough to start early


class GradientSum:
    """Starts to sum the gradients of `parameters` over all processes; after `wait` the sums are in `.grad`.

    A parameter without a gradient in any process keeps None; one with a gradient in other processes only counts as
    zero here. With one process there is nothing to do.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], processes: Processes) -> None:
        self._processes = processes
        self._sent: list[tuple[list[Tensor], Tensor, dist.Work]] = []
        if processes.size == 1:
            return
        for bucket in _buckets(_completed(parameters, processes)):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            with processes.talking():
                self._sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))

    def wait(self) -> None:
        """Wait for the sums and write them to `.grad`."""
        for bucket, flat, work in self._sent:
            with self._processes.talking():
                work.wait()
            sums = flat.split([gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(sums, bucket, strict=True)])
        self._sent.clear()


def _completed(parameters: Sequence[nn.Parameter], processes: Processes) -> list[Tensor]:
    """Gradients of all parameters that have one in any process.

    They differ: the attention of background tokens gets no gradient where a process has no such tokens.
    """
    here = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    with processes.talking():
        dist.all_reduce(here, dist.ReduceOp.MAX, group=processes.messages)
    for parameter, anywhere in zip(parameters, here.tolist(), strict=True):
        if anywhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in parameters if p.grad is not None]


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Consecutive gradients of one dtype, at most BUCKET_BYTES in total unless a single one is larger."""
    buckets: list[list[Tensor]] = []
    room = 0
    for gradient in gradients:
        if not buckets or gradient.nbytes > room or buckets[-1][0].dtype != gradient.dtype:
            buckets.append([])
            room = BUCKET_BYTES
        buckets[-1].append(gradient)
        room -= gradient.nbytes
    return buckets
