"""Every sequence's signal against a simulation that knows none of its formulas: isochromats that precess and relax."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from simulation.sequences import MPRAGE, FastSpinEcho, Sequence, SpinEcho, SpoiledGRE
from simulation.tissue import Tissue, tissues_at
from util.errors import UserError

ISOCHROMATS = 128  # more than four times the echoes of any train here: no dephased order comes back by chance
RELAXATIONS = 9  # a steady state is simulated for so many T1
WITHIN = 0.002  # of the full magnetisation; the project asks for 0.02

Array = NDArray[np.float64]


class Spins:
    """Magnetisation (3, n) of isochromats at equilibrium, in the rotating frame."""

    def __init__(self, tissue: Tissue, transverse_ms: float) -> None:
        self.m = np.zeros((3, ISOCHROMATS))
        self.m[2] = 1
        self.t1, self.t2 = tissue.t1_ms, transverse_ms
        self.phase = 2 * np.pi * (np.arange(ISOCHROMATS) + 0.5) / ISOCHROMATS

    def pulse(self, axis: int, degrees: float) -> None:
        """Turn about x (0) or y (1)."""
        i, j = [k for k in range(3) if k != axis]
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)) * (1 if axis == 0 else -1)
        self.m[[i, j]] = c * self.m[i] - s * self.m[j], s * self.m[i] + c * self.m[j]

    def wait(self, time_ms: float) -> None:
        self.m[:2] *= np.exp(-time_ms / self.t2)
        self.m[2] = 1 + (self.m[2] - 1) * np.exp(-time_ms / self.t1)

    def crush(self) -> None:
        """Dephase once around over the voxel."""
        c, s = np.cos(self.phase), np.sin(self.phase)
        self.m[:2] = c * self.m[0] - s * self.m[1], s * self.m[0] + c * self.m[1]

    def spoil(self) -> None:
        """Nothing transverse and no pattern along z lives on: spoilers differ from one repetition to the next."""
        self.m[:2] = 0
        self.m[2] = self.m[2].mean()

    def repetitions(self, tr_ms: float) -> int:
        return int(np.ceil(RELAXATIONS * self.t1 / tr_ms)) + 1


def spin_echoes(s: FastSpinEcho | SpinEcho, tissue: Tissue, b1: float) -> float:
    """The train pulse by pulse until it repeats itself: excitation about y leaves +x, refocusing about x keeps it."""
    spins = Spins(tissue, tissue.t2_ms)
    single = isinstance(s, SpinEcho)
    n_echoes, spacing, centre = (1, s.te_ms, 1) if single else (s.n_echoes, s.echo_spacing_ms, s.echo)
    ti = None if single else s.ti_ms
    for _ in range(spins.repetitions(s.tr_ms)):
        if ti is not None:
            spins.m[2] *= -1
            spins.wait(ti)
        spins.pulse(1, s.flip_deg * b1)
        for echo in range(1, n_echoes + 1):
            spins.wait(spacing / 2)
            spins.crush()
            spins.pulse(0, s.refocus_deg * b1)
            spins.crush()
            spins.wait(spacing / 2)
            if echo == centre:
                seen = spins.m[0].mean()
        spins.spoil()
        spins.wait(s.tr_ms - (ti or 0) - n_echoes * spacing)
    return tissue.pd * float(seen)


def gradient_echoes(s: SpoiledGRE | MPRAGE, tissue: Tissue, b1: float) -> float:
    """Every excitation in turn, spoiled perfectly; the echo in the middle of an MPRAGE train."""
    spins = Spins(tissue, tissue.t2star_ms)
    train = isinstance(s, MPRAGE)
    n, spacing = (s.n_echoes, s.echo_spacing_ms) if train else (1, s.tr_ms)
    for _ in range(spins.repetitions(s.tr_ms)):
        if train:
            spins.m[2] *= -1
            spins.wait(s.ti_ms - n // 2 * spacing)
        for k in range(n):
            spins.pulse(1, s.flip_deg * b1)
            if k == n // 2:
                seen = spins.m[0].mean() * np.exp(-s.te_ms / tissue.t2star_ms)
            spins.spoil()
            spins.wait(spacing)
        if train:
            spins.wait(s.tr_ms - (s.ti_ms - n // 2 * spacing) - n * spacing)
    return tissue.pd * float(seen)


CASES: list[tuple[float, Sequence]] = [
    (0.3, SpinEcho(500, 18.4)),
    (3.0, SpinEcho(600, 15, flip_deg=70, refocus_deg=150)),
    (0.064, FastSpinEcho(2000, 160, 25, 12.0, refocus_deg=60)),
    (0.3, FastSpinEcho(5500, 128, 15, 16.0, refocus_deg=160)),
    (3.0, FastSpinEcho(4000, 90, 15, 10.0, refocus_deg=150)),
    (0.064, FastSpinEcho(1500, 6, 16, 6.0, refocus_deg=120, ti_ms=300)),
    (0.3, FastSpinEcho(7500, 93.6, 15, 15.6, refocus_deg=160, ti_ms=2290)),
    (0.064, SpoiledGRE(40, 8, 40)),
    (1.5, SpoiledGRE(250, 4, 70)),
    (3.0, MPRAGE(2400, 1000, 2.14, 8.0, 7.6, 176)),
    (7.0, MPRAGE(2500, 1100, 3.0, 7.0, 7.0, 160)),
]


@pytest.mark.parametrize("b1", [1.0, 0.75, 1.2])
@pytest.mark.parametrize(("b0", "sequence"), CASES, ids=[f"{b0}T-{type(s).__name__}-{s.tr_ms:g}" for b0, s in CASES])
def test_signal_is_what_isochromats_give(b0: float, sequence: Sequence, b1: float) -> None:
    reference = spin_echoes if isinstance(sequence, SpinEcho | FastSpinEcho) else gradient_echoes
    for name, tissue in tissues_at(b0).items():
        expected = reference(sequence, tissue, b1)  # type: ignore[operator]
        found = sequence.signal(tissue, np.array([b1, 1.0]))
        assert found.shape == (2,)
        assert found[0] == pytest.approx(expected, abs=WITHIN), name


def test_perfect_trains_are_spin_echoes() -> None:
    tissue = Tissue(t1_ms=1000, t2_ms=100, t2star_ms=50, pd=0.8)
    long_tr = 20_000.0
    for echo in (1, 4, 9):
        found = FastSpinEcho(long_tr, 10.0 * echo, 9, 10.0).signal(tissue)
        assert found == pytest.approx(0.8 * np.exp(-0.1 * echo), abs=1e-6)
        assert SpinEcho(long_tr, 10.0 * echo).signal(tissue) == pytest.approx(found, abs=1e-6)


def test_a_train_takes_recovery_away() -> None:
    """Perfect refocusing leaves nothing along z after the train: recovery starts at its end, not at the excitation."""
    tissue = Tissue(t1_ms=2000, t2_ms=100, t2star_ms=50, pd=1.0)
    short, long = (FastSpinEcho(2000, 10, n, 10.0).signal(tissue)[0] for n in (2, 100))
    assert short / np.exp(-0.1) == pytest.approx(1 - np.exp(-1980 / 2000), abs=0.01)
    assert long / np.exp(-0.1) == pytest.approx(1 - np.exp(-1000 / 2000), abs=0.01)


def test_low_refocusing_angles_lengthen_the_effective_decay() -> None:
    tissue = Tissue(t1_ms=300, t2_ms=100, t2star_ms=50, pd=1.0)
    ratios = []
    for angle in (180, 120, 60):
        early, late = (FastSpinEcho(3000, te, 20, 10.0, angle).signal(tissue)[0] for te in (50, 200))
        ratios.append(late / early)
    assert ratios == sorted(ratios)


def test_bad_sequences_are_refused() -> None:
    for make in (
        lambda: SpinEcho(-500, 20),
        lambda: SpinEcho(500, 500),
        lambda: SpinEcho(500, 20, refocus_deg=200),
        lambda: FastSpinEcho(2000, 90, 8, 10.0),
        lambda: FastSpinEcho(100, 50, 12, 10.0),
        lambda: FastSpinEcho(1500, 10, 8, 10.0, ti_ms=1500),
        lambda: FastSpinEcho(1500, 10, 8, 10.0, ti_ms=-3),
        lambda: SpoiledGRE(10, 12, 20),
        lambda: SpoiledGRE(10, 4, 0),
        lambda: MPRAGE(2400, 500, 2.14, 8, 7.6, 176),
        lambda: MPRAGE(2400, 1000, float("nan"), 8, 7.6, 176),
    ):
        with pytest.raises(UserError):
            make()
