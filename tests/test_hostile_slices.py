"""Slice files that anybody may have written: read, or refused in one sentence, within bounds of time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import hostile_slices
import numpy as np
import pytest

from data.folder.masks import head_mask_slice
from data.folder.slices import read_image, read_mask
from util.errors import UserError
from util.reading import lies_in, read_bounded

ROOT = Path(__file__).resolve().parent.parent
SECONDS, MEGABYTES = 5, 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files, hostile and odd."""
    root = tmp_path_factory.mktemp("slices")
    for name, (content, _) in (hostile_slices.refused(root) | hostile_slices.readable(root)).items():
        (root / name).write_bytes(content)
    return root


def test_hostile_files_are_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    cases = hostile_slices.refused(tmp_path)
    assert len(cases) >= 40
    for name, (_, part) in cases.items():
        start = time.process_time()
        with pytest.raises(UserError) as caught:
            read_image(folder / name)
        message = str(caught.value)
        assert message.startswith(f"{folder / name}: ") and part in message, message
        assert "\n" not in message and len(message) < 400
        assert time.process_time() - start < SECONDS, name


def test_odd_files_are_read(folder: Path, tmp_path: Path) -> None:
    for name, (_, mean) in hostile_slices.readable(tmp_path).items():
        image = read_image(folder / name)
        assert image.dtype == np.float32 and image.mean() == pytest.approx(mean, abs=1e-4), name
    assert np.array_equal(read_image(folder / "fortran.npy"), np.eye(5))


def test_no_file_takes_a_gigabyte_or_five_seconds(folder: Path) -> None:
    """Every file in one fresh process, as image and as mask; what is read is given to the mask finder too."""
    programme = """
import json, resource, sys, time
from pathlib import Path
from data.folder.masks import head_mask_slice
from data.folder.slices import read_image, read_mask
from util.errors import UserError
before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, (0, "")
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    for read in (read_image, read_mask):
        try:
            levels = read(path)
            if read is read_image:
                head_mask_slice(levels)
        except UserError:
            pass
    slowest = max(slowest, (time.process_time() - start, path.name))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"mb": (after - before) / 1024, "slowest": slowest}))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", programme, folder], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    figures = json.loads(done.stdout)
    assert figures["mb"] < MEGABYTES, figures
    assert figures["slowest"][0] < SECONDS, figures


def test_masks_of_nan_are_refused_and_constant_ones_are_masks(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds NaN"):
        read_mask(folder / "nan.npy")
    for value in (0, 1):
        np.save(tmp_path / "mask.npy", np.full((6, 5), value, dtype=np.uint8))
        assert (read_mask(tmp_path / "mask.npy") == bool(value)).all()


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_slice_has_no_head(value: float) -> None:
    assert not head_mask_slice(np.full((20, 24), value, dtype=np.float32)).any()


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "absent")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match="cannot be read"):
            read_image(path)


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(11))
    assert read_bounded(tmp_path / "file", 11) == bytes(11)
    with pytest.raises(UserError, match="11 bytes, at most 10"):
        read_bounded(tmp_path / "file", 10)
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="at most"):
        read_image(tmp_path / "sparse.png")


def test_links_are_followed_to_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "out").symlink_to(tmp_path)
    (tmp_path / "data" / "in").symlink_to(tmp_path / "data" / "inner")
    assert lies_in(tmp_path / "data" / "in" / "x", tmp_path / "data")
    assert not lies_in(tmp_path / "data" / "out" / "x", tmp_path / "data")
    assert not lies_in(tmp_path / "data" / ".." / "x", tmp_path / "data")
