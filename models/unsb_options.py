"""Options of `--model unsb` (models/unsb_model.py)."""

from __future__ import annotations

from dataclasses import dataclass

from models.cut_options import CUTOptions
from util.needs import positive
from util.schema import flag


@dataclass(frozen=True)
class UNSBOptions(CUTOptions):
    """Options of `--model unsb`: CUT's and the bridge's."""

    sb_steps: int = flag(5, "steps of the bridge from a to fake_B, in tests too", group="loss", low=1, high=50)
    sb_tau: float = flag(0.01, "strength of the bridge's noise: its variance over all of the way", group="loss", low=0)
    lambda_sb: float = flag(1.0, "weight of L_SB", group="loss", low=0, needs=positive("sb_tau"))
