"""Several results beside each other: what may be compared, paired differences, and the page in a real browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import running_chromium
from made_up_results import write_results

from evaluation.comparison import compare, far_apart, mean_of, read_result, results_folder, verdict
from evaluation.metrics.intervals import mean_interval95
from scripts import compare_runs
from training.log.loss_log import LossLog
from util.errors import UserError

PEOPLE = {f"sub-{i}": f"person {i % 4}" for i in range(12)}
FEW = {"<img src=x onerror=document.title=1337>": "ann", "b": "bob"}
EVIL = "<b onclick=document.title=1337>good</b>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two runs, one better than the other, whose training logs are where they say."""
    place = tmp_path_factory.mktemp("made")
    for name, error in (("good", 0.05), ("bad", 0.1)):
        run = place / "runs" / name
        run.mkdir(parents=True)
        (run / "options.json").write_text("{}", encoding="utf-8")
        log = LossLog(run / "loss_log.csv")
        for step in range(1, 40):
            log.add("gan", 1, step, images_per_s=1.0, seconds=step, lr=1e-4, values={"cycle": error / step, "idt": 0.1})
        write_results(place / "results" / name / "test_latest", PEOPLE, error=error, run=str(run))
    return place


def results_of(made: Path, name: str) -> Path:
    return made / "results" / name / "test_latest"


def test_differences_are_paired_with_intervals_between_people(made: Path) -> None:
    good, bad = (read_result(results_of(made, name), name) for name in ("good", "bad"))
    found = compare([bad, good])
    assert found.same_tests and not found.left_out and found.people == PEOPLE
    for measure in ("psnr_fit", "nrmse"):
        values = [float(good.rows["fake_B"][s][measure]) - float(bad.rows["fake_B"][s][measure]) for s in PEOPLE]  # type: ignore[arg-type]
        difference = found.differences["good"][measure]
        assert difference.mean == pytest.approx(np.mean(values))
        assert difference.ci95 == pytest.approx(mean_interval95(values, list(PEOPLE.values())))
        assert difference.clear and (difference.n_better, difference.n_people) == (4, 4)
        stored = good.metrics["paired"]["fake_B"][measure]
        assert found.means["good"][measure].mean == pytest.approx(stored["mean"], rel=1e-4)
        assert found.means["good"][measure].ci95 == pytest.approx(stored["ci95"], rel=1e-4)
    sentence = verdict(found)
    assert sentence.startswith("On 12 shared subjects of 4 people good has the best psnr_fit, ")
    assert " dB more than bad (95 % interval " in sentence
    assert sentence.endswith("), better for 4 of 4 people. It is best in psnr and ssim too.")


def test_a_difference_without_an_interval_or_with_0_in_it_is_no_finding(made: Path) -> None:
    values = dict(zip(PEOPLE, [1.0, -1.0] * 6, strict=True))
    unclear = mean_of(values, PEOPLE)
    assert unclear.ci95 is not None and not unclear.clear
    few = mean_of({"sub-0": 1.0, "sub-1": 2.0}, PEOPLE)
    assert few.ci95 is None and few.why_none == "fewer than 12 test subjects" and not few.clear


def test_the_slices_that_differ_most_come_first(made: Path) -> None:
    results = [read_result(results_of(made, name), name) for name in ("good", "bad")]
    found = far_apart(compare(results), 5)
    gaps = [abs(scores["good"] - scores["bad"]) for _, _, scores in found]
    everything = [
        abs(a - b)
        for s in PEOPLE
        for a, b in zip(*(r.slices[s]["slice_psnr"] for r in results), strict=True)
        if a is not None and b is not None
    ]
    assert gaps == sorted(everything, reverse=True)[:5]


