"""Options of `--model unsb` (models/unsb_model.py)."""

from __future__ import annotations

from dataclasses import dataclass

from models.cut_options import CUTOptions
from util.errors import UserError
from util.needs import positive
from util.schema import flag


@dataclass(frozen=True)
class UNSBOptions(CUTOptions):
    """Options of `--model unsb`: CUT's and the bridge's."""

    sb_steps: int = flag(5, "steps of the bridge from a to fake_B", group="loss", low=1, high=50)
    sb_passes: int = flag(
        0, "step at which fake_B is taken in tests, so many passes of G_AB; 0: the last one", group="loss", low=0
    )
    sb_tau: float = flag(0.01, "strength of the bridge's noise: its variance over all of the way", group="loss", low=0)
    lambda_sb: float = flag(1.0, "weight of L_SB", group="loss", low=0, needs=positive("sb_tau"))

    def __post_init__(self) -> None:
        if self.sb_passes > self.sb_steps:
            raise UserError(f"--sb_passes is {self.sb_passes}, allowed are 0 to --sb_steps, which is {self.sb_steps}")

    @property
    def passes(self) -> int:
        """How many times G_AB runs for a synthesis."""
        return self.sb_passes or self.sb_steps
