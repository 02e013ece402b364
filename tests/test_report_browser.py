"""The results report in a real browser, opened as a file, without a network: what a person does with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import running_chromium

from data.folder.slices import write_image
from evaluation.page.sprites import Placing, script_name, write_sprites
from evaluation.page.viewer import Listing
from evaluation.paired import MEASURES
from evaluation.people import PERSON_MEASURES, put_people
from evaluation.pictures import picture_name
from evaluation.record import Record, Scores
from evaluation.report import write_report
from evaluation.slice_scores import SliceScores, score_slices
from evaluation.subjects import SubjectSlices

NAMES = ["plain", "<img src=x onerror=document.title=1337>", "\"'&</script>", "caf\udce9"]
DRAWN = "section.viewer[data-drawn]"


def subject(name: str, n: int, side: int, seed: int) -> tuple[SubjectSlices, np.ndarray]:
    """A made-up volume whose slices differ, and its synthesis."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    mask = np.repeat((x**2 + y**2 < 0.16)[None], n, 0)
    truth = (mask * (0.3 + 0.5 * np.linspace(0, 1, n)[:, None, None] + 0.1 * np.sin(20 * x))).astype(np.float32)
    image = np.clip(truth * 0.7 + rng.normal(0, 0.03, truth.shape), 0, 1).astype(np.float32)
    fake = np.clip(truth + 0.1 * (x > 0) * mask, 0, 1).astype(np.float32)
    stems = [f"{name}_{i:03d}" for i in range(n)]
    place = np.arange(n)
    volume = SubjectSlices(name, stems, place, place.astype(np.float32), None, image, mask, truth, mask)
    return volume, fake


def report(folder: Path, names: list[str], n: int, side: int) -> Path:
    """A results folder with these subjects."""
    (folder / "images").mkdir(parents=True)
    found: dict[str, SliceScores] = {}
    for number, name in enumerate(names, start=1):
        volume, fake = subject(name, n, side, number)
        found[name] = score_slices(volume, fake)
        assert volume.truth is not None
        kinds = {"real_A": volume.visible, "fake_B": fake, "truth": volume.truth}
        place = Placing("axial", tuple("LRAPIS"), (1, 1, 5)) if number == 1 else Placing()
        write_sprites(folder, number, volume, kinds, found[name], place)
    for name in names[:2]:
        for stem in found[name].stems:
            for kind in ("fake_B", "error"):
                write_image(folder / "images" / picture_name(stem, kind), np.zeros((side, side), np.float32), 8)
    record = Record()
    record.put("verdict", value="fake_B beats every baseline.")
    for row in ("fake_B", "identity", "histogram", "classical"):
        for measure in MEASURES:
            record.put("paired", row, measure, "mean", value=21.66)
            record.put("paired", row, measure, "ci95", value=[20.72, 22.11])
    put_people(record, rows_of(names), dict.fromkeys(names, "someone with a rather long name"))
    for section in ("unpaired", "sgp", "lsc"):
        record.null(section, why="not of this test")
    files = {name: script_name(number) for number, name in enumerate(names, start=1)}
    listing = Listing(found, dict.fromkeys(names, "someone"), files, ["real_A", "fake_B", "truth", "error"])
    write_report(folder / "index.html", record, title="run", facts={"data": "x"}, definitions={}, listing=listing)
    return folder / "index.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    yield from running_chromium()


def rows_of(names: list[str]) -> dict[str, dict[str, Scores]]:
    """Scores as a test has them, of which every person's means are made."""
    return {row: {name: dict.fromkeys(PERSON_MEASURES, 21.66) for name in names} for row in ("fake_B", "classical")}


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(tmp_path_factory.mktemp("report") / "results", NAMES, 6, 32)


