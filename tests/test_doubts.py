"""Data that can be read but are probably not what was meant: told with file and numbers, and masks are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import train_arguments, write_phantom
from nifti_bytes import SHAPE, encoded, head
from numpy.typing import NDArray

import preprocessing_images
import test as test_program
import train
from data.folder import doubts as folder_doubts
from data.folder.doubts import doubts
from data.folder.slices import write_pixels
from util.errors import UserError

RNG = np.random.default_rng(0)
FULL = np.linspace(0, 1, 32 * 32).reshape(32, 32)


def slices(folder: Path, top: float, dtype: str, n: int = 5) -> Path:
    """n slices with values from 0 to `top`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        pixels = (FULL * top).astype(dtype)
        if dtype == "float32":
            np.save(folder / f"s_{index:03d}.npy", pixels)
        else:
            write_pixels(folder / f"s_{index:03d}.png", pixels)
    return folder


@pytest.mark.parametrize(
    ("top", "dtype", "said"),
    [
        (4095, "uint16", "highest value of 5 slices is 4095, 6.2 % of 65535"),
        (255, "uint16", "highest value of 5 slices is 255, 0.39 % of 65535"),
        (20, "uint8", "highest value of 5 slices is 20, 7.8 % of 255"),
        (0.1, "float32", "highest value of 5 slices is 0.1, 10 % of 1"),
        (65535, "uint16", ""),
        (8192, "uint16", ""),
        (255, "uint8", ""),
        (1.0, "float32", ""),
        (0, "uint16", ""),
    ],
)
def test_slices_that_use_little_of_their_range(tmp_path: Path, top: float, dtype: str, said: str) -> None:
    folder = slices(tmp_path / "trainB", top, dtype)
    found = doubts(tmp_path)
    assert len(found) == bool(said)
    assert all(text.startswith(f"{folder}: the {said}, so they use little of the range; multiply") for text in found)
    assert doubts(tmp_path, ("test",)) == []


def test_12_bit_values_are_told_the_factor(tmp_path: Path) -> None:
    slices(tmp_path / "trainA", 3800, "uint16")
    (said,) = doubts(tmp_path)
    assert said.endswith("every split, by one factor (such as 16)"), "65535 / 4095"


def test_one_bright_slice_is_enough_and_ends_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = slices(tmp_path / "trainA", 4095, "uint16", n=20)
    write_pixels(folder / "s_019.png", (FULL * 65535).astype(np.uint16))
    assert doubts(tmp_path) == []
    write_pixels(folder / "s_010.png", (FULL * 65535).astype(np.uint16))
    read: list[Path] = []
    real = folder_doubts.read_native
    monkeypatch.setattr(folder_doubts, "read_native", lambda path: read.append(path) or real(path))
    assert doubts(tmp_path) == [] and [path.name for path in read] == ["s_010.png"]


def test_files_that_are_ignored_are_counted_by_suffix(tmp_path: Path) -> None:
    folder = slices(tmp_path / "trainA", 65535, "uint16", n=10)
    for name in (*(f"s_{i:03d}.jpg" for i in range(10)), "a.tif", "README", ".hidden"):
        (folder / name).write_bytes(b"x")
    assert doubts(tmp_path) == [
        f"{folder}: ignored 10 of .jpg, 1 of no suffix, 1 of .tif, beside 10 slices; only .png and .npy are read"
    ]


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """A data folder of which trainA and testA hold .jpg files, too, and trainB 12 bits in 16."""
    root = write_phantom(tmp_path / "phantom")
    for split in ("trainA", "testA"):
        (root / split / "x.jpg").write_bytes(b"x")
    for path in sorted((root / "trainB").iterdir()):
        write_pixels(path, (FULL * 4095).astype(np.uint16))
    return root


def test_check_data_of_training_and_test_warns_and_accepts(
    doubtful: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*train_arguments(doubtful, tmp_path / "runs", "lsc"), "--check_data"]) == 0
    shown = capsys.readouterr()
    assert "no bad files" in shown.out
    for folder, said in (("trainA", "ignored 1 of .jpg"), ("testA", "ignored 1 of .jpg"), ("trainB", "4095, 6.2 %")):
        assert any(f"{doubtful / folder}: " in line and said in line for line in shown.err.splitlines()), folder
    arguments = [f"--dataroot={doubtful}", f"--checkpoints_dir={tmp_path}", "--name=x", "--check_data"]
    assert test_program.main(arguments) == 0
    assert "4095, 6.2 %" in capsys.readouterr().err