def test_of_other_data_only_the_same_slices_are_compared(tmp_path: Path) -> None:
    """Subject `a` has the same slices in both tests, `b` others, `c` and `d` were tested once."""
    first = write_results(tmp_path / "1", {"a": "x", "b": "x", "c": "y"}, error=0.1, seeds=[1, 2, 3])
    second = write_results(
        tmp_path / "2", {"d": "z", "a": "x", "b": "x"}, error=0.1, seeds=[9, 1, 7], fingerprint="cafe" * 16
    )
    found = compare([read_result(first, "one"), read_result(second, "two")])
    assert found.subjects == ["a"] and not found.same_tests
    assert found.left_out == {
        "b": "other slices in two than in one",
        "c": "not tested by two",
        "d": "not tested by one",
    }
    shutil.rmtree(second / "browser")
    with pytest.raises(UserError, match=r"cannot be compared.*two has no pictures to tell.*content f00df00df00d.*cafe"):
        compare([read_result(first, "one"), read_result(second, "two")])


def test_without_a_truth_nothing_says_which_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_results(tmp_path / name, FEW, error=0.1, with_truth=False)
    compare_runs.main([str(tmp_path / "a"), str(tmp_path / "b"), "--names", "a", "b", "--out", str(tmp_path / "out")])
    assert "nothing says which run is better, because there is no truth" in capsys.readouterr().out
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Not measured: these tests have no truth." in page and "error: a" not in page


def broken(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: folder / "nowhere", r"nowhere: no results of test.py, there is no metrics.json"),
        (lambda folder: broken(folder, "metrics.json", "{"), r"metrics.json: not JSON"),
        (lambda folder: broken(folder, "metrics.json", "[]"), r"not the results of a test"),
        (lambda folder: broken(folder, "metrics.csv", "subject,row,psnr\na,fake_B,x\n"), r"is not a table of test.py"),
        (lambda folder: broken(folder, "metrics.csv", "subject,row\na\n"), r"is not a table of test.py"),
        (lambda folder: broken(folder, "slices.csv", "subject\na\n"), r"is not a table of test.py"),
        (
            lambda folder: broken(folder, "browser/0001.js", "alert(1)"),
            r"0001.js: not the pictures of a subject",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, damage: Any, message: str) -> None:
    good = write_results(tmp_path / "good" / "t", FEW, error=0.1)
    bad = damage(write_results(tmp_path / "bad" / "t", FEW, error=0.1))
    with pytest.raises(UserError, match=message):
        compare_runs.main([str(good), str(bad), "--out", str(tmp_path / "out")])


def test_arguments_that_do_not_fit(made: Path, tmp_path: Path) -> None:
    good, bad, out = str(results_of(made, "good")), str(results_of(made, "bad")), ["--out", str(tmp_path / "out")]
    for argv, message in (
        ([good, *out], "at least two tests, 1 given"),
        ([good, good, *out], "given twice"),
        ([good, bad, "--names", "x", *out], "--names: needs 2 different names"),
        ([good, bad, "--names", "x", "x", *out], "--names: needs 2 different names"),
        ([good, bad, "--out", bad], "contains other files"),
        ([good, bad, "--out", str(made / "runs" / "good" / "loss_log.csv")], "cannot be written"),
    ):
        with pytest.raises(UserError, match=message):
            compare_runs.main(argv)
    assert (results_of(made, "bad") / "metrics.json").is_file()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="contains other files"):
        compare_runs.main([good, bad, "--out", str(tmp_path / "site")])