class Opened:
    """The page in a new window; `complaints` collects what a console would show, and requests that leave the disk."""

    def __init__(self, browser: Any, path: Path, width: int = 1200, height: int = 900, **more: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **more)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        missing = "ERR_FILE_NOT_FOUND"  # pictures of the subjects that the test did not write
        self.page.on(
            "console", lambda m: m.type == "error" and missing not in m.text and self.complaints.append(m.text)
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        local = ("file:", "data:")
        self.page.on("request", lambda asked: asked.url.startswith(local) or self.complaints.append(asked.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(DRAWN, timeout=60_000)

    def at(self, place: str) -> None:
        """Wait until subject/slice `place` is drawn."""
        self.page.wait_for_selector(f'section.viewer[data-drawn="{place}"]', timeout=20_000)

    def grey(self, number: int = 0) -> int:
        """The red value in the middle of a picture, a little to the right."""
        script = (
            "n => { const c = document.querySelectorAll('.viewer > .stage canvas')[n];"
            "return c.getContext('2d').getImageData(c.width * 5 >> 3, c.height >> 1, 1, 1).data[0]; }"
        )
        return int(self.page.evaluate(script, number))


@pytest.fixture
def opened(chromium: Any, page_path: Path) -> Iterator[Opened]:
    window = Opened(chromium, page_path)
    yield window
    assert window.complaints == []
    window.context.close()


def test_slider_and_keys_move_the_pictures(opened: Opened) -> None:
    opened.at("0/3")
    seen = [opened.grey(1)]
    opened.page.fill("input.slice", "5")
    opened.at("0/5")
    seen.append(opened.grey(1))
    for key, place in (("Home", "0/0"), ("ArrowRight", "0/1"), ("PageDown", "0/0"), ("End", "0/5"), ("n", "1/3")):
        opened.page.keyboard.press(key)
        opened.at(place)
    opened.page.keyboard.press("p")
    opened.at("0/3")
    assert seen[1] > seen[0] + 20
    assert "slice 4 of 6" in opened.page.inner_text(".where") and "left is L" in opened.page.inner_text(".where")
    assert opened.page.inner_text(".viewer > .stage figure:first-child .left") == "L"


def test_swipe_shows_one_picture_left_and_the_other_right(opened: Opened) -> None:
    opened.page.click("button[data-mode=swipe]")
    style = "() => document.querySelectorAll('.viewer > .stage canvas')[1].style.clipPath"
    assert "50%" in opened.page.evaluate(style)
    box = opened.page.locator(".viewer > .stage .picture").bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 20)
    opened.page.mouse.up()
    assert 78 <= float(opened.page.input_value("input.divider")) <= 82
    assert "80%" in opened.page.evaluate(style) or "79" in opened.page.evaluate(style)


def test_flicker_changes_the_picture_in_its_place(opened: Opened) -> None:
    shown = []
    for _ in range(3):
        opened.page.keyboard.press("f")
        opened.page.wait_for_timeout(150)
        shown.append(opened.page.inner_text(".viewer > .stage figcaption"))
    assert shown == ["input: low field", "synthesis", "input: low field"]
    opened.page.keyboard.press("Escape")
    assert opened.page.locator(".viewer > .stage figure").count() == 4


def test_window_error_and_planes(opened: Opened) -> None:
    before = opened.grey(1)
    opened.page.fill("input.level", "80")
    opened.page.wait_for_timeout(150)
    assert opened.grey(1) < before  # a higher level is darker
    assert opened.grey(3) > 60  # too bright: red, whatever the window
    opened.page.click("details.three summary")
    opened.page.wait_for_function("() => document.querySelectorAll('.planes figcaption')[2]?.textContent")
    captions = opened.page.locator(".planes figcaption").all_inner_texts()
    assert [caption.split(",")[0] for caption in captions] == ["axial", "coronal", "sagittal"]
    marks = opened.page.locator(".planes figure").nth(1).locator("i").all_inner_texts()
    assert marks == ["L", "R", "S", "I"]


def test_names_are_text_and_an_unknown_side_is_said(opened: Opened) -> None:
    for number, name in enumerate(["plain", NAMES[1], NAMES[2], "caf\\udce9"]):
        opened.page.select_option("select.subject", str(number))
        opened.at(f"{number}/3")
        assert f"subject {name}, person someone" in opened.page.inner_text(".where")
    assert "left and right unknown" in opened.page.inner_text(".where")
    assert opened.page.title() == "run" and opened.page.locator(".viewer img").count() == 0


def test_a_worst_slice_opens_in_the_browser(opened: Opened) -> None:
    pick = opened.page.locator("button.pick").first
    place = f"{pick.get_attribute('data-subject')}/{pick.get_attribute('data-slice')}"
    pick.click()
    opened.at(place)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(chromium: Any, page_path: Path, scheme: str) -> None:
    window = Opened(chromium, page_path, 390, 844, color_scheme=scheme)
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 390
    colour = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, colour[4:-1].split(",")[:3])) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60
    window.context.close()


@pytest.mark.parametrize("width", [1100, 745, 390])
def test_no_column_of_a_table_is_out_of_sight(chromium: Any, page_path: Path, width: int) -> None:
    window = Opened(chromium, page_path, width)
    boxes = "() => [...document.querySelectorAll('.wide')].map(box => box.scrollWidth - box.clientWidth)"
    assert window.page.evaluate(boxes) == [0, 0, 0]
    cells = window.page.locator("table.numbers tr.ours").first.locator("td")
    assert cells.count() == 6 and "psnr_fit" in cells.first.evaluate("cell => cell.dataset.column")
    label = cells.first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert label == ('"psnr_fit"' if width == 390 else "none")
    window.context.close()


def test_paper_holds_the_whole_table_and_no_number_is_broken(chromium: Any, page_path: Path) -> None:
    window = Opened(chromium, page_path, 718, 1000)  # A4 without its margins
    window.page.emulate_media(media="print")
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 718
    lines = (
        "() => [...document.querySelectorAll('table.numbers td')].map(cell => { const r = document.createRange();"
        "r.selectNodeContents(cell.firstChild); return r.getClientRects().length; })"
    )
    assert set(window.page.evaluate(lines)) == {1}
    window.context.close()


def test_a_missing_file_is_named(chromium: Any, tmp_path: Path) -> None:
    path = report(tmp_path / "results", ["a"], 3, 24)
    (path.parent / script_name(1)).unlink()
    page = chromium.new_page()
    page.goto(path.as_uri())
    page.wait_for_function("() => document.querySelector('.where').textContent.startsWith('cannot read')")
    assert "browser/0001.js" in page.inner_text(".where")
    page.close()


@pytest.mark.slow
def test_two_thousand_slices_open_in_less_than_three_seconds(chromium: Any, tmp_path: Path) -> None:
    """Measured by the browser's own clock, from the request of the page to the first drawn slice."""
    path = report(tmp_path / "results", [f"sub-{i:02d}" for i in range(40)], 50, 128)
    assert path.stat().st_size < 1_000_000
    page = chromium.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector(DRAWN, timeout=60_000)
    assert page.evaluate("performance.now()") < 3000
    page.close()
