"""The fidelity benchmark, the whole of it on phantoms: killed, continued and verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, SMALL_SGP, phantom_slice, write_phantom
from PIL import Image
from running import MAINS, Ended, as_before
from running import start as start_process

from benchmarks.fidelity import program, segment, work
from benchmarks.fidelity.budgets import BUDGETS, Budget, Lengths
from benchmarks.fidelity.lengths import images_seen
from benchmarks.fidelity.measure import kept, prediction_path
from benchmarks.fidelity.plan import Plan
from benchmarks.fidelity.rows import BASELINES, ROWS, Row
from benchmarks.fidelity.store import LESIONS, PHASES, Place
from data.folder.slices import slice_name, write_image, write_mask
from models.trained import load_trained
from scripts import benchmark_fidelity
from util.errors import UserError

TINY = Budget(
    "for tests",
    rows={
        "same_contrast": (
            *BASELINES, "cycle_gan/hybrid", "cycle_gan/hybrid/no_refine", "missing", "supervised/hybrid",
        )
    },
    seeds=(0,), matrix=32, n_train=2, n_val=2, n_test=2,
    lengths=Lengths(sgp=1, lsc=1, gan=1, refine=1), preset="demo",
    options=("--load_size", "32", "--gpu_ids", "-1", "--amp", "off", *SMALL_NETWORKS),
    encoder=(*SMALL_SGP, "--sgp_steps", "2"), segmenter_steps=3, claims=False,
)  # fmt: skip


# the whole, on phantoms -----------------------------------------------------------------------------------------------


def prepare(place: Place) -> None:
    """Phantoms with truth and labels in the place of the simulated data."""
    place.steps("same_contrast").mkdir(parents=True)
    for phase in ("", LESIONS):
        root = write_phantom(place.data("same_contrast", phase), subjects=2, slices=4)
        for split in ("train", "val", "test"):
            write_truth(root, split, lesions=phase == LESIONS)
        (place.steps("same_contrast") / f"{root.name}.json").write_text("{}")


def write_truth(root: Path, split: str, *, lesions: bool) -> None:
    """The truth of A's slices, and labels of both domains: CSF, grey matter around it, and perhaps a lesion."""
    rng = np.random.default_rng(1)
    for kind in ("A_truth", "A_truth_mask", "A_labels", "B_labels"):
        (root / f"{split}{kind}").mkdir()
    for domain, count in (("A", 4), ("B", 5)):
        for subject, index in product(range(2), range(count)):
            image, mask = phantom_slice((index + 0.5) / count, "B", rng)
            labels = np.select([image > 0.7, image > 0.3, image > 0.1], [1, 2, 3], 0).astype(np.uint8)
            if lesions and index in (1, 2):
                image[10:14, 14:18], labels[10:14, 14:18] = 0.6, 7
            name = slice_name(f"{split}{domain}{subject}", index)
            Image.fromarray(labels).save(root / f"{split}{domain}_labels" / name)
            if domain == "A":
                write_image(root / f"{split}A_truth" / name, image, 8)
                write_mask(root / f"{split}A_truth_mask" / name, mask)


class InThisProcess:
    """Runs a command of the benchmark here. After `most` of them, the benchmark is killed."""

    def __init__(self, most: int = 1000) -> None:
        self.commands: list[list[str]] = []
        self.most = most

    def __call__(self, command: list[str], log: Path, lock: TextIO) -> Ended:
        if len(self.commands) == self.most:
            raise KeyboardInterrupt
        self.commands.append(command)
        main: Callable[[Sequence[str]], Any]
        if "-m" in command:
            main, argv = {"work": work.main, "segment": segment.main}[command[2].rpartition(".")[2]], command[3:]
        else:
            main, argv = MAINS[Path(command[1]).name], command[2:]
        with as_before():
            return Ended(main(argv) or 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, dict[str, Any]]]:
    """A benchmark that was killed twice and then finished."""
    patch = pytest.MonkeyPatch()
    patch.setitem(BUDGETS, "tiny", TINY)
    patch.setitem(ROWS, "missing", Row("no_such_model", "hybrid"))  # type: ignore[arg-type]
    root = tmp_path_factory.mktemp("benchmark")
    place = Place(root / "out", "tiny", root / "docs")
    prepare(place)
    argv = ["--budget", "tiny", "--out", str(place.out), "--docs", str(place.published), "--jobs", "1"]
    ran: list[list[str]] = []
    for most in (1, 2, 1000):
        launch = InThisProcess(most)
        try:
            assert program.benchmark(benchmark_fidelity.options_of(argv), launch) == 0
        except KeyboardInterrupt:
            assert most < 1000
        ran += launch.commands
    # E_eval, the segmenter, two trainings, four tests in three phases
    assert len(ran) == len({tuple(command) for command in ran}) == 16
    yield place, json.loads((place.published / "fidelity_tiny.json").read_text())
    patch.undo()


