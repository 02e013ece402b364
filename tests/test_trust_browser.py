"""The trust map in the results report, in a real browser: its picture, and the way through the least trusted slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report_browser import Opened, chromium, subject  # noqa: F401 (a fixture)

from evaluation.page.sprites import Placing, script_name, write_sprites
from evaluation.page.viewer import Listing
from evaluation.pictures import TRUST_RANGE, trust_colours, trust_levels, write_trust_pictures
from evaluation.record import Record
from evaluation.report import write_report
from evaluation.slice_scores import SliceScores, score_slices
from evaluation.trust.scores import SLICE_TRUST

KINDS = ["real_A", "fake_B", "truth", "error", "trust"]
RED = (
    "n => { const c = document.querySelectorAll('.viewer > .stage canvas')[n];"
    "return [...c.getContext('2d').getImageData(c.width * 5 >> 3, c.height >> 1, 1, 1).data].slice(0, 3); }"
)


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects with one expected error in all of the head; slice 4 of the second is least trusted."""
    folder = tmp_path_factory.mktemp("trust") / "results"
    (folder / "images").mkdir(parents=True)
    found: dict[str, SliceScores] = {}
    for number, name in enumerate(("one", "two"), start=1):
        volume, fake = subject(name, 6, 32, number)
        assert volume.truth is not None
        found[name] = score_slices(volume, fake)
        found[name].values[SLICE_TRUST] = [25.0 - number - 3 * (number == 2 and i == 4) + 0.1 * i for i in range(6)]
        error = np.where(volume.mask, np.float32(TRUST_RANGE / 3), np.float32(0))
        kinds = {"real_A": volume.visible, "fake_B": fake, "truth": volume.truth, "trust": trust_levels(error)}
        write_sprites(folder, number, volume, kinds, found[name], Placing())
        write_trust_pictures(folder / "images", volume.stems, error)
    record = Record()
    for section in ("paired", "unpaired", "sgp", "lsc"):
        record.null(section, why="not of this test")
    listing = Listing(found, {}, {name: script_name(n) for n, name in enumerate(found, start=1)}, KINDS)
    write_report(folder / "index.html", record, title="run", facts={}, definitions={}, listing=listing)
    return folder / "index.html"


def test_the_map_is_drawn_in_its_colours_and_the_least_trusted_slices_come_first(
    chromium: Any,  # noqa: F811
    page_path: Path,
) -> None:
    opened = Opened(chromium, page_path)
    assert opened.page.locator(".viewer > .stage figure").count() == len(KINDS)
    assert opened.page.evaluate(RED, 4) == trust_colours()[85].tolist()
    opened.page.click("button[data-trust=first]")
    opened.at("1/4")
    assert "1 of 12" in opened.page.inner_text(".trust-place") and "slice_trust" in opened.page.inner_text(".where")
    opened.page.click('button[data-trust="1"]')
    opened.at("1/0")
    opened.page.click('button[data-trust="-1"]')
    opened.at("1/4")
    last = opened.page.locator("section", has_text="Least trusted slices").last
    assert "two, slice 4" in last.locator("button.pick").first.inner_text()
    assert last.locator("button.pick").first.locator("img").nth(1).get_attribute("src") == "images/two_004_trust.png"
    assert opened.complaints == []
    opened.context.close()
