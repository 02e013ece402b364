"""Options of the random noise and receive field of a low-field scan (models/low_field.py)."""

from __future__ import annotations

from dataclasses import dataclass

from util.needs import positive
from util.schema import AUTO, flag

PARTNER, RANDOM = "partner", "random"  # where the smooth part of simulated low-field images comes from
SHADINGS = (PARTNER, RANDOM)


@dataclass(frozen=True)
class LowFieldOptions:
    """Strength of noise and receive field, and the spectrum of the noise."""

    lf_noise: float | str = flag(
        0.0,
        "standard deviation of low-field noise on fake_A and on b in L_idt, thrice that on what G_BA restores a from; "
        "auto: estimated from A",
        group="loss",
        low=0,
        high=1,
        alias=("low_noise",),
        auto=True,
    )
    lf_band: float | str = flag(
        1.0,
        "part of each axis' k-space that the low-field scanner measured, to which fake_A and its noise are limited: "
        "below 1 if zero-filled; auto: estimated from A",
        group="loss",
        low=0.1,
        high=1,
        alias=("low_band",),
        needs=positive("lf_noise"),
        auto=True,
    )
    lf_bias: float | str = flag(
        0.0,
        "standard deviation of the logarithm of a smooth random receive field on fake_A and on b in L_idt; "
        "auto: estimated from A",
        group="loss",
        low=0,
        high=1,
        alias=("low_bias",),
        auto=True,
    )

    @property
    def strengths(self) -> Strengths:
        """The numbers. Raises ValueError for `auto`: training/low_field puts numbers in its place first."""
        given = self.lf_noise, self.lf_band, self.lf_bias
        refuse_auto(given)
        return Strengths(*map(float, given))


@dataclass(frozen=True)
class Strengths:
    """Noise and receive field as numbers: the values of the three options."""

    noise: float
    band: float
    bias: float


NO_SCAN = Strengths(noise=0.0, band=1.0, bias=0.0)


def refuse_auto(values: tuple[float | str, ...]) -> None:
    """Raise ValueError if one of the values is still `auto`."""
    if AUTO in values:
        raise ValueError(f"--lf_*: {AUTO} has not been replaced by a number: {values}")
