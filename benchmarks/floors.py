"""What a piece of work cannot be faster than on this machine, by its operations: a floor of FLOP and one of bytes.

FLOP: every convolution (forward, backward), matrix product and attention, timed alone in its own shapes, number format
and memory layout; the sum of the times. What else is computed is taken to be free.
Bytes: every tensor that an operation reads or writes, once for that operation, over the rate of a large copy. Views,
and memory that is only set aside, move nothing. It is the floor of the operations as they are: fused, they would move
less, and tensors that stay in a cache move faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.flop_counter import flop_registry

from benchmarks.machine import best_seconds, copy_rate

SECONDS = 0.05  # each operation is timed about so long, three times at least
LEAST_SHARE = 0.005  # of the FLOP; operations below it are not timed, they run at the mean rate of those that are
# attention that torch's own counter does not know: timed whatever its share, its FLOP are not in any total
UNCOUNTED = frozenset(
    getattr(torch.ops.aten, name)
    for name in ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward")
    if hasattr(torch.ops.aten, name)
)
ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "resize_")


@dataclass(frozen=True)
class TensorKind:
    """All that an operation's time can depend on of a tensor but its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> TensorKind:
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device)

    def made(self) -> Tensor:
        """Such a tensor: random numbers, or zeros of whole ones."""
        places = (
            1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) if self.elements else 0
        )
        memory = torch.zeros(places, dtype=self.dtype, device=self.device)
        if self.dtype.is_floating_point:
            memory.normal_()
        return memory.as_strided(self.shape, self.stride)

    @property
    def elements(self) -> int:
        """Different places in memory: what is expanded counts once."""
        count = 1
        for n, step in zip(self.shape, self.stride, strict=True):
            count *= n if step or not n else 1
        return count


@dataclass
class Operation:
    """One kind of heavy operation: how often it was called, and the FLOP of a call."""

    call: Any  # torch's operator
    arguments: tuple[Any, dict[str, Any]]  # TensorKind in the place of tensors
    flop: int
    count: int = 0

    def seconds(self, device: torch.device) -> float:
        """The best time of one call."""
        made = tree_map(lambda x: x.made() if isinstance(x, TensorKind) else x, self.arguments)
        calls = 10 if device.type == "cuda" else 1  # so that a GPU need not wait for the next call

        def work() -> None:
            for _ in range(calls):
                self.call(*made[0], **made[1])

        with torch.no_grad():
            return best_seconds(work, device, SECONDS) / calls


@dataclass
class Recorder(TorchDispatchMode):
    """Records what runs while it is entered, backward passes included."""

    operations: dict[str, Operation] = field(default_factory=dict)
    bytes: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        heavy = packet in flop_registry or packet in UNCOUNTED
        arguments = (
            tree_map(lambda x: TensorKind.of(x) if isinstance(x, Tensor) else x, (args, kwargs)) if heavy else None
        )
        out = func(*args, **kwargs)
        if arguments is not None:
            flop = flop_registry[packet](*args, **kwargs, out_val=out) if packet in flop_registry else 0
            found = self.operations.setdefault(f"{func} {arguments}", Operation(func, arguments, int(flop)))
            found.count += 1
        self.bytes += moved_bytes(func, (args, kwargs), out)
        return out

    @property
    def flop(self) -> int:
        """Of everything, as torch.utils.flop_counter counts."""
        return sum(operation.flop * operation.count for operation in self.operations.values())


def moved_bytes(func: Any, inputs: Any, out: Any) -> int:
    """Bytes of the different tensors that one operation reads or writes; 0 for views and allocations."""
    if func._overloadpacket.__name__ in ALLOCATIONS:
        return 0
    read, written = list(_tensors(inputs)), list(_tensors(out))
    storages = {tensor.untyped_storage()._cdata for tensor in read}
    if not func._schema.is_mutable and all(tensor.untyped_storage()._cdata in storages for tensor in written):
        return 0
    return sum(
        {_place(tensor): TensorKind.of(tensor).elements * tensor.itemsize for tensor in (*read, *written)}.values()
    )


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def record(work: Callable[[], object]) -> Recorder:
    """What `work` does."""
    with Recorder() as recorder:
        work()
    return recorder


def flop_seconds(recorder: Recorder, device: torch.device) -> float:
    """The floor of the heavy operations: count times best time; those of little share at the others' mean rate."""
    least = LEAST_SHARE * recorder.flop
    timed = [o for o in recorder.operations.values() if not o.flop or o.flop * o.count >= least]
    seconds = [(operation.flop * operation.count, operation.count * operation.seconds(device)) for operation in timed]
    flop, spent = sum(flop for flop, _ in seconds), sum(time for flop, time in seconds if flop)
    rest = (recorder.flop - flop) * spent / flop if flop else 0.0
    return sum(time for _, time in seconds) + rest


def floors(work: Callable[[], object], device: torch.device, seconds: float) -> dict[str, float]:
    """The two floors of `work`, which takes `seconds` when measured, and how far above the larger one that is."""
    recorder = record(work)
    by_flop, by_bytes = flop_seconds(recorder, device), recorder.bytes / copy_rate(device)
    return {
        "floor_flop_s": by_flop,
        "floor_bytes_s": by_bytes,
        "bytes_per_step": recorder.bytes,
        "over_floor": seconds / max(by_flop, by_bytes),
    }
