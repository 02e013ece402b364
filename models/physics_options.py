"""Options of the physics that makes a low-field scan of a high-field slice (models/degradation.py)."""

from __future__ import annotations

from dataclasses import dataclass

from models.low_field_options import refuse_auto
from util.errors import UserError
from util.needs import fact
from util.schema import AUTO, flag

NO_TONE = "none"
USES_PHYSICS = fact("uses_physics", "--n_epochs_refine and --refine_physics above 0")


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
class PhysicsOptions:
    """What the physics lacks beside noise and receive field, and how far an image's own numbers may lie from these."""

    lf_resolution: float | str = flag(
        AUTO,
        "part of each axis' k-space that the degraded b keeps; auto: estimated from A and B",
        group="loss",
        low=0.1,
        high=1,
        auto=True,
        needs=USES_PHYSICS,
    )
    lf_contrast: float | str = flag(
        AUTO,
        "least part of b's local contrast that is left after --lf_tone; auto: estimated from A and B",
        group="loss",
        low=0,
        high=1,
        auto=True,
        needs=USES_PHYSICS,
    )
    lf_tone: str = flag(
        AUTO,
        "A's grey values for evenly spaced ones of B from 0 to 1, with commas; auto: estimated from A and B; none: B's",
        group="loss",
        needs=USES_PHYSICS,
    )
    lf_spread: float = flag(
        0.1,
        "noise and field of each image are drawn from a range of this relative half-width around their values, "
        "resolution and tone from one of half of it, contrast between its value and 1; 0: all are alike",
        group="loss",
        low=0,
        high=1,
        needs=USES_PHYSICS,
    )

    def __post_init__(self) -> None:
        if isinstance(self.lf_tone, str) and self.lf_tone != AUTO:
            tone_curve(self.lf_tone)

    @property
    def uses_physics(self) -> bool:
        """Whether the model makes such scans at all."""
        return True

    @property
    def sharpness(self) -> tuple[float, float]:
        """Resolution and contrast. Raises ValueError for `auto`: training/low_field replaces it first."""
        refuse_auto((self.lf_resolution, self.lf_contrast))
        return float(self.lf_resolution), float(self.lf_contrast)

    @property
    def tone(self) -> tuple[float, ...]:
        """The curve. Raises: as `sharpness`."""
        refuse_auto((self.lf_tone,))
        return tone_curve(self.lf_tone)
