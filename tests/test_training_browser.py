"""The training report in a real browser, opened as a file, without a network, while a run goes on and after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import running_chromium

from options.display_options import DisplayOptions
from training.log import training_report
from training.log.run_log import RunLog

RUN = "<img src=x onerror=document.title=1337>\"'&"
REFRESH_S = 0.2
CONTRAST = """selector => {
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll(selector)].map((e) => {
    const style = getComputedStyle(e), drawn = e.closest("svg");
    const fore = light(e.tagName === "path" ? style.stroke : drawn ? style.fill : style.color);
    const back = light(getComputedStyle(e.closest("section, .verdict, .tile")).backgroundColor);
    return (Math.max(fore, back) + 0.05) / (Math.min(fore, back) + 0.05);
  });
}"""  # as WCAG 2 defines it


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    yield from running_chromium()


class Run:
    """A run whose report is watched."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.page = folder / "web" / "index.html"
        self.log = RunLog(folder, DisplayOptions(update_html_freq=1), console=False)
        self.step = 0

    def stage(self, name: str) -> None:
        self.log.stage(name, 100, later=["refine"] if name == "gan" else [])
        self.step = 0

    def go_on(self, steps: int) -> None:
        """So many steps, each with a row and pictures, which become brighter."""
        for _ in range(steps):
            self.step += 1
            self.log.advance(1)
            self.log.losses(1, self.step, {"D_A": 0.5, "<b>D_B": 1 / self.step}, lr=1e-4)
            level = torch.full((2, 1, 24, 20), self.step / 50 - 1)
            self.log.images(1, self.step, {"real_A": level, "fake_B & <co>": level})
        self.log.validation(1, self.step, {"psnr": 20.0 + self.step})
        self.log.report()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(training_report, "REFRESH_S", REFRESH_S)
    found = Run(tmp_path / RUN)
    found.stage("lsc")
    found.go_on(2)
    found.stage("gan")
    found.go_on(5)
    return found


class Watched:
    """The page in a window; `complaints` collects what a console would show, `asked` how often it looked for news."""

    def __init__(self, browser: Any, path: Path, width: int = 1100, later_s: float = 0, **more: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 700}, **more)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked = 0
        self.page.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._note)
        if later_s:
            self.page.clock.set_fixed_time(time.time() + later_s)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)

    def _note(self, request: Any) -> None:
        self.asked += "live.js" in request.url
        if not request.url.startswith("file:"):
            self.complaints.append(request.url)

    def at(self, place: str) -> None:
        """Wait until the samples of stage/step `place` are shown, all of them loaded."""
        self.page.wait_for_selector(f'#samples[data-shown="{place}"]', timeout=20_000)
        self.page.locator("#samples").scroll_into_view_if_needed()
        step = place.split("/")[1]
        self.page.wait_for_function(
            "step => [...document.querySelectorAll('#samples img')].every(i => i.complete && i.naturalWidth === 24"
            " && i.src.includes(`step${step.padStart(7, '0')}_`) && i.alt.endsWith(`step ${step}`))",
            arg=step,
            timeout=20_000,
        )

    def says(self, text: str) -> None:
        """Wait until the verdict has this text."""
        self.page.wait_for_function(
            "text => document.querySelector('.verdict').textContent.includes(text)", arg=text, timeout=20_000
        )


@pytest.fixture
def watched(chromium: Any, run: Run) -> Iterator[Watched]:
    window = Watched(chromium, run.page)
    yield window
    assert window.complaints == []
    window.context.close()


def test_slider_buttons_and_keys_move_through_time(watched: Watched) -> None:
    watched.at("gan/5")
    assert "the newest of this stage" in watched.page.inner_text("#samples .where")
    watched.page.fill("#samples input.time", "1")
    watched.at("gan/2")
    watched.page.locator("#samples input.time").blur()
    for key, place in (("ArrowLeft", "gan/1"), ("ArrowRight", "gan/2"), ("Home", "gan/1"), ("End", "gan/5")):
        watched.page.keyboard.press(key)
        watched.at(place)
    watched.page.click("#samples .earlier")
    watched.at("gan/4")
    watched.page.select_option("#samples select", "lsc")
    watched.at("lsc/2")
    watched.page.click("#samples .newest")
    watched.at("gan/5")
    assert watched.page.locator("#samples figcaption").all_inner_texts() == ["real_A", "fake_B & <co>"]


