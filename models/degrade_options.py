"""Options of `--model degrade` (models/degrade_model.py)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from models.low_field_options import RANDOM, SHADINGS, Strengths
from models.restoration_options import RestorationOptions
from util.errors import UserError
from util.needs import positive
from util.schema import AUTO, flag

NO_TONE = "none"
_strength = partial(flag, AUTO, group="loss", low=0, high=1, auto=True)


def tone_curve(text: str) -> tuple[float, ...]:
    """The numbers of --lf_tone: A's grey values for evenly spaced grey values of B from 0 to 1.

    Raises: UserError: fewer than two, one outside [0, 1], or one below the one before it.
    """
    if text == NO_TONE:
        return 0.0, 1.0
    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        levels = ()
    if len(levels) < 2 or not all(low <= high for low, high in zip((0.0, *levels), (*levels, 1.0), strict=True)):
        raise UserError(
            f"--lf_tone is {text[:80]!r}, it must be {AUTO}, {NO_TONE}, or at least two numbers from 0 to 1 with "
            "commas between them, none below the one before it"
        )
    return levels


@dataclass(frozen=True)
class DegradeOptions(RestorationOptions):
    """Options of `--model degrade`: the low field's physics, and how far an image's own may lie from it."""

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
    lf_resolution: float | str = flag(
        AUTO,
        "part of each axis' k-space that the degraded b keeps; auto: estimated from A and B",
        group="loss",
        low=0.1,
        high=1,
        auto=True,
    )
    lf_contrast: float | str = _strength(
        "least part of b's local contrast that is left after --lf_tone; auto: estimated from A and B"
    )
    lf_tone: str = flag(
        AUTO,
        "A's grey values for evenly spaced ones of B from 0 to 1, with commas; auto: estimated from A and B; none: B's",
        group="loss",
    )
    lf_shading: str = flag(
        RANDOM,
        "what changes smoothly in the degraded b; random: b's own, times a field of --lf_bias; partner: the local mean "
        "of a, at the same level of another head",
        group="loss",
        choices=SHADINGS,
    )
    lf_spread: float = flag(
        0.1,
        "noise and field of each image are drawn from a range of this relative half-width around their values, "
        "resolution and tone from one of half of it, contrast between its value and 1; 0: all are alike",
        group="loss",
        low=0,
        high=1,
    )

    def __post_init__(self) -> None:
        if isinstance(self.lf_tone, str) and self.lf_tone != AUTO:
            tone_curve(self.lf_tone)

    @property
    def strengths(self) -> Strengths:
        """The numbers of noise and field. Raises ValueError for `auto`: training/low_field replaces it first."""
        given = self.lf_noise, self.lf_band, self.lf_bias
        self._refuse_auto(given)
        return Strengths(*map(float, given))

    @property
    def sharpness(self) -> tuple[float, float]:
        """Resolution and contrast. Raises: as `strengths`."""
        self._refuse_auto((self.lf_resolution, self.lf_contrast))
        return float(self.lf_resolution), float(self.lf_contrast)

    @property
    def tone(self) -> tuple[float, ...]:
        """The curve. Raises: as `strengths`."""
        self._refuse_auto((self.lf_tone,))
        return tone_curve(self.lf_tone)

    def _refuse_auto(self, values: tuple[float | str, ...]) -> None:
        if AUTO in values:
            raise ValueError(f"--lf_*: {AUTO} among {values} has not been replaced by a number")
