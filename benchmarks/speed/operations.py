"""The operations that take the most time, by torch's profiler and FLOP counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

MOST = 15  # number of operations in the report


def operations(work: Callable[[], object], device: torch.device) -> dict[str, dict[str, float]]:
    """Seconds, fraction of the time, and FLOP by operation in one call of `work`; nested operations count separately.

    torch's FLOP counter knows matrix products, convolutions and most kinds of attention. It uses the names of the
    called operations, the profiler also those of the implementations, such as `mkldnn_convolution`.
    """
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as recorded:
        work()
        if gpu:
            torch.cuda.synchronize(device)
    # only calls: GPU kernels are listed as well, but their time is already in the calls
    calls = [event for event in recorded.key_averages() if event.device_type == DeviceType.CPU]
    seconds = {call.key: (call.self_device_time_total if gpu else call.self_cpu_time_total) / 1e6 for call in calls}
    total = sum(seconds.values())
    top = dict(sorted(seconds.items(), key=lambda item: -item[1])[:MOST])
    with FlopCounterMode(display=False) as counter:
        work()
    flop: dict[Any, int] = counter.get_flop_counts()["Global"]
    return {
        "operation_s": top,
        "operation_share": {name: value / total for name, value in top.items()},
        "operation_flop": {f"aten::{call.__name__}": count for call, count in flop.items()},
    }
