"""The fidelity benchmark's numbers: means, differences and pages from units that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.fidelity import store, work
from benchmarks.fidelity.assemble import Assembly
from benchmarks.fidelity.budgets import BUDGETS
from benchmarks.fidelity.measure import kept
from benchmarks.fidelity.tables import markdown


def made_up(row: str, seed: int, values: np.ndarray, images: int = 100) -> dict[str, Any]:
    """A unit of twelve subjects of four people with these values of every measure."""
    subjects = {
        f"s{i}": {"person": f"p{i % 4}", **dict.fromkeys(("psnr_fit", "psnr", "ssim", "nrmse", "mae"), float(value)),
                  "ms_ssim": None}
        for i, value in enumerate(values)
    }  # fmt: skip
    training = {"images": {"gan": images}, "wall_s": 10.0}
    test = {"subjects": subjects, "sets": {"kd_slice": 0.1}, "training": training, "machine": "m", "date": "d"}
    unit = {"task": "same_contrast", "row": row, "seed": seed, "options": [], "code": "c", "test": test}
    return unit | {"val": {"flat": True}}


def test_means_differences_and_gap_closed_are_those_of_the_units() -> None:
    budget = replace(BUDGETS["small"], rows={"same_contrast": BUDGETS["small"].rows["same_contrast"]})
    rng = np.random.default_rng(3)
    person = np.arange(12) % 4
    base = 20 + person + rng.normal(0, 0.1, 12)
    gains = {"pta_hybrid": 1.0, "cycle_gan/hybrid": 0.5, "supervised/hybrid": 2.0}
    units = [made_up("classical", 0, base)]
    values = {
        (row, seed): base + gain + rng.normal(0, 0.05, 12) for row, gain in gains.items() for seed in budget.seeds
    }
    units += [made_up(row, seed, found) for (row, seed), found in values.items()]
    content = Assembly("small", budget, units).content(machine="m", date="d", command="c")
    found = content["tasks"]["same_contrast"]
    mean = {row: np.mean([values[row, seed] for seed in budget.seeds]) for row in gains}
    assert found["rows"]["pta_hybrid"]["psnr"]["mean"] == pytest.approx(mean["pta_hybrid"])
    difference = found["differences"]["pta_hybrid - cycle_gan/hybrid"]["psnr_fit"]
    assert difference["mean"] == pytest.approx(mean["pta_hybrid"] - mean["cycle_gan/hybrid"])
    assert difference["ci95"][0] < difference["mean"] < difference["ci95"][1] and difference["ci95"][0] > 0.3
    closed = found["rows"]["pta_hybrid"]["gap_closed"]
    expected = (mean["pta_hybrid"] - base.mean()) / (mean["supervised/hybrid"] - base.mean())
    assert closed["mean"] == pytest.approx(expected) and closed["ci95"][0] < expected < closed["ci95"][1]
    assert found["rows"]["supervised/hybrid"]["gap_closed"]["mean"] == pytest.approx(1)
    assert found["rows"]["pta_hybrid"]["psnr"]["ci95"] is not None
    assert found["differences"]["pta_hybrid - cut/hybrid"]["psnr"] == {"mean": None, "ci95": None}
    # two seeds: means, no intervals
    fewer = [unit for unit in units if unit["seed"] < 2]
    rows = Assembly("small", budget, fewer).content(machine="", date="", command="")["tasks"]["same_contrast"]["rows"]
    assert rows["pta_hybrid"]["psnr"]["ci95"] is None and rows["classical"]["psnr"]["ci95"] is not None
    # a bound that is hardly better than classical measures no gap
    low = [unit for unit in units if unit["row"] != "supervised/hybrid"]
    low += [made_up("supervised/hybrid", seed, base + 0.5) for seed in budget.seeds]
    content = Assembly("small", budget, low).content(machine="", date="", command="")
    assert content["tasks"]["same_contrast"]["rows"]["pta_hybrid"]["gap_closed"]["mean"] is None
    why = {why for name, why in content["why_null"].items() if "gap_closed" in name}
    assert why == {"supervised/hybrid is 0.50 dB above classical, under 1 dB"}


def test_seeds_that_were_trained_otherwise_are_told() -> None:
    budget = replace(BUDGETS["small"], rows={"same_contrast": ("pta_hybrid",)})
    units = [made_up("pta_hybrid", seed, np.arange(12.0)) | {"resolved": {"seed": seed, "lr": 0.1}} for seed in (0, 1)]
    alike = Assembly("small", budget, units).content(machine="", date="", command="")
    assert "mixed" not in alike["tasks"]["same_contrast"]["rows"]["pta_hybrid"]
    units[1]["resolved"]["lr"] = 0.2
    content = Assembly("small", budget, units).content(machine="", date="", command="")
    told = content["tasks"]["same_contrast"]["rows"]["pta_hybrid"]["mixed"]
    assert told == "its seeds were not trained alike: --lr 0.1, now 0.2"
    assert f"**`pta_hybrid`: {told}.**" in markdown(content)


@pytest.mark.parametrize(
    ("scores", "flat"),
    [
        ([18, 20, 21, 21.5, 21.5], False),
        ([20, 21, 21.45, 21.5, 21.5], True),
        ([20, 21, 21.5, 21.4, 20], True),
        ([21], False),
    ],
)
def test_a_curve_is_flat_if_more_training_would_hardly_help(scores: list[float], flat: bool) -> None:
    curve = {str(epoch): score for epoch, score in enumerate(scores)}
    assert work.is_flat(curve) == flat


def test_predictions_are_kept_to_sixteen_bits(tmp_path: Path) -> None:
    from benchmarks.fidelity.measure import keep

    slices = np.random.default_rng(0).random((2, 8, 8), dtype=np.float32)
    keep(tmp_path / "a" / "x.npz", slices)
    assert np.abs(kept(tmp_path / "a" / "x.npz") - slices).max() <= 0.5 / 65535 + 1e-7


@pytest.mark.parametrize(("has_bf16", "words"), [(False, "float32"), (True, "bfloat16 mixed precision")])
def test_a_machine_is_told_by_its_number_format_too(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, words: str
) -> None:
    monkeypatch.setattr("util.device._has_bf16", lambda device: has_bf16)
    assert store.machine().endswith(f", {words}")
    assert store.machine(amp="off").endswith(", float32")


def test_a_page_names_the_machines_of_each_task() -> None:
    budget = replace(BUDGETS["small"], rows={"same_contrast": ("classical", "pta_hybrid")})
    units = [made_up("classical", 0, np.full(12, 20.0)), made_up("pta_hybrid", 0, np.full(12, 21.0))]
    units[1]["test"] |= {"machine": "another"}
    content = Assembly("small", budget, units).content(machine="", date="d", command="c")
    assert content["tasks"]["same_contrast"]["machines"] == ["another", "m"]
    assert "Machine: another; m." in markdown(content)
