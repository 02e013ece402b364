"""Where the time of a piece of work goes: its most expensive operations, by torch's own profiler and FLOP counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

MOST = 15  # operations that are reported


def operations(work: Callable[[], object], device: torch.device) -> dict[str, dict[str, float]]:
    """Seconds of one call of `work` by operation, without those that it calls in turn, their share, and FLOP.

    The FLOP are torch's count, which knows products, convolutions and most kinds of attention. It names operations as
    they are called, the profiler also as they are carried out: `convolution` by `mkldnn_convolution`.
    """
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as recorded:
        work()
        if gpu:
            torch.cuda.synchronize(device)
    # calls alone: the kernels of a GPU are listed beside them, and counted in their times
    calls = [event for event in recorded.key_averages() if event.device_type == DeviceType.CPU]
    seconds = {call.key: (call.self_device_time_total if gpu else call.self_cpu_time_total) / 1e6 for call in calls}
    whole = sum(seconds.values())
    top = dict(sorted(seconds.items(), key=lambda item: -item[1])[:MOST])
    with FlopCounterMode(display=False) as counter:
        work()
    flop: dict[Any, int] = counter.get_flop_counts()["Global"]
    return {
        "operation_s": top,
        "operation_share": {name: value / whole for name, value in top.items()},
        "operation_flop": {f"aten::{call.__name__}": count for call, count in flop.items()},
    }