def test_news_come_without_a_jump_and_leave_what_the_reader_chose(watched: Watched, run: Run) -> None:
    page = watched.page
    page.evaluate("window.sameWindow = true")
    page.click("#stage-lsc summary")
    page.fill("#samples input.time", "0")
    watched.at("gan/1")
    page.evaluate("window.scrollTo(0, 333)")
    run.go_on(3)
    watched.says("step 8 of 100")
    watched.at("gan/1")
    page.evaluate("window.scrollTo(0, 333)")
    run.go_on(1)
    watched.says("step 9 of 100")
    assert page.evaluate("[window.scrollY, window.sameWindow]") == [333, True]
    assert page.locator("#stage-lsc").get_attribute("open") is not None
    assert page.get_attribute("#samples input.time", "max") == "8"
    page.reload()  # as the reader does it
    watched.at("gan/1")
    page.click("#samples .newest")
    watched.at("gan/9")
    run.go_on(1)
    watched.at("gan/10")  # follows again
    run.stage("refine")
    run.go_on(1)
    watched.at("refine/1")
    assert page.locator("#samples option").all_inner_texts() == ["lsc", "gan", "refine"]


def test_the_end_is_told_and_no_more_news_are_asked_for(watched: Watched, run: Run, chromium: Any) -> None:
    watched.says("Training: stage gan")
    assert "psnr 25 after epoch 1, its best so far" in watched.page.inner_text(".verdict")
    run.log.stop("stopped by SIGTERM")
    run.log.close()
    watched.says("stopped by SIGTERM")
    asked = watched.asked
    watched.page.wait_for_timeout(5000 * REFRESH_S)
    assert watched.asked == asked > 0
    again = Watched(chromium, run.page)
    again.page.wait_for_timeout(5000 * REFRESH_S)
    assert again.asked == 0 and again.complaints == [] and again.page.locator(".alert:visible").count() == 0
    again.context.close()


def test_a_killed_training_is_suspected(chromium: Any, run: Run) -> None:
    late = Watched(chromium, run.page, later_s=3 * 3600)
    assert "No news for 3 h" in late.page.inner_text(".alert") and "3 h ago" in late.page.inner_text(".age")
    late.context.close()
    run.log.close()
    ended = Watched(chromium, run.page, later_s=3 * 3600)
    assert ended.page.locator(".alert:visible").count() == 0
    ended.context.close()


def test_names_are_text(watched: Watched) -> None:
    watched.at("gan/5")
    assert watched.page.title() == f"{RUN}: training report" and watched.page.inner_text("h1") == RUN
    assert "<b>D_B" in watched.page.locator("#stage-gan svg").nth(2).inner_html().replace("&lt;", "<").replace(
        "&gt;", ">"
    )
    assert watched.page.locator("img[src=x], b b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_on_a_phone_in_light_and_dark(chromium: Any, run: Run, scheme: str) -> None:
    window = Watched(chromium, run.page, 390, color_scheme=scheme)
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector, least in (("svg.lines path.thick", 3), ("svg.lines text, svg.lines tspan", 4), (".verdict b", 7)):
        found = window.page.evaluate(CONTRAST, selector)
        assert found and min(found) >= least, (selector, found)
    assert window.page.evaluate("document.querySelector('#samples img').getBoundingClientRect().height") > 50
    window.context.close()


def test_it_can_be_printed_and_read_without_scripts(chromium: Any, run: Run) -> None:
    run.log.close()
    plain = chromium.new_context(java_script_enabled=False, viewport={"width": 718, "height": 1000})
    page = plain.new_page()
    page.goto(run.page.as_uri())
    assert "Ended" in page.inner_text(".verdict") and page.locator("#samples img").count() == 2
    plain.close()
    window = Watched(chromium, run.page, 718, color_scheme="dark")
    window.page.emulate_media(media="print", color_scheme="dark")
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 718
    assert min(window.page.evaluate(CONTRAST, "svg.lines tspan")) > 4
    window.context.close()
