"""scripts/benchmark_speed.py: its figures belong together, and the counted FLOP are those of a known layer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_LSC, SMALL_NETWORKS, SMALL_SGP
from torch import nn

from benchmarks.speed.case import Case
from benchmarks.speed.compute import Bench, flop, flop_by_term, head_batch, infer_case, train_case
from benchmarks.speed.machine import conv_rate
from benchmarks.speed.operations import MOST, operations
from benchmarks.speed.start import make_data, measure, start_case
from data.cache.slice_cache import SliceCache
from data.folder.slice_folder import SliceFolder
from scripts import benchmark_speed
from scripts.benchmark_speed import CASES, key_of, parts
from util.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SMALL = (*SMALL_NETWORKS, *SMALL_SGP, *SMALL_LSC)
LITTLE = Case("pta_hybrid", 32, 2, "off", "-1", 0.1, SMALL)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/benchmark_speed.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_flop_of_a_convolution() -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    assert flop(lambda: layer(torch.zeros(2, 3, 8, 8))) == 2 * 2 * 64 * 3 * 5 * 9


def test_operations_of_a_small_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(320, 7))
    x = torch.randn(2, 3, 8, 8)
    found = operations(lambda: network(x).square().mean().backward(), torch.device("cpu"))
    convolution, linear = 2 * 2 * 64 * 3 * 5 * 9, 2 * 2 * 320 * 7
    assert found["operation_flop"] == {
        "aten::convolution": convolution,
        "aten::convolution_backward": convolution,  # no gradient of x is needed
        "aten::addmm": linear,
        "aten::mm": 2 * linear,
    }
    seconds, shares = found["operation_s"], found["operation_share"]
    assert list(seconds) == sorted(seconds, key=lambda name: -seconds[name]) == list(shares) and len(seconds) == MOST
    assert "aten::addmm" in seconds and 0.5 < sum(shares.values()) <= 1 and min(seconds.values()) >= 0


def test_the_cases_report_operations_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rates of the machine, which take seconds, are made up here."""
    for name in ("conv_rate", "copy_rate"):
        monkeypatch.setattr(f"benchmarks.speed.compute.{name}", lambda *what: 1e9)
    monkeypatch.setattr("benchmarks.speed.compute.flop_by_term", lambda bench: {})
    for case in (train_case, infer_case):
        assert "operation_s" not in case(LITTLE)
        found = case(replace(LITTLE, profile=True))
        assert sum(found["operation_flop"].values()) == found["flop_per_step"]
        assert 0 < sum(found["operation_s"].values()) < 20 * found["s_per_step"]


def test_terms_of_the_loss_share_the_step() -> None:
    bench = Bench(LITTLE)
    whole, shares = flop(bench.step), flop_by_term(bench)
    assert sum(shares.values()) == whole and min(shares[term] for term in ("cycle", "idt", "adv")) > 0
    assert shares["cycle"] > shares["idt"] > shares["syn"] == 0, "l1 to the partner is no matrix product"
    assert bench.stage.weights.cycle == 5, "the lambdas are as before"


def test_heads_cover_as_much_of_a_slice_as_heads_do() -> None:
    batch = head_batch(3, 64)
    assert 0.35 < float(batch.mask_A.mean()) < 0.6
    assert float(batch.A.max()) <= 1 and (batch.A[batch.mask_A == 0] == -1).all()


def test_conv_rate_is_that_of_a_machine() -> None:
    assert 1e8 < conv_rate(torch.device("cpu"), torch.float32, batch=1) < 1e14


@pytest.mark.slow
def test_every_case_reports_its_figures(tmp_path: Path) -> None:
    arguments = ["--size=32", "--batch=2", "--amp=off", "--gpu_ids=-1", "--seconds=0.1", "--slices=3000"]
    done = run(*arguments, "--json", "--", *SMALL)
    assert done.returncode == 0, done.stderr
    found = {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert found.keys() == {"train", "infer", "load", "preprocess", "simulate", "start"}
    for row in (found["train"], found["infer"]):
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["s_per_step"])
        assert row["fraction_of_conv_rate"] == pytest.approx(
            row["flop_per_step"] / row["s_per_step"] / row["conv_rate"]
        )
        assert row["parameters_G"] > 1000 and row["peak_mb"] > 100 and row["device"] == "cpu"
    assert found["train"]["s_per_step"] > found["infer"]["s_per_step"]
    assert found["load"]["slices_per_s_warm"] > found["load"]["slices_per_s_cold"] > 0
    assert found["simulate"]["slices"] > 200 and found["simulate"]["s_per_subject"] > 0
    assert found["start"]["slices"] == 3000 and 0 < found["start"]["sampling_s"] < found["start"]["start_s"]
    old = tmp_path / "old.jsonl"
    old.write_text(done.stdout, encoding="utf-8")
    again = run(*arguments, "--cases=infer", "--compare", str(old), "--", *SMALL)
    assert again.returncode == 0 and "now / before" in again.stdout


def test_growth_goes_from_a_thousand_slices_to_the_most_and_over_image_sizes() -> None:
    grown = parts("growth", replace(LITTLE, slices=123_456))
    assert [case.slices for measure, case in grown if measure == CASES["start"]] == [1000, 10_000, 100_000]
    assert [case.size for measure, case in grown if measure == CASES["train"]] == [128, 256, 384, 512]
    rows = [{"case": "growth", "slices": 1000}, {"case": "growth", "size": 128}, {"case": "growth", "size": 256}]
    assert len({key_of(row) for row in rows}) == 3


def test_a_start_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From any folder: the fresh process has to find the module."""
    monkeypatch.chdir(tmp_path)
    found = start_case(replace(LITTLE, slices=300))
    assert found["slices"] == 300 and found["start_s"] > found["open_s"] > 0


def test_a_start_with_made_up_data_reads_what_the_real_cache_would_hold(tmp_path: Path) -> None:
    """The folders, the manifest and the pack belong together: nothing is built anew, nothing decoded."""
    dataroot = make_data(tmp_path, 1000)
    packs = {path: path.stat().st_mtime_ns for path in (tmp_path / ".cache").glob("*/train*")}
    found = measure(str(dataroot), str(tmp_path))
    assert found["start_s"] > found["open_s"] > 0 and found["start_mb"] >= 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / ".cache").glob("*/train*")}
    assert after == packs and len([path for path in packs if path.is_dir()]) == 2
    folder = SliceFolder(dataroot, "train", "B")
    slices = SliceCache(dataroot, tmp_path / ".cache").open("train", "B")
    assert [slices.name(i) for i in range(len(slices))] == [path.name for path in folder.files]
    assert slices.p.tolist() == folder.p.tolist() and folder.level_mm is not None
    np.testing.assert_allclose(slices.pack.level_mm, folder.level_mm, rtol=1e-6)
    assert (tmp_path / ".cache").exists() and len(slices) == 500


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cases=train,cooking"], "--cases cooking: unknown, choose from train"),
        (["--compare=nowhere.jsonl"], "--compare nowhere.jsonl: not the --json output"),
        (["--batch=0"], "--batch 0"),
        (["--slices=10"], "--slices 10: need at least 1000"),
    ],
)
def test_mistakes_are_told_at_once(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        benchmark_speed.main(arguments)
