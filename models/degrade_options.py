"""Options of `--model degrade` (models/degrade_model.py)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from models.low_field_options import RANDOM, SHADINGS, Strengths, refuse_auto
from models.physics_options import PhysicsOptions
from models.restoration_options import RestorationOptions
from util.needs import positive
from util.schema import AUTO, flag

_strength = partial(flag, AUTO, group="loss", low=0, high=1, auto=True)


@dataclass(frozen=True)
class DegradeOptions(PhysicsOptions, RestorationOptions):
    """Options of `--model degrade`."""

    lf_noise: float | str = _strength(
        "standard deviation of the noise that is added to b; auto: estimated from A", alias=("low_noise",)
    )
    lf_band: float | str = flag(
        AUTO,
        "part of each axis' k-space that this noise fills; auto: estimated from A",
        group="loss",
        low=0.1,
        high=1,
        alias=("low_band",),
        needs=positive("lf_noise"),
        auto=True,
    )
    lf_bias: float | str = _strength(
        "standard deviation of the logarithm of the smooth random field that b is multiplied by; "
        "auto: estimated from A",
        alias=("low_bias",),
    )
    lf_shading: str = flag(
        RANDOM,
        "what changes smoothly in the degraded b; random: b's own, times a field of --lf_bias; partner: the local mean "
        "of a, at the same level of another head",
        group="loss",
        choices=SHADINGS,
    )

    @property
    def strengths(self) -> Strengths:
        """The numbers of noise and field. Raises: as `sharpness`."""
        given = self.lf_noise, self.lf_band, self.lf_bias
        refuse_auto(given)
        return Strengths(*map(float, given))