def test_killed_and_continued_it_has_all_rows(finished: tuple[Place, dict[str, Any]]) -> None:
    place, content = finished
    rows = content["tasks"]["same_contrast"]["rows"]
    assert list(rows) == list(TINY.rows["same_contrast"])
    assert content["tasks"]["same_contrast"]["test_people"] == ["testA0", "testA1"]
    assert all(rows[row]["psnr_fit"]["mean"] > 5 for row in rows if row != "missing")
    assert rows["missing"]["psnr"] is None
    assert content["why_null"]["missing"] == "this version has no --model no_such_model"
    assert rows["classical"]["psnr"]["ci95"] is None
    assert content["why_null"]["tasks.same_contrast.rows.cycle_gan/hybrid.psnr.ci95"] == "fewer than 3 seeds"
    page = (place.published / "fidelity_tiny.md").read_text()
    assert (
        "`missing` is missing: this version has no --model no_such_model." in page and "| `cycle_gan/hybrid` |" in page
    )


def test_tissues_and_lesions_are_measured(finished: tuple[Place, dict[str, Any]]) -> None:
    place, content = finished
    task = content["tasks"]["same_contrast"]
    measured = [read(place, row)["test"]["subjects"]["testA0"]["dice"] for row in ("identity", "cycle_gan/hybrid")]
    assert all(0 <= value <= 1 for value in measured) and len(measured) == 2
    assert task["rows"]["identity"]["dice"]["mean"] == pytest.approx(
        np.mean([one["dice"] for one in read(place, "identity")["test"]["subjects"].values()])
    )
    assert 0 <= task["segmenter"]["dice_on_truth"] <= 1
    heads = read(place, "classical")[LESIONS]["subjects"]
    assert {head["lesions"] for head in heads.values()} == {1}


def read(place: Place, row: str) -> dict[str, Any]:
    return json.loads((place.units / "same_contrast" / row / "0.json").read_text())


def test_images_are_counted_from_the_log(finished: tuple[Place, dict[str, Any]]) -> None:
    place, content = finished
    rows = content["tasks"]["same_contrast"]["rows"]
    assert rows["cycle_gan/hybrid"]["images_by_stage"] == {"gan": 20, "refine": 20}  # 10 slices, twice each
    assert rows["cycle_gan/hybrid/no_refine"]["images_by_stage"] == {"gan": 20}
    assert content["images_seen"] == TINY.lengths.total * 10
    run = place.run("same_contrast", "cycle_gan/hybrid", 0)
    assert images_seen(run, load_trained(run).stages, 2, 10)["images"] == {"gan": 20, "refine": 20}


def test_the_upper_bound_is_the_best_checkpoint_on_validation_people(finished: tuple[Place, dict[str, Any]]) -> None:
    place, content = finished
    unit = read(place, "supervised/hybrid")
    curve = unit["val"]["curve"]
    assert list(curve) == ["1", "2", "3", "4", "5", "latest"] and curve["5"] == curve["latest"]
    assert unit["test"]["epoch"] == unit["val"]["epoch"] == max(curve, key=curve.get)
    scores = [one["psnr_fit"] for one in unit["val"]["subjects"].values()]
    assert np.mean(scores) == pytest.approx(max(curve.values()))
    seen = content["tasks"]["same_contrast"]["rows"]["supervised/hybrid"]["images_by_stage"]
    assert list(seen.values()) == [TINY.lengths.total * 10]  # five epochs of the 8 slices of A


