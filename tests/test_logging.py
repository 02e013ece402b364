"""loss_log.csv, log.txt, run.json, sample images and the training report."""

from __future__ import annotations

import csv
import html
import json
import platform
import re
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from options.display_options import DisplayOptions
from training.log import console_log, run_log
from training.log.follower import Values
from training.log.loss_log import FIXED, LossLog
from training.log.run_log import RunLog
from training.log.sample_images import KEPT, NEWEST, SampleImages, column, labelled_grid, one_too_many
from training.log.status import StageSoFar, Status, direction, duration, verdict
from training.log.training_curves import panels, plots
from training.run_info import git_commit, write_run_info
from util.errors import UserError
from util.line_plot import Line, line_plot, log_ticks, smooth, use_log_scale

NO_HTML = DisplayOptions(html=False)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row and None not in row.values() for row in rows), "ragged CSV"
    return rows


def add(log: LossLog, stage: str, step: int, **values: float) -> None:
    log.add(stage, step // 10, step, images_per_s=12.5, seconds=float(step), values=values)


def picture(value: float, n: int = 2) -> torch.Tensor:
    return torch.full((n, 1, 6, 9), value)


class TestLossLog:
    def test_new_stage_brings_new_columns_and_the_file_stays_rectangular(self, tmp_path: Path) -> None:
        log = LossLog(tmp_path / "loss_log.csv")
        add(log, "sgp", 1, sgp=2.5)
        add(log, "gan", 1, G=1.0, D_B=0.25)
        add(log, "gan", 2, G=0.5, D_B=0.125)
        rows = read_rows(log.path)
        assert list(rows[0]) == [*FIXED, "sgp", "G", "D_B"]
        assert [(row["stage"], row["sgp"], row["G"]) for row in rows] == [
            ("sgp", "2.5", ""),
            ("gan", "", "1"),
            ("gan", "", "0.5"),
        ]
        assert log.names("gan") == ["G", "D_B"] and log.stages == ["sgp", "gan"]

    def test_resume_drops_later_rows_later_stages_and_torn_lines(self, tmp_path: Path) -> None:
        log = LossLog(tmp_path / "loss_log.csv")
        for stage in ("sgp", "lsc", "gan"):
            for step in (10, 20, 30):
                add(log, stage, step, **{stage: 0.5})
        with log.path.open("a", encoding="utf-8") as file:
            file.write("gan,4,4")  # power lost in the middle of a row
        resumed = LossLog(log.path)
        resumed.resume("gan", 20)
        add(resumed, "gan", 21, gan=0.25)
        kept = [(row["stage"], int(row["step"])) for row in read_rows(log.path)]
        assert kept == [(s, n) for s in ("sgp", "lsc") for n in (10, 20, 30)] + [("gan", 10), ("gan", 20), ("gan", 21)]
        again = LossLog(log.path)
        again.resume("lsc", 10)
        assert [(row["stage"], row["step"]) for row in read_rows(log.path)][-1] == ("lsc", "10")
        assert again.seconds == 10.0

    def test_columns_of_an_older_log_get_their_present_names(self, tmp_path: Path) -> None:
        (tmp_path / "loss_log.csv").write_text(
            "stage,epoch,step,images_per_s,seconds,sgp,val_val_p_error,lsc,val_train_psnr,val_val_psnr,cycle,ssim\n"
            "sgp,1,9,12,1.0,2.5,,,,,,\nsgp,1,9,,1.1,,0.25,,,,,\n"
            "lsc,1,4,,2.0,,,,31.5,31,,\nrefine,1,2,8,3.0,,,,,,0.5,0.125\n",
            encoding="utf-8",
        )
        log = LossLog(tmp_path / "loss_log.csv")
        log.resume("refine", 2)
        log.add("refine", 1, 3, images_per_s=8, seconds=4, values={"cycle": 0.25, "1-ssim": 0.0625})
        rows = read_rows(log.path)
        names = ["sgp", "val_p_error", "lsc", "val_train_psnr", "val_psnr", "cycle", "1-ssim"]
        assert list(rows[0]) == [*FIXED, *names]
        assert (rows[1]["val_p_error"], rows[2]["val_train_psnr"], rows[2]["val_psnr"]) == ("0.25", "31.5", "31")
        assert [row["1-ssim"] for row in rows] == ["", "", "", "0.125", "0.0625"]
        assert log.names("lsc") == ["val_train_psnr", "val_psnr"]

    def test_row_of_a_failed_write_comes_with_the_next(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log = LossLog(tmp_path / "loss_log.csv")
        add(log, "gan", 1, G=1.0)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="disk full"):
                add(log, "gan", 2, G=2.0)
        add(log, "gan", 3, G=3.0)
        assert [row["step"] for row in read_rows(log.path)] == ["1", "2", "3"]

    def test_curve_leaves_out_what_is_not_finite_and_averages_long_ones(self, tmp_path: Path) -> None:
        log = LossLog(tmp_path / "loss_log.csv")
        for step, value in enumerate((1.0, float("nan"), 3.0, float("inf"), 5.0, 7.0)):
            add(log, "gan", step, G=value)
        steps, values = log.curve("gan", "G")
        np.testing.assert_array_equal(steps, [0, 2, 4, 5])
        np.testing.assert_array_equal(values, [1, 3, 5, 7])
        np.testing.assert_array_equal(log.curve("gan", "G", max_points=2)[1], [2, 6])


class TestRunLog:
    def test_rows_are_due_by_images_and_by_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr(run_log.time, "monotonic", lambda: clock[0])
        log = RunLog(tmp_path, DisplayOptions(print_freq=100, log_seconds=60, html=False), console=False)
        log.stage("gan", 1000)
        due = []
        for step in range(1, 16):
            clock[0] += 0.5 if step < 13 else 45.0
            log.advance(16)
            if log.losses_due():
                due.append(step)
                log.losses(0, step, {"G": 1.0})
        assert due == [1, 8, 14]  # the first; 7 x 16 images; then 1 + 45 + 45 seconds, over a minute
        rates = [float(row["images_per_s"]) for row in read_rows(tmp_path / "loss_log.csv")]
        assert rates[:2] == [32.0, 32.0]

    def test_resume_goes_on_with_time_rows_and_pictures(self, tmp_path: Path) -> None:
        for first_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
            log = RunLog(tmp_path, DisplayOptions(), console=False)
            if first_step:
                log.resume("gan", first_step)
            log.stage("gan", 4, first_step)
            for step in steps:
                log.advance(1)
                log.losses(0, step, {"G": float(step)})
                log.images(0, step, {"fake_B": picture(0.0)})
            log.close()
        rows = read_rows(tmp_path / "loss_log.csv")
        assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
        seconds = [float(row["seconds"]) for row in rows]
        assert seconds == sorted(seconds)
        listed = json.loads((tmp_path / "web" / "samples.json").read_text(encoding="utf-8"))
        assert [sample["step"] for sample in listed] == [1, 2, 3, 4]
        news = live(tmp_path)
        assert [sample[2] for sample in news["samples"]] == [1, 2, 3, 4] and "Steps 1 to 4." in news["parts"]["curves"]

    def test_the_expected_time_is_told_once_when_the_rate_is_known(
        self, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = [0.0]
        monkeypatch.setattr(run_log.time, "monotonic", lambda: clock[0])
        log = RunLog(tmp_path, NO_HTML)
        for stage, later in (("sgp", ["lsc", "gan"]), ("lsc", ["gan"]), ("gan", [])):
            log.stage(stage, 1000, later=later)
            for step in range(1, 21):
                clock[0] += 100.0 if step == 1 else 2.0  # the first step says nothing about the others
                log.advance(1)
                log.losses(0, step, {stage: 1.0})
        log.close()
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("expected time: ")]
        of_stage = "expected time: 33 min for the 1,000 steps of stage"
        assert told[0] == f"{of_stage} sgp; lsc and gan will be timed when they begin"
        assert told[1] == f"{of_stage} lsc; gan will be timed when it begins"
        assert told[2].startswith(f"{of_stage} gan, 40 min in all, until 2")
        assert len(told) == 3

    def test_begun_anew_forgets_an_earlier_run(self, tmp_path: Path) -> None:
        for value in (1.0, 2.0):
            log = RunLog(tmp_path, NO_HTML, console=False)
            log.stage("gan", 1)
            log.advance(1)
            log.losses(0, 1, {"G": value})
            log.close()
        assert [row["G"] for row in read_rows(tmp_path / "loss_log.csv")] == ["2"]

    def test_unwritable_folder_warns_once_and_training_goes_on(self, tmp_path: Path, capsys) -> None:
        (tmp_path / "web").write_text("in the way", encoding="utf-8")
        (tmp_path / "loss_log.csv").mkdir()
        log = RunLog(tmp_path, DisplayOptions())
        log.stage("gan", 3)
        for step in (1, 2, 3):
            log.advance(1)
            log.losses(0, step, {"G": 1.0})
            log.images(0, step, {"fake_B": picture(0.0)})
        log.report()
        log.close()
        warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == 3
        for what in ("write loss_log.csv", "draw sample images", "write the training report"):
            assert sum(what in line for line in warnings) == 1
        assert all(line.endswith("training continues") for line in warnings)

    def test_redirected_console_gets_plain_lines(self, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
        log = RunLog(tmp_path, NO_HTML)
        log.stage("lsc", 50)
        for step in range(1, 51):
            log.advance(2)
            log.losses(0, step, {"restore": 1 / step})
        log.note("a note with [brackets]")
        log.validation(0, 50, {"psnr": 21.5})
        log.close()
        lines = capsys.readouterr().out.splitlines()
        assert "\x1b" not in "".join(lines)
        shown = [line for line in lines if line.startswith("lsc  epoch")]
        assert len(shown) == 2 and "step 1/50" in shown[0] and "step 50/50" in shown[1]  # first, and held-back last
        assert "a note with [brackets]" in lines
        assert "validation, epoch 0: val_psnr 21.5" in lines
        assert sum("  lsc  epoch" in line for line in (tmp_path / "log.txt").read_text().splitlines()) == 50
        assert read_rows(tmp_path / "loss_log.csv")[-1]["val_psnr"] == "21.5"

    def test_a_path_that_is_no_text_is_escaped_in_a_note(self, tmp_path: Path, capsys) -> None:
        log = RunLog(tmp_path, NO_HTML)
        log.note("run folder: caf\udce9/é")  # a name in Latin-1 as Python reads it
        log.close()
        assert capsys.readouterr().out == "run folder: caf\\udce9/é\n"
        assert (tmp_path / "log.txt").read_text(encoding="utf-8").endswith("run folder: caf\\udce9/é\n")

    def test_terminal_gets_a_bar(self, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(console_log.sys.stdout, "isatty", lambda: True, raising=False)
        log = RunLog(tmp_path, NO_HTML)
        log.stage("gan", 2)
        log.advance(4)
        log.losses(0, 1, {"cycle": 0.123})
        log.advance(4)
        log.close()
        out = capsys.readouterr().out
        assert "2/2" in out and "cycle 0.123" in out and "images/s" in out

    def test_silent_run_prints_nothing(self, tmp_path: Path, capsys) -> None:
        log = RunLog(tmp_path, NO_HTML, console=False)
        log.stage("gan", 1)
        log.note("unheard")
        log.close()
        assert capsys.readouterr().out == ""
        assert "unheard" in (tmp_path / "log.txt").read_text(encoding="utf-8")


class TestPictures:
    def test_column_maps_minus_one_to_black_and_one_to_white(self) -> None:
        shown = column(torch.cat([picture(-1.0, 1), picture(0.0, 1), picture(1.0, 1), picture(3.0, 3)]))
        assert shown.shape == (4 * (6 + 2) + 2, 9 + 4) and shown.dtype == np.uint8
        assert [int(shown[2 + 8 * row + 3, 6]) for row in range(4)] == [0, 128, 255, 255]
        assert column(picture(1.0, 1)).shape == (6, 9)

    def test_labelled_grid_wraps_after_n_columns(self) -> None:
        columns = {name: np.full((20, 40), 90, np.uint8) for name in ("real_A", "fake_B", "rec_A")}
        grid = labelled_grid(columns, 2)
        assert grid.shape == (3, 2 * (20 + 18), 2 * 40)
        assert (grid[:, 18:38] == 90).all() and (grid[:, 56:, 40:] == 0).all()
        assert grid[0, :18, :40].max() > 200 and grid[0, :18, 40:].max() > 200 and grid[0, 38:56, :40].max() > 200

    def test_due_by_images_then_saved_once(self, tmp_path: Path) -> None:
        log = RunLog(tmp_path, DisplayOptions(update_html_freq=10), console=False)
        log.stage("gan", 8)
        due = []
        for step in range(1, 9):
            log.advance(4)
            if log.images_due():
                due.append(step)
                log.images(0, step, {"real_A": picture(-1.0), "fake/B": picture(1.0)})
        log.close()
        assert due == [1, 4, 7]
        names = sorted(path.name for path in (tmp_path / "web" / "images").iterdir())
        assert "gan_epoch000_step0000007_fake-B.png" in names and len(names) == 6
        assert np.asarray(Image.open(tmp_path / "web" / "images" / names[0])).max() == 255

    def test_the_last_step_is_due_once_in_each_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = []
        fake = SimpleNamespace(
            name="fake",
            images=lambda *at_and_columns: shown.append(at_and_columns[:3]),
            **dict.fromkeys(("stage", "row", "close"), lambda *_: None),
        )
        monkeypatch.setattr(run_log, "Dashboard", lambda *_: fake)
        display = DisplayOptions(update_html_freq=8, display_id=1, display_freq=10)
        log = RunLog(tmp_path, display, console=False)
        log.stage("gan", 3)
        for step in range(1, 4):
            log.advance(4)
            assert log.losses_due(last=step == 3) == (step != 2)
            if log.losses_due(last=step == 3):
                log.losses(1, step, {"G": 1.0})
            if log.images_due(last=step == 3):
                log.images(1, step, {"fake_B": picture(0.0)}, last=step == 3)
        assert not log.losses_due(last=True) and not log.images_due(last=True)
        log.close()
        assert [row["step"] for row in read_rows(tmp_path / "loss_log.csv")] == ["1", "3"]
        listed = json.loads((tmp_path / "web" / "samples.json").read_text(encoding="utf-8"))
        assert [sample["step"] for sample in listed] == [1, 3]
        assert shown == [("gan", 1, 1), ("gan", 1, 3)]


class TestReport:
    @pytest.fixture
    def page(self, tmp_path: Path) -> str:
        (tmp_path / "options.json").write_text(
            json.dumps({"model": "lsc", "train": {"lr": 2e-4, "milestones": [1, 2]}})
        )
        write_run_info(
            tmp_path, seed=3, command=["train.py", "--name", "<b>"], data_fingerprint="ab12", device=torch.device("cpu")
        )
        log = RunLog(tmp_path, DisplayOptions(), console=False)
        for stage, losses in (("lsc", ("restore",)), ("gan", ("D_A", "D_B", "<script>"))):
            log.stage(stage, 40)
            for step in range(1, 41):
                log.advance(1)
                log.losses(0, step, dict.fromkeys(losses, 10 * 0.8**step))
            log.images(0, 40, {"real_A": picture(0.1), "fake_B & <co>": picture(0.2)})
            log.images(1, 41, {"real_A": picture(0.1)})
        log.close()
        return (tmp_path / "web" / "index.html").read_text(encoding="utf-8")

    def test_the_verdict_comes_first_then_stages_newest_first(self, page: str, tmp_path: Path) -> None:
        order = ["verdict", "Losses of stage gan", "Losses of stage lsc", "Samples over time", "How it is trained"]
        places = [page.index(text) for text in [*order, "Where things are"]]
        assert places == sorted(places)
        assert "Ended: all stages are complete" in page and "http-equiv" not in page
        for source in re.findall(r'(?:src|href)="([^"]+)"', page):
            assert not source.startswith(("/", "http")) and (tmp_path / "web" / unquote(source)).exists(), source

    def test_the_newest_pictures_are_on_the_page_and_all_in_its_data(self, page: str, tmp_path: Path) -> None:
        assert re.findall(r'<img[^>]*alt="([^"]+)"', page) == ["real_A, stage gan, step 41"]
        data = json.loads(re.findall(r'<script id="report-data"[^>]*>(.*?)</script>', page)[0])
        assert [(stage, step) for stage, _, step, _, _ in data["samples"]] == [
            ("lsc", 40),
            ("lsc", 41),
            ("gan", 40),
            ("gan", 41),
        ]
        assert all((tmp_path / "web" / file).is_file() for sample in data["samples"] for file in sample[3].values())

    def test_shows_options_and_versions_escaped(self, page: str) -> None:
        assert "<td>0.0002</td>" in page and "<td>1 2</td>" in page and f"<td>{platform.python_version()}</td>" in page
        assert "fake_B \\u0026 \\u003cco\\u003e" in page and "--name '&lt;b&gt;'" in page.replace("&#x27;", "'")
        assert "&lt;script&gt; 0." in page and page.count("<script") == 2 and "<co>" not in page

    def test_curves_are_files_too(self, page: str, tmp_path: Path) -> None:
        for stage, n in (("lsc", 2), ("gan", 3)):
            sheet = ElementTree.parse(tmp_path / "web" / "curves" / f"{stage}.svg").getroot()
            assert len(sheet.findall("{http://www.w3.org/2000/svg}svg")) == n
        assert "prefers-color-scheme: dark" in (tmp_path / "web" / "curves" / "gan.svg").read_text(encoding="utf-8")

    def test_no_html_writes_no_page(self, tmp_path: Path) -> None:
        log = RunLog(tmp_path, NO_HTML, console=False)
        log.stage("gan", 1)
        log.images(0, 1, {"fake_B": picture(0.0)})
        log.close()
        assert not (tmp_path / "web").exists()

    def test_a_running_page_goes_on_reading_also_without_scripts(self, tmp_path: Path) -> None:
        log = RunLog(tmp_path, DisplayOptions(), console=False)
        log.report()  # before any stage or row
        page = (tmp_path / "web" / "index.html").read_text(encoding="utf-8")
        assert '<noscript><meta content="60" http-equiv="refresh"></noscript>' in page
        assert "Training is being prepared" in page and live(tmp_path)["state"] == "running"

    @pytest.mark.parametrize(
        ("error", "state", "sentence"),
        [
            (UserError("loss 'G' is nan at step 1"), "failed", "Ended by an error in stage gan, epoch 1, step 1 of 4"),
            (OSError(28, "No space left"), "failed", "OSError: [Errno 28] No space left."),
            (None, "stopped", "Stopped in stage gan, epoch 1, step 1 of 4 (25 %): stopped by SIGTERM; all is saved."),
        ],
    )
    def test_the_page_says_how_a_run_ended(
        self, tmp_path: Path, error: Exception | None, state: str, sentence: str
    ) -> None:
        log = RunLog(tmp_path, DisplayOptions(), console=False)
        with suppress(UserError, OSError), ExitStack() as held:
            held.push(log.leave)
            log.stage("gan", 4)
            log.advance(1)
            log.losses(1, 1, {"G": 1.0})
            if error is not None:
                raise error
            log.stop("stopped by SIGTERM; all is saved")
        assert live(tmp_path)["state"] == state
        assert sentence in html.unescape((tmp_path / "web" / "index.html").read_text(encoding="utf-8"))

    def test_rows_without_pictures_are_news_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr(run_log.time, "monotonic", lambda: clock[0])
        log = RunLog(tmp_path, DisplayOptions(update_html_freq=10**6), console=False)
        log.stage("gan", 10)
        pages = []
        for step in range(1, 6):
            clock[0] += 25
            log.advance(1)
            log.losses(1, step, {"G": 1.0})
            pages.append(live(tmp_path)["parts"]["head"])
        news = [f"step {step} of 10" in page for step, page in enumerate(pages, 1)]
        assert news == [False, False, True, False, False]
        assert pages[2] == pages[4] and "the time left is not known yet" in pages[2]


def live(run_dir: Path) -> dict:
    """What an open page reads."""
    text = (run_dir / "web" / "live.js").read_text(encoding="utf-8")
    assert text.startswith("ptaLive(") and text.endswith(");\n")
    return json.loads(text[len("ptaLive(") : -3])


class TestManySamples:
    def test_a_stage_keeps_the_first_the_newest_and_evenly_spread_ones(self) -> None:
        steps: list[int] = []
        for step in range(1, 5001):
            steps.append(step)
            if (number := one_too_many(steps)) is not None:
                del steps[number]
        assert len(steps) == KEPT and steps[0] == 1 and steps[-NEWEST:] == list(range(5001 - NEWEST, 5001))
        gaps = np.diff(steps[:-NEWEST])
        assert gaps.max() <= 2 * 5000 / (KEPT - NEWEST) and np.median(gaps) > 0.5 * 5000 / (KEPT - NEWEST)

    def test_files_go_once_no_page_shows_them_and_so_do_those_of_a_replaced_run(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir(parents=True)
        for name in ("old_epoch001_step0000001_real_A.png", "mine.png"):
            (tmp_path / "images" / name).touch()
        samples = SampleImages(tmp_path)
        for step in range(1, KEPT + 6):
            samples.save("gan", 1, step, {"real_A": np.zeros((2, 3), np.uint8)})
        assert len(list((tmp_path / "images").iterdir())) == KEPT + 7  # a page may still show them
        samples.tidy()
        listed = {file for sample in samples.samples for file in sample.files.values()}
        left = {f"images/{path.name}" for path in (tmp_path / "images").iterdir()}
        assert left == listed | {"images/mine.png"} and len(listed) == KEPT

    def test_a_damaged_list_costs_no_picture(self, tmp_path: Path) -> None:
        samples = SampleImages(tmp_path)
        samples.save("gan", 1, 1, {"real_A": np.zeros((2, 3), np.uint8)})
        (tmp_path / "samples.json").write_text("[{", encoding="utf-8")
        again = SampleImages(tmp_path)
        again.resume("gan", 5)
        again.tidy()
        assert len(list((tmp_path / "images").iterdir())) == 1


class TestVerdict:
    def test_validation_names_the_best_epoch_of_each_figure(self) -> None:
        stages = {"lsc": StageSoFar(), "gan": StageSoFar()}
        for epoch, psnr, error in ((1, 20.0, 0.3), (2, 22.0, 0.1), (3, 21.5, 0.2)):
            values = {"val_psnr": psnr, "val_train_psnr": 30.0, "val_p_error": error, "val_new": 1.0}
            stages["lsc"].add(Values("lsc", epoch, 10 * epoch, values))
        running = Status("running", "gan", 50, 200, ("refine",), 100.0, 7200.0)
        assert verdict(running, stages).startswith("Training: stage gan, step 50 of 200 (25 %); about 2 h 00 min left")
        assert verdict(running, stages).endswith(
            "refine will follow. Validation of lsc: val_psnr 21.5 after epoch 3, best 22 after epoch 2; "
            "val_p_error 0.2 after epoch 3, best 0.1 after epoch 2; val_new 1 after epoch 3."
        )

    def test_which_way_a_figure_is_better(self) -> None:
        rising, falling = ("val_psnr", "val_ssim"), ("val_p_error", "val_1-ssim", "val_mae")
        assert [direction(name) for name in (*rising, *falling, "val_x")] == [1, 1, -1, -1, -1, 0]


class TestPlots:
    def test_a_single_point_is_marked_and_a_long_curve_is_a_line(self) -> None:
        one = line_plot([Line("psnr", [3], [0.5])]).render()
        assert one.count("<circle") == 1 and "<path" not in one and "psnr 0.5" in one
        long = line_plot([Line("G", range(5000), [0.25] * 5000, "a")]).render()
        assert "<circle" not in long and long.count("<path") == 2 and long.count("L") < 700

    def test_losses_of_different_size_share_no_linear_axes(self) -> None:
        steps = [float(step) for step in range(20)]
        near, far = [1.0 - step / 40 for step in steps], [0.01 - step / 4000 for step in steps]
        assert len(plots({"D_A": (steps, near), "D_B": (steps, near)})) == 1
        assert len(plots({"D_A": (steps, near), "D_B": (steps, [value - 0.008 for value in far])})) == 2
        assert len(plots({"D_A": (steps, near), "D_B": (steps, [abs(value) + 1e-3 for value in far])})) == 1  # log

    def test_validation_comes_first_and_empty_curves_are_left_out(self) -> None:
        found = plots({"G": ([1.0], [2.0]), "idt": ([], []), "val_psnr": ([1.0], [20.0]), "lr": ([1.0], [1e-4])})
        assert [plot["aria-label"].split(":")[0] for plot in found] == ["val_psnr", "G", "learning rate"]

    def test_scale_smoothing_and_words(self) -> None:
        assert log_ticks(0.02, 3) == [0.01, 0.1, 1, 10] and len(log_ticks(1e-9, 1e3)) <= 5
        shared = {"D_A, D_B": ["D_A", "D_B"], "syn, syn_A": ["syn", "syn_A"], "adv_B": ["adv_B"]}
        assert panels(["D_A", "syn", "D_B", "adv_B", "syn_A"]) == shared
        assert use_log_scale(np.geomspace(1e-3, 1, 50)) and not use_log_scale(np.linspace(0.5, 1, 50))
        assert not use_log_scale(np.array([-1.0, 1000.0])) and not use_log_scale(np.array([]))
        np.testing.assert_allclose(smooth(np.full(100, 3.0)), 3.0)
        noise = np.random.default_rng(0).normal(size=300)
        assert smooth(noise).std() < 0.4 * noise.std()
        assert [duration(s) for s in (42, 720, 11100)] == ["42 s", "12 min", "3 h 05 min"]


def test_run_info_says_with_what_and_keeps_the_first_start(tmp_path: Path) -> None:
    settings = {
        "seed": 5,
        "command": ["train.py", "--seed", "5"],
        "data_fingerprint": "f00",
        "device": torch.device("cpu"),
    }
    write_run_info(tmp_path, **settings, extra={"split": "train"})
    write_run_info(tmp_path, **{**settings, "seed": 6}, resumed=True)
    write_run_info(tmp_path, **{**settings, "seed": 7}, resumed=True)
    info = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (info["seed"], info["data_fingerprint"], info["split"]) == (5, "f00", "train")
    assert info["command"] == ["train.py", "--seed", "5"] and info["device"].startswith("cpu")
    assert info["versions"]["torch"] == str(torch.__version__) and info["versions"]["numpy"] == np.__version__
    assert [entry["seed"] for entry in info["resumed"]] == [6, 7]


def test_run_info_adds_the_numbers_that_a_later_stage_needs(tmp_path: Path) -> None:
    settings = {"seed": 5, "command": ["train.py"], "data_fingerprint": "f00", "device": torch.device("cpu")}
    write_run_info(tmp_path, **settings, extra={"low_field": {"lf_noise": 0.05}})
    write_run_info(tmp_path, **settings, resumed=True)
    write_run_info(tmp_path, **settings, extra={"low_field": {"lf_noise": 0.05, "lf_contrast": 0.7}}, resumed=True)
    info = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert info["low_field"] == {"lf_noise": 0.05, "lf_contrast": 0.7}


def test_git_commit_is_what_git_says(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "packed-refs").write_text(f"# pack-refs\n{'a' * 40} refs/heads/main\n")
    assert git_commit(tmp_path) == "a" * 40
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("b" * 40 + "\n")
    assert git_commit(tmp_path) == "b" * 40
    (tmp_path / ".git" / "HEAD").write_text("c" * 40 + "\n")
    assert git_commit(tmp_path) == "c" * 40


def test_a_step_costs_microseconds(tmp_path: Path) -> None:
    log = RunLog(tmp_path, DisplayOptions(update_html_freq=10**6, print_freq=10**6), console=False)
    log.stage("gan", 10**4)
    log.losses(0, 0, {"G": 1.0})
    log.images(0, 0, {"fake_B": picture(0.0)})
    start = time.process_time()
    for _ in range(10**4):
        log.advance(4)
        assert not log.losses_due() and not log.images_due()
    assert time.process_time() - start < 1.0  # of the processor: 0.1 ms a step would do; it is some microseconds