def test_the_folder_of_a_run_and_of_its_results_are_found(made: Path, tmp_path: Path) -> None:
    assert results_folder(made / "results" / "good") == results_of(made, "good")
    shutil.copytree(made / "results" / "good", tmp_path / "two")
    shutil.copytree(tmp_path / "two" / "test_latest", tmp_path / "two" / "test_5")
    with pytest.raises(UserError, match=r"results of 2 tests \(test_5, test_latest\); name one"):
        results_folder(tmp_path / "two")
    out = tmp_path / "out"
    for _ in range(2):  # the second comparison takes the first one's place
        places = [made / "results" / "bad", made / "results" / "good", made / "runs" / "good"]
        names = ["worse", "better", "curves alone"]
        compare_runs.main([*map(str, places), "--names", *names, "--out", str(out)])
    content = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert content["differences"]["better"]["psnr_fit"]["n_better"] == 4 and list(content["means"]) == names[:2]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert '<tspan>cycle  </tspan><tspan class="c0">0.002564   </tspan>' in page.replace("\n", "")
    assert page.count("curves alone: from") == 4  # cycle, idt, learning rate and images per second


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    yield from running_chromium()


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two runs on two subjects, whose names are HTML."""
    place = tmp_path_factory.mktemp("compared")
    for name, error in (("1", 0.05), ("2", 0.2)):
        write_results(place / name, FEW, error=error)
    argv = [str(place / "1"), str(place / "2"), "--names", EVIL, "bad", "--out", str(place / "out")]
    compare_runs.main(argv)
    for name in ("1", "2"):  # the page needs them no more
        shutil.rmtree(place / name)
    return place / "out" / "index.html"


class Opened:
    """The page in a window; `complaints` collects what a console would show, and requests that leave the disk."""

    def __init__(self, browser: Any, path: Path, width: int = 1100, **more: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        local = ("file:", "data:")
        self.page.on("request", lambda asked: asked.url.startswith(local) or self.complaints.append(asked.url))
        self.page.goto(path.as_uri())
        self.at("0/2")

    def at(self, place: str) -> None:
        self.page.wait_for_selector(f'section.viewer[data-drawn="{place}"]', timeout=20_000)

    def pixels(self, number: int) -> list[int]:
        """The middle row of a picture."""
        script = (
            "n => { const c = document.querySelectorAll('.viewer > .stage canvas')[n];"
            "return [...c.getContext('2d').getImageData(0, c.height >> 1, c.width, 1).data]; }"
        )
        return list(self.page.evaluate(script, number))


@pytest.fixture
def opened(chromium: Any, page_path: Path) -> Iterator[Opened]:
    window = Opened(chromium, page_path)
    yield window
    assert window.complaints == []
    window.context.close()


def test_the_same_slice_is_shown_through_each_run(opened: Opened) -> None:
    captions = opened.page.locator(".viewer > .stage figcaption").all_inner_texts()
    kinds = ["input: low field", EVIL, "bad", "truth: high field", f"error: {EVIL} - truth", "error: bad - truth"]
    assert captions == kinds
    before = [opened.pixels(i) for i in range(6)]
    assert len({tuple(row) for row in before}) == 6
    opened.page.fill("input.slice", "0")
    opened.at("0/0")
    assert all(opened.pixels(i) != before[i] for i in range(6))
    where = opened.page.inner_text(".where")
    assert f"{EVIL}: slice_psnr" in where and "; bad: slice_psnr" in where
    assert opened.page.locator(".chart svg").first.locator("path").count() == 2
    opened.page.keyboard.press("s")
    assert opened.page.inner_text(".viewer > .stage figcaption") == f"{EVIL} | bad"


def test_verdict_table_and_buttons(opened: Opened) -> None:
    verdict_text = opened.page.inner_text(".verdict")
    assert verdict_text.startswith(f"On 2 shared subjects of 2 people {EVIL} has the best psnr_fit")
    assert "(no interval: fewer than 12 test subjects)" in verdict_text
    opened.page.locator("button.pick").first.click()
    button = opened.page.locator("button.pick").first
    opened.at(f"{button.get_attribute('data-subject')}/{button.get_attribute('data-slice')}")
    assert opened.page.locator("b[onclick], img[src=x]").count() == 0 and "1337" not in opened.page.title()[:5]


@pytest.mark.parametrize(("width", "scheme"), [(1100, "dark"), (745, "light"), (390, "dark")])
def test_no_sideways_scrolling(chromium: Any, page_path: Path, width: int, scheme: str) -> None:
    window = Opened(chromium, page_path, width, color_scheme=scheme)
    assert window.page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = "() => [...document.querySelectorAll('.wide')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert window.page.evaluate(boxes) == 0
    window.context.close()