def test_the_refined_row_differs_from_the_unrefined(finished: tuple[Place, dict[str, Any]]) -> None:
    place, _ = finished
    paths = [
        prediction_path(place.unit("same_contrast", row, 0) / "test", "testA0")
        for row in ("cycle_gan/hybrid", "cycle_gan/hybrid/no_refine")
    ]
    assert not np.array_equal(*map(kept, paths))


def test_the_figure_shows_every_row(finished: tuple[Place, dict[str, Any]]) -> None:
    place, _ = finished
    pixels = np.asarray(Image.open(place.published / "fidelity_tiny_same_contrast.png").convert("L"))
    assert pixels.shape[1] == 6 * 220  # low field, truth and four rows, in one line
    columns = np.array_split(pixels[pixels.shape[0] // 3 : -20], 6, axis=1)
    assert all(part.std() > 20 for part in columns)
    assert "](fidelity_tiny_same_contrast.png)" in (place.published / "fidelity_tiny.md").read_text()


def test_the_figure_is_drawn_from_kept_slices_alone(finished: tuple[Place, dict[str, Any]], tmp_path: Path) -> None:
    place, _ = finished
    docs = shutil.copytree(place.published, tmp_path / "docs")
    elsewhere = replace(place, out=tmp_path / "nothing", published=docs)
    elsewhere.figure("same_contrast").unlink()
    benchmark_fidelity.main(arguments(elsewhere, "--assemble"))
    again = elsewhere.figure("same_contrast").read_bytes()
    assert again == place.figure("same_contrast").read_bytes()
    elsewhere.slice("same_contrast", "cycle_gan/hybrid", 0).unlink()
    benchmark_fidelity.main(arguments(elsewhere, "--assemble"))
    assert elsewhere.figure("same_contrast").read_bytes() != again


def arguments(place: Place, *more: str) -> list[str]:
    return ["--budget", "tiny", "--out", str(place.out), "--docs", str(place.published), *more]


def test_verified_green(finished: tuple[Place, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark_fidelity.main(arguments(finished[0], "--verify")) == 0
    assert "18 of 18 parts verified" in capsys.readouterr().out


def test_chosen_rows_are_verified_alone(
    finished: tuple[Place, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    place, _ = finished
    units = [u for u in place.published_units() if (u["task"], u["row"]) == ("same_contrast", "classical")]
    assert benchmark_fidelity.main(arguments(place, "--verify", "--models=classical", "--tasks=same_contrast")) == 0
    parts = sum(phase in unit for unit in units for phase in PHASES)
    assert parts > 0
    assert f"{parts} of {parts} parts verified" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["fidelity_tiny.json", "units/tiny/same_contrast/classical/0.json"])
def test_a_changed_number_is_found(
    finished: tuple[Place, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    docs = shutil.copytree(finished[0].published, tmp_path / "docs")
    content = json.loads((docs / file).read_text())
    if "tasks" in content:
        content["tasks"]["same_contrast"]["rows"]["classical"]["psnr"]["mean"] += 0.01
    else:
        content["test"]["subjects"]["testA0"]["ssim"] += 0.01
    (docs / file).write_text(json.dumps(content))
    assert benchmark_fidelity.main(arguments(replace(finished[0], published=docs), "--verify")) == 1
    assert "DIFFERENT: " in capsys.readouterr().out


def test_tables_need_the_units_alone(
    finished: tuple[Place, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, content = finished
    docs = tmp_path / "docs"
    shutil.copytree(place.units, docs / "units" / "tiny")
    alone = replace(place, out=tmp_path / "empty", published=docs)
    (docs / "fidelity_notes_tiny.md").write_text("Nobody wins.\n")
    assert benchmark_fidelity.main(arguments(alone, "--assemble")) == 0
    assert "## What the numbers say\n\nNobody wins.\n" in (docs / "fidelity_tiny.md").read_text()
    assert json.loads((docs / "fidelity_tiny.json").read_text()) == content
    assert benchmark_fidelity.main(arguments(alone, "--verify")) == 0
    assert "0 of 18 parts verified" in capsys.readouterr().out


def test_measured_again_the_numbers_are_the_same(finished: tuple[Place, dict[str, Any]], tmp_path: Path) -> None:
    place, content = finished
    assert benchmark_fidelity.main(arguments(replace(place, published=tmp_path), "--remeasure")) == 0
    assert json.loads((tmp_path / "fidelity_tiny.json").read_text())["tasks"] == content["tasks"]


def test_other_options_than_before_are_refused(finished: tuple[Place, dict[str, Any]]) -> None:
    place, _ = finished
    longer = replace(TINY, lengths=Lengths(sgp=1, lsc=1, gan=2, refine=1))
    train, _ = (step for step in Plan(place, longer).steps("val") if step.kind.startswith("train"))
    with pytest.raises(UserError, match="begun with other options"):
        train.command()


def test_the_number_format_is_one_of_the_options(finished: tuple[Place, dict[str, Any]]) -> None:
    place, _ = finished
    train, _ = (step for step in Plan(place, TINY, amp="bf16").steps("val") if step.kind.startswith("train"))
    with pytest.raises(UserError, match=r"begun with other options \(--amp off, now bf16\)"):
        train.command()


def benchmark_of_one_row(out: str, docs: str) -> None:
    """The program as it is typed, with the small budget of these tests."""
    BUDGETS["tiny"] = replace(TINY, rows={"same_contrast": ("cycle_gan/hybrid",)})
    assert benchmark_fidelity.main(["--budget", "tiny", "--out", out, "--docs", docs, "--jobs", "1"]) == 0


@pytest.mark.slow
def test_killed_by_the_system_while_it_trains_it_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path / "out", "tiny", tmp_path / "docs")
    prepare(place)
    run = place.run("same_contrast", "cycle_gan/hybrid", 0)
    program_, folders = start_process(benchmark_of_one_row, str(place.out), str(place.published)), place.published
    program_.wait_for(run.exists)
    program_.process.kill()  # its training goes on alone and keeps the step's lock
    program_.process.join()
    assert not (folders / "fidelity_tiny.json").exists()
    again = start_process(benchmark_of_one_row, str(place.out), str(place.published)).finished()
    assert again.status == 0, again.err
    content = json.loads((folders / "fidelity_tiny.json").read_text())
    assert content["tasks"]["same_contrast"]["rows"]["cycle_gan/hybrid"]["images_seen"] == TINY.lengths.total * 10


# test people, rows ----------------------------------------------------------------------------------------------------


def test_the_test_people_are_not_read_for_a_part_of_the_rows(
    finished: tuple[Place, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    two = replace(TINY, seeds=(0, 1))
    monkeypatch.setitem(BUDGETS, "tiny", two)
    place = Place(shutil.copytree(finished[0].out, tmp_path / "out"), "tiny", tmp_path / "docs")
    for path in [*place.out.rglob("test.json"), *place.out.rglob("lesions.json")]:
        path.unlink()
    launch = InThisProcess()
    options = benchmark_fidelity.options_of(arguments(place, "--models", "classical", "--jobs", "1"))
    assert program.benchmark(options, launch) == 0
    assert not launch.commands and not (place.published / "fidelity_tiny.json").exists()
    assert "the test people are not read" in capsys.readouterr().out
    options = benchmark_fidelity.options_of(arguments(place, "--models", "classical", "--jobs", "1", "--read_test"))
    assert program.benchmark(options, launch) == 0
    assert [phase for command in launch.commands for phase in ("test", LESIONS) if phase in command] == [
        "test",
        LESIONS,
    ]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ("classical", ["classical"]),
        ("cycle_gan", ["cycle_gan"]),
        ("pta_hybrid/no_sgp,identity", ["pta_hybrid/no_sgp", "identity"]),
        ("cut", ["cut/hybrid"]),
    ],
)
def test_rows_by_name(names: str, rows: list[str]) -> None:
    assert program.chosen_rows(names) == rows


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(UserError, match="--models pta: unknown, choose from identity"):
        program.chosen_rows("pta")


def test_tasks_by_name(tmp_path: Path) -> None:
    budget = BUDGETS["small"]
    assert program.chosen_tasks(None, budget) is None
    chosen = program.chosen_tasks("coverage,paper", budget)
    plan = Plan(Place(tmp_path, "small"), budget, ["pta_hybrid"], chosen)
    assert list(plan.units()) == [(task, "pta_hybrid", seed) for seed in (0, 1, 2) for task in ("coverage", "paper")]
    with pytest.raises(UserError, match="--tasks coverege: unknown, choose from same_contrast, coverage, paper"):
        program.chosen_tasks("coverege", budget)