def test_training_warns_at_its_start(doubtful: Path, tmp_path: Path) -> None:
    assert train.main(train_arguments(doubtful, tmp_path / "runs", "lsc", "--name=x")) == 0
    log = "".join(path.read_text() for path in (tmp_path / "runs/x").glob("log.txt"))
    assert "ignored 1 of .jpg" in log and "4095, 6.2 % of 65535" in log and "testA" not in log


# Volumes --------------------------------------------------------------------------------------------------------------


def run(folder: Path, volume: NDArray, *more: object) -> int:
    (folder / "A").mkdir(exist_ok=True)
    (folder / "A/x.nii").write_bytes(encoded(volume.astype(np.float32)))
    arguments = ("--input_A", folder / "A", "--out", folder / "D", "--workers", 1, *more)
    return preprocessing_images.main([str(argument) for argument in arguments])


def scan() -> NDArray[np.float32]:
    return head() + RNG.random(SHAPE, dtype=np.float32) * 20


X, _, Z = np.indices(SHAPE)
MASKS = {
    "holds only 2 values (0, 1), so it is a mask": (head() > 0) * 1.0,
    "holds only 2 values (-0.5, 0.25), so it is a mask": np.where(head() > 0, 0.25, -0.5),
    "holds only 4 values (0, 1, 2, 3), so it is a label map": (head() > 0) * (1 + X // 7),
    "holds only 7 values (0, 10, 20, 30, 40, ...), so it is a label map": (head() > 0) * (1 + Z) * 10,
}


@pytest.mark.parametrize("said", MASKS)
def test_masks_and_label_maps_are_refused_by_name(
    tmp_path: Path, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as caught:
        run(tmp_path, MASKS[said])
    assert str(caught.value) == f"{tmp_path / 'A/x.nii'}: {said}, need a scan"
    assert run(tmp_path, MASKS[said], "--check_data") == 2
    assert f"x.nii: {said}" in capsys.readouterr().out
    (tmp_path / "A/good.nii").write_bytes(encoded(scan()))
    assert run(tmp_path, MASKS[said], "--skip_bad", "--overwrite") == 0


def test_a_mask_as_truth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "T").mkdir()
    (tmp_path / "T/x.nii").write_bytes(encoded((head() > 0).astype(np.float32)))
    with pytest.raises(UserError, match=r"T/x\.nii: holds only 2 values"):
        run(tmp_path, scan(), "--truth_A", tmp_path / "T")


def bright_air() -> NDArray[np.float32]:
    """A head that is hardly brighter than the air, and one dark corner."""
    volume = (900 + 300 * (head() > 0) + RNG.random(SHAPE) * 20).astype(np.float32)
    volume[0, 0] = 0
    return volume


def hardly_air() -> NDArray[np.float32]:
    """Something that fills the volume but for one dark edge."""
    volume = (1000 + RNG.random(SHAPE) * 20).astype(np.float32)
    volume[0, 0] = 0
    return volume


LABELS = "whole numbers in large areas, is it a label map"
DOUBTFUL = {
    "its head mask covers 98 % of the volume, need air": hardly_air(),
    "no dark air found: the median outside the head mask is 9": bright_air(),
    LABELS: (head() > 0) * (1 + X // 2 + 10 * Z),
}


@pytest.mark.parametrize("said", DOUBTFUL)
def test_doubtful_heads_are_told_and_sliced(tmp_path: Path, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (("--check_data",), ()):
        assert run(tmp_path, DOUBTFUL[said], *more) == 0
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
        assert f"{tmp_path / 'A/x.nii'}: " in line and said in line


def test_nothing_is_said_of_a_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for volume in (scan(), scan().round(), (scan() / 15).round()):
        assert run(tmp_path, volume, "--overwrite") == 0
        assert "warning" not in capsys.readouterr().err


def test_many_doubtful_volumes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = DOUBTFUL[LABELS]
    (tmp_path / "A").mkdir()
    for i in range(11):
        (tmp_path / f"A/v{i}.nii").write_bytes(encoded(volume.astype(np.float32)))
    assert run(tmp_path, volume) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 11 and "2 more volumes are doubtful" in warned[-1]
