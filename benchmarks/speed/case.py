"""What a case of scripts/benchmark_speed.py measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """What to measure: a model at its default size, on square slices, in one number format, on one device."""

    model: str
    size: int
    batch: int
    amp: str
    gpu_ids: str
    seconds: float = 20.0  # approximate length of each timing
    train_args: tuple[str, ...] = ()
    slices: int = 10**6  # in the largest data folder
    profile: bool = False
