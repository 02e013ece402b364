"""docs/metrics.md's table: known damage to a truth, and what the measures say of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from scripts.metrics_by_example import DAMAGES, MEASURES, main, spot, table


def test_each_measure_sees_what_the_page_says(phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The phantom's own slices play the truth: smooth, so the order counts and not the numbers."""
    shutil.copytree(phantom / "testA", phantom / "testA_truth")
    found = table(phantom)
    assert list(found) == list(DAMAGES)
    window, *others = found.values()
    assert window["psnr_fit"] > 100 > window["psnr"]  # the fit undoes a window, and no other damage
    assert all(values["psnr_fit"] < 60 for values in others)
    lesion = found["an invented lesion in one slice"]
    assert lesion["ssim"] > max(values["ssim"] for name, values in found.items() if "noise" in name)
    main([str(phantom)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| the truth, but | " + " | ".join(f"`{name}`" for name in MEASURES) + " |"
    assert len(lines) == 2 + len(DAMAGES) and "over 100" in lines[2]


def test_the_page_has_the_tables_rows() -> None:
    page = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in DAMAGES)


def test_an_invented_lesion_is_small_and_in_one_slice() -> None:
    stack, mask = np.full((3, 64, 64), 0.25, np.float32), np.ones((3, 64, 64), bool)
    stack[0, 0, 0] = 1
    changed = spot(stack, mask) != stack
    assert not changed[[0, 2]].any() and 20 < changed[1].sum() < 80
