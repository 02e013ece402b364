"""Deep grey matter full of iron, and flowing blood: how they look in every kind of sequence."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.anatomy import FURTHER, TISSUES
from simulation.presets import HIGH_T1W, HIGH_T2W, LOW_T2W, M4RAW_T1W, M4RAW_T2W, ULTRA_T1W, Protocol
from simulation.sequences import FRESH, SpoiledGRE
from simulation.tissue import FIELDS_T, Tissue, draw_jitter, tissues_at

ALL = TISSUES + FURTHER


def signals(protocol: Protocol) -> dict[str, float]:
    return {name: float(protocol.sequence.signal(t)[0]) for name, t in tissues_at(protocol.b0_t, None, ALL).items()}


@pytest.mark.parametrize("b0", FIELDS_T)
def test_iron_shortens_t2_the_more_the_higher_the_field(b0: float) -> None:
    found = tissues_at(b0, None, ALL)
    assert found["dgm"].t2_ms < found["gm"].t2_ms and found["dgm"].t2star_ms < found["gm"].t2star_ms
    assert found["wm"].t1_ms < found["dgm"].t1_ms < found["gm"].t1_ms
    assert found["dgm"].t2star_ms < found["dgm"].t2_ms


def test_pallidum_is_dark_in_t2w_at_high_field_and_hardly_so_at_low_field() -> None:
    relative = {protocol.b0_t: signals(protocol)["dgm"] / signals(protocol)["gm"] for protocol in (LOW_T2W, HIGH_T2W)}
    assert relative[3.0] < 0.6 < 0.85 < relative[0.064]
    assert signals(HIGH_T2W)["dgm"] < signals(HIGH_T2W)["wm"]
    iron = [1 / tissues_at(b0, None, ALL)["dgm"].t2_ms - 1 / tissues_at(b0)["gm"].t2_ms for b0 in (1.5, 7.0)]
    assert iron[1] / iron[0] == pytest.approx(7 / 1.5, rel=0.1), "linear in B0"


@pytest.mark.parametrize("protocol", [LOW_T2W, M4RAW_T2W, HIGH_T2W, M4RAW_T1W], ids=lambda p: p.name)
def test_vessels_are_dark_in_spin_echoes(protocol: Protocol) -> None:
    found = signals(protocol)
    assert abs(found["blood"]) < 0.4 * min(found["wm"], found["gm"])


@pytest.mark.parametrize("protocol", [HIGH_T1W, ULTRA_T1W], ids=lambda p: p.name)
def test_vessels_are_bright_in_gradient_echoes(protocol: Protocol) -> None:
    found = signals(protocol)
    assert found["blood"] > found["wm"] > found["gm"] > abs(found["csf"])


def test_inflow_mixes_fresh_spins_with_those_in_steady_state() -> None:
    sequence, b1 = SpoiledGRE(20.0, 3.0, 25.0), np.array([0.8, 1.0])
    still = Tissue(1500, 150, 60, 0.85)
    steady = sequence.signal(still, b1)
    fresh = 0.85 * np.sin(np.radians(25) * b1) * np.exp(-3 / 60)
    flowing = sequence.signal(Tissue(1500, 150, 60, 0.85, flow=0.5), b1)
    assert flowing == pytest.approx((1 - FRESH * 0.5) * steady + FRESH * 0.5 * fresh)
    assert np.array_equal(HIGH_T2W.sequence.signal(Tissue(1500, 150, 60, 1, flow=1.0)), [0.0])


def test_subjects_differ_in_iron_more_than_in_the_rest() -> None:
    drawn = [draw_jitter(np.random.default_rng(seed)) for seed in range(60)]
    assert set(drawn[0]) == set(ALL)
    spread = {name: np.ptp([factors[name]["t2_ms"] for factors in drawn]) for name in ("dgm", "gm", "csf")}
    assert spread["dgm"] > 1.2 * spread["gm"] > 2 * spread["csf"]
