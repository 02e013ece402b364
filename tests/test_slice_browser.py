"""What the results report says of single slices, how their pictures are packed, and in which order measures stand."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from made_up_heads import write_heads
from msgspec import structs
from PIL import Image

from data.folder.manifest import read_manifest
from evaluation.folders import open_test_data
from evaluation.page.sprites import MOST_SIDE, Placing, columns, placing, sheet, write_sprites
from evaluation.page.words import higher_is_better, in_order
from evaluation.slice_scores import SliceScores, ranked, score_slices, write_slice_table
from evaluation.subjects import SubjectSlices, read_subject
from util.html_page import json_in_script, link
from util.line_plot import nice_ticks


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("data"))


@pytest.fixture
def volume(dataroot: Path) -> SubjectSlices:
    data = open_test_data(dataroot, "test", table_in=dataroot)
    return read_subject(data.source, data.subjects["sub-2"], with_truth=True)


def test_the_worst_slice_is_found_and_a_shift_of_brightness_is_forgiven(volume: SubjectSlices) -> None:
    assert volume.truth is not None
    fake = 0.5 * volume.truth + 0.1
    fake[3] += np.where(np.arange(fake.shape[2]) % 2, 0.1, -0.1).astype(np.float32)
    scores = score_slices(volume, fake)
    measure, order = ranked({"a": scores})
    assert measure == "slice_psnr" and order[0].position == 3
    by_hand = np.array([score for score in scores.values["slice_psnr"] if score is not None])
    assert by_hand.min() + 10 < np.delete(by_hand, 3).min()


def test_without_a_truth_the_slice_that_stands_out_is_first(volume: SubjectSlices) -> None:
    blind = SubjectSlices(**{**vars(volume), "truth": None, "truth_mask": None})
    fake = volume.visible.copy()
    fake[2] *= 1.5
    scores = score_slices(blind, fake)
    assert scores.values["slice_psnr"] == [None] * 5
    measure, order = ranked({"a": scores})
    assert measure == "slice_jump" and order[0].position == 2 and order[0].score > 2
    assert scores.values["slice_jump"][0] is None and scores.values["slice_jump"][-1] is None
    gap = SubjectSlices(**{**vars(blind), "index": np.array([2, 3, 4, 9, 10])})
    assert [jump is None for jump in score_slices(gap, fake).values["slice_jump"]] == [True, False, True, True, True]


def test_signal_in_the_air_is_told_of_its_slice(volume: SubjectSlices) -> None:
    assert volume.truth is not None
    fake = volume.truth.copy()
    fake[1, :3, :3] = 1.0
    air = score_slices(volume, fake).values["slice_air"]
    assert air[1] is not None and air[1] > 0 and [air[i] for i in (0, 2, 3, 4)] == [0.0] * 4


def test_the_table_has_a_line_for_each_slice(tmp_path: Path) -> None:
    scores = SliceScores(["s_001", "s_002"], [1, 2], {"slice_psnr": [20.0, None]})
    write_slice_table(tmp_path / "slices.csv", {"s\udce9": scores}, {"s\udce9": "ann"})
    with (tmp_path / "slices.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["subject"], row["person"], row["slice"], row["slice_psnr"]) for row in rows] == [
        ("s\\udce9", "ann", "1", "20"),
        ("s\\udce9", "ann", "2", ""),
    ]


def test_a_sheet_holds_every_slice_where_the_script_looks_for_it() -> None:
    images = np.random.default_rng(0).random((7, 5, 4)).astype(np.float32)
    across = columns(7, 5, 4)
    whole = sheet(images, across)
    for s in range(7):
        top, left = s // across * 5, s % across * 4
        np.testing.assert_array_equal(whole[top : top + 5, left : left + 4], np.rint(images[s] * 255))
    assert columns(1, 9, 9) == 1 and columns(10_000, 512, 512) * 512 <= MOST_SIDE


def test_the_file_of_a_subject_is_a_script_without_a_name_in_its_code(volume: SubjectSlices, tmp_path: Path) -> None:
    scores = SliceScores(["</script>\udce9\u2028"] * 5, [2, 3, 4, 5, 6], {"slice_psnr": [1.0, None, 2.0, 3.0, 4.0]})
    write_sprites(tmp_path, 12, volume, {"fake_B": volume.image}, scores, Placing("axial", tuple("LRAPIS"), (1, 1, 5)))
    text = (tmp_path / "browser" / "0012.js").read_text(encoding="ascii")
    assert text.startswith("ptaSlices(") and text.endswith(");\n") and not set("<>&") & set(text)
    content = json.loads(text[len("ptaSlices(") : -3])
    assert content["sides"] == list("LRAPIS") and content["spacing"] == [1, 1, 5] and content["index"][0] == 2
    picture = Image.open(io.BytesIO(base64.b64decode(content["sheets"]["fake_B"].partition(",")[2])))
    assert picture.mode == "L" and picture.size[0] == content["across"] * volume.image.shape[2]


def test_left_and_right_are_told_only_where_the_data_say_so(dataroot: Path) -> None:
    manifest = read_manifest(dataroot)
    assert manifest is not None
    entry = manifest.volumes[0]
    known = placing(entry, simulated=False)
    assert (known.plane, known.sides[:2], known.spacing_mm) == ("axial", ("L", "R"), (1.0, 1.0, 5.0))
    assert placing(structs.replace(entry, slice_axis=0), simulated=False).sides[:4] == ("P", "A", "S", "I")
    silent = structs.replace(entry, sform_code=0, qform_code=0)
    assert placing(silent, simulated=False).sides == () and placing(silent, simulated=True).sides != ()
    assert placing(None, simulated=False) == Placing()


def test_measures_have_an_order_and_unknown_ones_come_last() -> None:
    assert in_order(["new", "ssim_full", "psnr", "psnr_fit"]) == ["psnr_fit", "psnr", "ssim_full", "new"]
    assert (higher_is_better("ssim"), higher_is_better("nrmse"), higher_is_better("new")) == (True, False, None)


def test_ticks_are_round_and_hold_all_values() -> None:
    assert nice_ticks(19.7, 23.2) == [19, 20, 21, 22, 23, 24]
    for low, high in ((0.81, 0.871), (5.0, 5.0), (-1e-4, 3e-4), (0.0, 0.0)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8


def test_no_name_ends_a_script_or_an_address() -> None:
    text = json_in_script({"</script><!--": "&\u2028"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"</script><!--": "&\u2028"}
    assert link('a"<#?\udce9.png') == "a%22%3C%23%3F%E9.png"
