"""Signal equations: what a pulse sequence makes of one tissue, as a fraction of the full magnetisation.

Signals keep their sign (negative after an inversion), so that tissues sharing a voxel add as magnetisation does; the
magnitude is taken after the coil, in `scanner.py`. Times in ms, angles in degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from data.simulation.tissue import Tissue
from util.errors import UserError


def _positive(sequence: str, **times: float) -> None:
    for name, value in times.items():
        if not 0 < value < math.inf:
            raise UserError(f"{sequence}: {name} = {value}, must be a positive number")


@dataclass(frozen=True)
class SpinEcho:
    """Spin echo and, by two equivalent times, fast spin echo: S = PD (1 - e^(-(TR - train)/T1)) e^(-TE/T2).

    `te_ms` is the echo time with the same contrast: for a train of refocusing pulses under 180 degrees that is shorter
    than the nominal one, since magnetisation stored along z does not decay by T2 (Mugler, JMRI 2014) [M].
    `train_ms`: from excitation to the train's last echo, after which recovery starts anew; 0 for a single echo.
    """

    tr_ms: float
    te_ms: float
    train_ms: float = 0.0

    def __post_init__(self) -> None:
        _positive("spin echo", tr_ms=self.tr_ms, te_ms=self.te_ms)
        if not 0 <= self.train_ms < self.tr_ms or self.te_ms >= self.tr_ms:
            raise UserError(
                f"spin echo: te_ms = {self.te_ms} and train_ms = {self.train_ms} must be below tr_ms = {self.tr_ms}"
            )

    def signal(self, tissue: Tissue) -> float:
        """Signed signal of `tissue`, relative to CSF's full magnetisation."""
        recovery = 1 - math.exp(-(self.tr_ms - self.train_ms) / tissue.t1_ms)
        return tissue.pd * recovery * math.exp(-self.te_ms / tissue.t2_ms)


@dataclass(frozen=True)
class MPRAGE:
    """Magnetisation-prepared rapid gradient echo: inversion, delay, a train of low-angle excitations, recovery.

    `ti_ms` runs from the inversion to the middle excitation (linear order, so that one fills the k-space centre);
    `n_echoes` excitations follow each other every `echo_spacing_ms`. Perfect inversion and spoiling.
    """

    tr_ms: float
    ti_ms: float
    te_ms: float
    flip_deg: float
    echo_spacing_ms: float
    n_echoes: int

    def __post_init__(self) -> None:
        _positive("MPRAGE", tr_ms=self.tr_ms, ti_ms=self.ti_ms, te_ms=self.te_ms, echo_spacing_ms=self.echo_spacing_ms)
        if not 0 < self.flip_deg <= 90:
            raise UserError(f"MPRAGE: flip_deg = {self.flip_deg}, must be above 0 and at most 90")
        if self._before_ms <= 0 or self._after_ms <= 0:
            raise UserError(f"MPRAGE: {self.n_echoes} echoes do not fit around ti_ms = {self.ti_ms} in {self.tr_ms} ms")

    @property
    def _before_ms(self) -> float:
        return self.ti_ms - (self.n_echoes // 2) * self.echo_spacing_ms

    @property
    def _after_ms(self) -> float:
        return self.tr_ms - self._before_ms - self.n_echoes * self.echo_spacing_ms

    def signal(self, tissue: Tissue) -> float:
        """Signed steady-state signal of the middle echo.

        Between excitations M -> 1 + (M cos a - 1) E, a contraction by c = E cos a towards m = (1 - E) / (1 - c): so
        before excitation k it is m + (M_0 - m) c^k. The steady state over one TR is then linear in M_0.
        """
        flip = math.radians(self.flip_deg)
        spacing = math.exp(-self.echo_spacing_ms / tissue.t1_ms)
        before, after = math.exp(-self._before_ms / tissue.t1_ms), math.exp(-self._after_ms / tissue.t1_ms)
        rate = spacing * math.cos(flip)
        limit = (1 - spacing) / (1 - rate)
        decay = rate**self.n_echoes
        # M_end = 1 + (limit (1 - decay) + M_0 decay - 1) after;  M_0 = 1 - (1 + M_end) before
        first = (1 - before - before * (1 + (limit * (1 - decay) - 1) * after)) / (1 + before * decay * after)
        middle = limit + (first - limit) * rate ** (self.n_echoes // 2)
        return tissue.pd * middle * math.sin(flip) * math.exp(-self.te_ms / tissue.t2star_ms)


Sequence = SpinEcho | MPRAGE
