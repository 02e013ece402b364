"""Options of the random noise and receive field of a low-field scan (models/low_field.py)."""

from __future__ import annotations

from dataclasses import dataclass

from util.needs import positive
from util.schema import flag


@dataclass(frozen=True)
class LowFieldOptions:
    """Strength of noise and receive field, and the spectrum of the noise."""

    lf_noise: float = flag(
        0.0,
        "standard deviation of low-field noise on fake_A and on b in L_idt; thrice that on what G_BA restores a from",
        group="loss",
        low=0,
        high=1,
        alias=("low_noise",),
    )
    lf_band: float = flag(
        1.0,
        "part of each axis' k-space that the low-field scanner measured, and its noise fills: below 1 if zero-filled",
        group="loss",
        low=0.1,
        high=1,
        alias=("low_band",),
        needs=positive("lf_noise"),
    )
    lf_bias: float = flag(
        0.0,
        "standard deviation of the logarithm of a smooth random receive field on fake_A and on b in L_idt",
        group="loss",
        low=0,
        high=1,
        alias=("low_bias",),
    )
