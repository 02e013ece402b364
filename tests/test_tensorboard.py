"""Event files for TensorBoard, read back by its own reader: they hold what loss_log.csv holds, also after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import train_arguments
from running import run

import train
from options.display_options import DisplayOptions
from training.log import tensorboard_log
from training.log.loss_log import FIXED
from training.log.run_log import RunLog
from util.errors import UserError

OPTIONS = DisplayOptions(tensorboard=True, html=False)


def events(run_dir: Path, stage: str) -> Any:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(run_dir / "tensorboard" / stage), {"images": 0, "scalars": 0})
    found.Reload()
    return found


def scalars(run_dir: Path, stage: str, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run_dir, stage).Scalars(tag)]


def train_steps(log: RunLog, stage: str, steps: range, scale: float = 1.0) -> None:
    log.stage(stage, steps.stop - 1, steps.start - 1)
    for step in steps:
        log.advance(2)
        log.losses(1, step, {"D_A": scale * step}, 0.5)
        log.images(1, step, {"fake_B": torch.full((2, 1, 8, 8), -1 + step / 8)})


@pytest.fixture
def tensorboard() -> None:
    pytest.importorskip("tensorboard")


@pytest.mark.usefixtures("tensorboard")
def test_losses_pace_validation_and_images_of_each_stage(tmp_path: Path) -> None:
    log = RunLog(tmp_path, OPTIONS, console=False)
    train_steps(log, "sgp", range(1, 3))
    train_steps(log, "gan", range(1, 4))
    log.validation(1, 3, {"psnr": 21.5})
    assert scalars(tmp_path, "gan", "loss/D_A") == [(1, 1), (2, 2), (3, 3)]  # also before the run has ended
    log.close()
    assert scalars(tmp_path, "sgp", "loss/D_A") == [(1, 1), (2, 2)]
    assert scalars(tmp_path, "gan", "pace/lr") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert len(scalars(tmp_path, "gan", "pace/images_per_s")) == 3
    assert scalars(tmp_path, "gan", "validation/val_psnr") == [(3, 21.5)]
    pictures = events(tmp_path, "gan").Images("samples/fake_B")
    assert [picture.step for picture in pictures] == [1, 2, 3]
    assert pictures[0].encoded_image_string.startswith(b"\x89PNG")


@pytest.mark.usefixtures("tensorboard")
def test_a_resumed_run_goes_on_from_its_step(tmp_path: Path) -> None:
    """What came after the step is void, later stages are gone, earlier ones stay."""
    log = RunLog(tmp_path, OPTIONS, console=False)
    train_steps(log, "sgp", range(1, 3))
    train_steps(log, "gan", range(1, 6))
    train_steps(log, "refine", range(1, 3))
    log.close()
    again = RunLog(tmp_path, OPTIONS, console=False)
    again.resume("gan", 3)
    train_steps(again, "gan", range(4, 7), scale=10)
    again.close()
    assert scalars(tmp_path, "sgp", "loss/D_A") == [(1, 1), (2, 2)]
    assert scalars(tmp_path, "gan", "loss/D_A") == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60)]
    assert [picture.step for picture in events(tmp_path, "gan").Images("samples/fake_B")] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "tensorboard" / "refine").exists()


@pytest.mark.usefixtures("tensorboard")
def test_a_run_that_had_no_event_files_gets_its_past_from_the_loss_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path, DisplayOptions(html=False), console=False)
    train_steps(log, "sgp", range(1, 3))
    train_steps(log, "gan", range(1, 4))
    log.close()
    again = RunLog(tmp_path, OPTIONS, console=False)
    again.resume("gan", 2)
    train_steps(again, "gan", range(3, 5))
    again.close()
    assert scalars(tmp_path, "sgp", "loss/D_A") == [(1, 1), (2, 2)]
    assert scalars(tmp_path, "gan", "loss/D_A") == [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.usefixtures("tensorboard")
def test_a_new_run_of_the_name_removes_the_files_of_the_old_one_and_no_others(tmp_path: Path) -> None:
    log = RunLog(tmp_path, OPTIONS, console=False)
    train_steps(log, "sgp", range(1, 3))
    log.close()
    (tmp_path / "tensorboard" / "notes").mkdir()
    (tmp_path / "tensorboard" / "notes" / "mine.txt").write_text("keep")
    anew = RunLog(tmp_path, OPTIONS, console=False)
    train_steps(anew, "gan", range(1, 2))
    anew.close()
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == ["gan", "notes"]
    assert (tmp_path / "tensorboard" / "notes" / "mine.txt").read_text() == "keep"


@pytest.mark.usefixtures("tensorboard")
def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    log = RunLog(tmp_path, OPTIONS, console=False)
    train_steps(log, "gan", range(1, 4))
    log.close()
    told = [line for line in (tmp_path / "log.txt").read_text().splitlines() if "warning: " in line]
    assert 1 <= len(told) <= 3 and all("(TensorBoard)" in line and "training continues" in line for line in told)
    assert len((tmp_path / "loss_log.csv").read_text().splitlines()) == 4


@pytest.mark.usefixtures("tensorboard")
def test_the_command_line_writes_what_the_loss_log_has(phantom: Path, tmp_path: Path) -> None:
    arguments = train_arguments(phantom, tmp_path, "lsc", "--name=run", "--tensorboard", "--print_freq=1")
    done = run("train.py", *arguments)
    assert done.status == 0, done.err
    assert f"watch it: tensorboard --logdir {tmp_path / 'run' / 'tensorboard'}" in done.out
    header, *lines = (tmp_path / "run" / "loss_log.csv").read_text().splitlines()
    names = header.split(",")
    kept = [dict(zip(names, line.split(","), strict=True)) for line in lines]
    losses = [name for name in names if name not in FIXED and not name.startswith("val_")]
    assert losses and all(row["lr"] for row in kept if row["images_per_s"])
    for name in losses:
        expected = [(int(row["step"]), float(row[name])) for row in kept if row[name]]
        written = scalars(tmp_path / "run", "lsc", f"loss/{name}")
        assert [step for step, _ in written] == [step for step, _ in expected]
        assert [value for _, value in written] == pytest.approx([value for _, value in expected], rel=1e-5)


def test_a_missing_package_is_one_sentence_before_there_is_a_run_folder(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard_log.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--tensorboard needs the package tensorboard; install it with"):
        train.main(train_arguments(phantom, tmp_path / "out", "lsc", "--name=run", "--tensorboard"))
    assert not (tmp_path / "out").exists()
