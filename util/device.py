"""Which device computes, and in which number format."""

from __future__ import annotations

import torch

from util.errors import UserError

AMP = ("auto", "bf16", "off")


def choose_device(gpu_ids: str) -> torch.device:
    """The device `--gpu_ids` means: `auto` CUDA if there is any, `-1` the CPU, a number that GPU.

    Raises:
        UserError: not a number, several GPUs, or a GPU that is not there.
    """
    if gpu_ids == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        number = int(gpu_ids)
    except ValueError:
        raise UserError(f"--gpu_ids is '{gpu_ids}', allowed are auto, -1 (the CPU) or the number of one GPU") from None
    if number < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"--gpu_ids {gpu_ids} asks for CUDA, which this machine or this torch lacks; use --gpu_ids -1")
    if number >= torch.cuda.device_count():
        raise UserError(f"--gpu_ids is {gpu_ids}, this machine has GPUs 0 to {torch.cuda.device_count() - 1}")
    return torch.device("cuda", number)


def _has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices, rather than emulating it slowly."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Number format of mixed precision for `--amp`, None for float32. `auto`: bfloat16 where the hardware has it."""
    if amp == "off" or (amp == "auto" and not _has_bf16(device)):
        return None
    return torch.bfloat16
