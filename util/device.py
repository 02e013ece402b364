"""Device and number format of computations."""

from __future__ import annotations

import torch

from util.errors import UserError
from util.processes import Processes

# by amp_dtype
NUMBER_FORMATS = {None: "float32", torch.bfloat16: "bfloat16 mixed precision", torch.float16: "float16 mixed precision"}


def choose_device(gpu_ids: str, local_rank: int = 0) -> torch.device:
    """The device of `--gpu_ids`: `auto` is CUDA if available, `-1` the CPU, a number that GPU.

    Args: local_rank: number of the process on this machine; with `auto` each process takes its own GPU.
    Raises:
        UserError: not a number, several GPUs, or a GPU that does not exist.
    """
    if gpu_ids == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise UserError(
                f"--gpu_ids auto: no GPU for process {local_rank + 1} of this machine, which has {count}; "
                "start as many processes as GPUs (--nproc_per_node), or all on one GPU by its number"
            )
        return torch.device("cuda", local_rank)
    if gpu_ids == "-1":
        return torch.device("cpu")
    if not gpu_ids.isdecimal():
        raise UserError(f"--gpu_ids is '{gpu_ids}', allowed are auto, -1 (the CPU) or the number of one GPU")
    number = int(gpu_ids)
    if not torch.cuda.is_available():
        raise UserError(f"--gpu_ids {gpu_ids} asks for CUDA, which this machine or this torch lacks; use --gpu_ids -1")
    if number >= torch.cuda.device_count():
        raise UserError(f"--gpu_ids is {gpu_ids}, this machine has GPUs 0 to {torch.cuda.device_count() - 1}")
    return torch.device("cuda", number)


def own_device(gpu_ids: str, processes: Processes) -> torch.device:
    """`choose_device` for processes that train together, each on its own GPU.

    Raises:
        UserError: as `choose_device`; also one GPU for several processes.
    """
    device = choose_device(gpu_ids, processes.local_rank)
    if device.type == "cuda" and processes.local_size > 1 and gpu_ids != "auto":
        raise UserError(f"--gpu_ids {gpu_ids} is one GPU for {processes.local_size} processes; leave it out")
    return device


def _has_bf16(device: torch.device) -> bool:
    """Whether the hardware supports bfloat16 matrix products, which are slow if emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Number format of mixed precision for `--amp`, None for float32. `auto`: bfloat16 if the hardware supports it."""
    if amp == "fp16":
        return torch.float16
    if amp == "off" or (amp == "auto" and not _has_bf16(device)):
        return None
    return torch.bfloat16
