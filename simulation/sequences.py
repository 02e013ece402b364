"""Signal equations of pulse sequences: the signal of one tissue as a fraction of the full magnetisation.

Signals are signed (negative after an inversion), because the magnetisation of tissues in a voxel adds up; `scanner.py`
takes the magnitude after the coil. All signals are those of the steady state over repetitions.
References: docs/facts.md section 3.

`signal(tissue, b1)` takes the transmit field as a factor (n,) on every flip angle and returns (n,). Inversions are
adiabatic and perfect. Times in ms, angles in degrees.

Flowing blood: spins that leave the slice between excitation and refocusing give no echo, so `Tissue.flow` of a vessel's
signal is lost in spin echoes. A gradient echo needs no second pulse, and part of the flowing spins arrive with full
magnetisation, so vessels are bright there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.epg import echo_train
from simulation.tissue import Tissue
from util.errors import UserError

Array = NDArray[np.float64]
NOMINAL = np.ones(1)
FRESH = 0.4  # of the flowing spins, those that have met neither inversion nor excitation before [I]


def _positive(sequence: str, **times: float) -> None:
    for name, value in times.items():
        if not 0 < value < math.inf:
            raise UserError(f"{sequence}: {name} = {value}, must be a positive number")


def _angle(sequence: str, name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise UserError(f"{sequence}: {name} = {value}, must be above 0 and at most {most:g} degrees")


def _recovered(magnetisation: Array, time_ms: float, t1_ms: float) -> Array:
    return 1 + (magnetisation - 1) * math.exp(-time_ms / t1_ms)


@dataclass(frozen=True)
class SpinEcho:
    """One refocusing pulse midway between excitation and echo, then recovery until the end of TR."""

    tr_ms: float
    te_ms: float
    flip_deg: float = 90.0
    refocus_deg: float = 180.0

    def __post_init__(self) -> None:
        _positive("spin echo", tr_ms=self.tr_ms, te_ms=self.te_ms)
        _angle("spin echo", "flip_deg", self.flip_deg, 180)
        _angle("spin echo", "refocus_deg", self.refocus_deg, 180)
        if self.te_ms >= self.tr_ms:
            raise UserError(f"spin echo: te_ms = {self.te_ms} must be below tr_ms = {self.tr_ms}")

    def signal(self, tissue: Tissue, b1: Array = NOMINAL) -> Array:
        """PD M sin(a) sin^2(r/2) e^(-TE/T2), M the longitudinal magnetisation after TR."""
        flip, refocus = np.radians(self.flip_deg) * b1, np.radians(self.refocus_deg) * b1

        def after_tr(start: Array) -> Array:
            middle = _recovered(start * np.cos(flip), self.te_ms / 2, tissue.t1_ms)
            return _recovered(middle * np.cos(refocus), self.tr_ms - self.te_ms / 2, tissue.t1_ms)

        amplitude = _steady(after_tr, b1) * np.sin(flip) * np.sin(refocus / 2) ** 2
        return (1 - tissue.flow) * tissue.pd * amplitude * math.exp(-self.te_ms / tissue.t2_ms)


@dataclass(frozen=True)
class FastSpinEcho:
    """A train of refocused echoes (FSE, TSE, RARE); with `ti_ms` after an inversion (IR-FSE; FLAIR if CSF is nulled).

    The echo nearest to `te_ms` fills the centre of k-space and determines the contrast. `ti_ms` is the time from
    inversion to excitation; after the last echo the magnetisation recovers until the end of TR.
    """

    tr_ms: float
    te_ms: float
    n_echoes: int
    echo_spacing_ms: float
    refocus_deg: float = 180.0
    ti_ms: float | None = None
    flip_deg: float = 90.0

    def __post_init__(self) -> None:
        name = "fast spin echo"
        _positive(name, tr_ms=self.tr_ms, te_ms=self.te_ms, echo_spacing_ms=self.echo_spacing_ms)
        _angle(name, "flip_deg", self.flip_deg, 180)
        _angle(name, "refocus_deg", self.refocus_deg, 180)
        if self.ti_ms is not None:
            _positive(name, ti_ms=self.ti_ms)
            if self.ti_ms >= self.tr_ms:
                raise UserError(f"{name}: ti_ms = {self.ti_ms} must be below tr_ms = {self.tr_ms}")
        if not 1 <= self.echo <= self.n_echoes:
            last = self.n_echoes * self.echo_spacing_ms
            raise UserError(
                f"{name}: te_ms = {self.te_ms} lies outside the train, from {self.echo_spacing_ms} to {last}"
            )
        if self._rest_ms <= 0:
            raise UserError(
                f"{name}: {self.n_echoes} echoes {self.echo_spacing_ms} ms apart do not fit in {self.tr_ms} ms"
            )

    @property
    def echo(self) -> int:
        """Number of the echo at the centre of k-space, from 1."""
        return round(self.te_ms / self.echo_spacing_ms)

    @property
    def _rest_ms(self) -> float:
        return self.tr_ms - (self.ti_ms or 0.0) - self.n_echoes * self.echo_spacing_ms

    def signal(self, tissue: Tissue, b1: Array = NOMINAL) -> Array:
        """The echo at the centre of k-space, by extended phase graphs."""
        flip, refocus = np.radians(self.flip_deg) * b1, np.radians(self.refocus_deg) * b1

        def train(before: float) -> tuple[Array, Array]:
            return echo_train(tissue.t1_ms, tissue.t2_ms, self.echo_spacing_ms, flip, refocus, self.n_echoes, before)

        (echoes_0, end_0), (echoes_1, end_1) = train(0.0), train(1.0)  # linear in the initial magnetisation

        def prepared(start: Array) -> Array:
            return start if self.ti_ms is None else _recovered(-start, self.ti_ms, tissue.t1_ms)

        def after_tr(start: Array) -> Array:
            return _recovered(end_0 + (end_1 - end_0) * prepared(start), self._rest_ms, tissue.t1_ms)

        before, centre = prepared(_steady(after_tr, b1)), self.echo - 1
        return (1 - tissue.flow) * tissue.pd * (echoes_0[:, centre] + (echoes_1 - echoes_0)[:, centre] * before)


@dataclass(frozen=True)
class SpoiledGRE:
    """Spoiled gradient echo (FLASH, SPGR, T1-FFE): no transverse magnetisation before an excitation."""

    tr_ms: float
    te_ms: float
    flip_deg: float

    def __post_init__(self) -> None:
        _positive("spoiled GRE", tr_ms=self.tr_ms, te_ms=self.te_ms)
        _angle("spoiled GRE", "flip_deg", self.flip_deg, 180)
        if self.te_ms >= self.tr_ms:
            raise UserError(f"spoiled GRE: te_ms = {self.te_ms} must be below tr_ms = {self.tr_ms}")

    def signal(self, tissue: Tissue, b1: Array = NOMINAL) -> Array:
        """PD sin(a) (1 - E1) / (1 - E1 cos(a)) e^(-TE/T2*) (Ernst & Anderson 1966)."""
        flip, e1 = np.radians(self.flip_deg) * b1, math.exp(-self.tr_ms / tissue.t1_ms)
        steady = (1 - e1) / (1 - e1 * np.cos(flip))
        return tissue.pd * np.sin(flip) * _with_inflow(steady, tissue) * math.exp(-self.te_ms / tissue.t2star_ms)


@dataclass(frozen=True)
class MPRAGE:
    """Magnetisation-prepared rapid gradient echo: inversion, delay, a train of low-angle excitations, recovery.

    `ti_ms` is the time from the inversion to the middle excitation, which fills the k-space centre (linear order);
    `n_echoes` excitations are `echo_spacing_ms` apart. Perfect spoiling.
    """

    tr_ms: float
    ti_ms: float
    te_ms: float
    flip_deg: float
    echo_spacing_ms: float
    n_echoes: int

    def __post_init__(self) -> None:
        _positive("MPRAGE", tr_ms=self.tr_ms, ti_ms=self.ti_ms, te_ms=self.te_ms, echo_spacing_ms=self.echo_spacing_ms)
        _angle("MPRAGE", "flip_deg", self.flip_deg, 90)
        if self._before_ms <= 0 or self._after_ms <= 0:
            raise UserError(f"MPRAGE: {self.n_echoes} echoes do not fit around ti_ms = {self.ti_ms} in {self.tr_ms} ms")

    @property
    def _before_ms(self) -> float:
        return self.ti_ms - (self.n_echoes // 2) * self.echo_spacing_ms

    @property
    def _after_ms(self) -> float:
        return self.tr_ms - self._before_ms - self.n_echoes * self.echo_spacing_ms

    def signal(self, tissue: Tissue, b1: Array = NOMINAL) -> Array:
        """The middle echo.

        Between excitations M -> 1 + (M cos a - 1) E, which contracts by c = E cos a towards m = (1 - E) / (1 - c).
        Before excitation k, M is therefore m + (M_0 - m) c^k.
        """
        flip, spacing = np.radians(self.flip_deg) * b1, math.exp(-self.echo_spacing_ms / tissue.t1_ms)
        rate = spacing * np.cos(flip)
        limit = (1 - spacing) / (1 - rate)

        def after_tr(start: Array) -> Array:
            first = _recovered(-start, self._before_ms, tissue.t1_ms)
            return _recovered(limit + (first - limit) * rate**self.n_echoes, self._after_ms, tissue.t1_ms)

        first = _recovered(-_steady(after_tr, b1), self._before_ms, tissue.t1_ms)
        middle = limit + (first - limit) * rate ** (self.n_echoes // 2)
        return tissue.pd * _with_inflow(middle, tissue) * np.sin(flip) * math.exp(-self.te_ms / tissue.t2star_ms)


def _with_inflow(magnetisation: Array, tissue: Tissue) -> Array:
    """Longitudinal magnetisation of a tissue of which part has just flowed in."""
    fresh = FRESH * tissue.flow
    return (1 - fresh) * magnetisation + fresh


def _steady(after_tr: Callable[[Array], Array], b1: Array) -> Array:
    """Fixed point of `after_tr`, which is affine in the magnetisation (n,) at the start of a repetition."""
    constant = after_tr(np.zeros_like(b1))
    return constant / (1 - (after_tr(np.ones_like(b1)) - constant))


Sequence = SpinEcho | FastSpinEcho | SpoiledGRE | MPRAGE
