"""Slices of A and B, or of a run and of a test, that show heads at another size are told; another plane is refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from data.cache.slice_cache import SliceCache
from data.folder.manifest import GridEntry, Placement
from data.folder.slices import slice_name, write_image, write_mask
from data.scale import (
    SliceScale,
    as_json,
    check_like_training,
    differences,
    head_size,
    scales,
    trained_scales,
    unlike_domains,
)
from data.unaligned_dataset import UnalignedMaskDataset
from data.unaligned_options import UnalignedOptions
from util.errors import UserError

Size = tuple[int, int]
SQUARE, WIDE = (96, 96), (96, 60)


def write_slices(folder: Path, shape: Size, head: Size) -> None:
    """Two subjects with three slices, each with a bright ellipse of `head` rows and columns."""
    y, x = (np.arange(n) + 0.5 - n / 2 for n in shape)
    mask = (2 * y[:, None] / head[0]) ** 2 + (2 * x[None] / head[1]) ** 2 < 1
    for name in ("", "_mask"):
        folder.with_name(folder.name + name).mkdir(parents=True)
    for subject in ("a", "b"):
        for index in range(3):
            name = slice_name(f"{subject}{folder.name[-1]}", index)
            write_image(folder / name, np.where(mask, np.float32(0.7), np.float32(0)), 8)
            write_mask(folder.with_name(folder.name + "_mask") / name, mask)


def dataset(root: Path, A: tuple[Size, Size], B: tuple[Size, Size], preprocess: str) -> UnalignedMaskDataset:
    for domain, (shape, head) in (("A", A), ("B", B)):
        write_slices(root / f"D/train{domain}", shape, head)
    options = UnalignedOptions(load_size=96, preprocess=preprocess)
    return UnalignedMaskDataset(SliceCache(root / "D", root / "cache"), options)


def test_heads_of_another_shape_are_told_with_the_numbers(tmp_path: Path) -> None:
    stretched = dataset(tmp_path, (WIDE, (70, 50)), (SQUARE, (70, 50)), "resize")
    said = unlike_domains(stretched, [])
    assert "heads of 65 x 75 pixels (aspect 0.87) in A and 65 x 47 (1.39) in B" in said  # but for their outermost 1 %
    assert "--preprocess resize stretches slices of A" in said and said.count(".") == 3


def test_padding_keeps_them_alike(tmp_path: Path) -> None:
    padded = dataset(tmp_path, (WIDE, (70, 50)), (SQUARE, (70, 50)), "pad_and_resize")
    assert unlike_domains(padded, []) == ""
    height, width = head_size(padded, padded.A)
    assert abs(height / width - 70 / 50) < 0.03 and 0.9 * 70 < height < 70


def test_larger_heads_are_told(tmp_path: Path) -> None:
    assert "in A and" in unlike_domains(dataset(tmp_path, (SQUARE, (60, 48)), (SQUARE, (80, 64)), "resize"), [])


def placement(split: str, domain: str, *, axis: int = 2, pixel: float = 1.0, apart: float = 5.0) -> Placement:
    grid = GridEntry(pixel, [240, 240], [0, 0, 240, 240])
    return Placement(split, domain, [apart if axis == other else pixel for other in range(3)], axis, grid)


def test_millimetres_are_compared_where_they_are_known(tmp_path: Path) -> None:
    same = dataset(tmp_path, (SQUARE, (70, 50)), (SQUARE, (70, 50)), "resize")
    assert unlike_domains(same, [placement("train", "A"), placement("train", "B", apart=5.5)]) == ""
    said = unlike_domains(same, [placement("train", "A"), placement("train", "B", pixel=0.9, apart=1.0)])
    assert "slices show 240 mm in A and 216 mm in B" in said and "5 mm apart in A and 1 mm in B" in said
    said = unlike_domains(same, [placement("train", "A"), placement("train", "B", axis=0)])
    assert "slices are axial in A and sagittal in B" in said
    old = Placement("train", "A", [1, 1, 5], 2)  # a manifest of an earlier version
    assert scales([old, placement("train", "B")], "train") == {"B": SliceScale(2, 240.0, 5.0, 1.0)}


def test_pixel_and_thickness_are_known_where_slices_were_averaged() -> None:
    thin = placement("train", "A", pixel=0.9, apart=1.0)
    averaged = Placement(thin.split, thin.domain, thin.spacing_mm, thin.slice_axis, thin.grid, thickness_mm=5.0)
    assert scales([thin], "train")["A"] == SliceScale(2, 216.0, 1.0, 0.9)
    assert scales([averaged], "train")["A"] == SliceScale(2, 216.0, 5.0, 0.9, 5.0)


def written(folder: Path, volumes: list[Placement]) -> Path:
    """A data folder with no more of a manifest than what is compared."""
    folder.mkdir()
    rows = [
        {
            "split": v.split, "domain": v.domain, "spacing_mm": v.spacing_mm, "slice_axis": v.slice_axis,
            "grid": None if v.grid is None else {"pixel_mm": v.grid.pixel_mm, "size": v.grid.size, "box": v.grid.box},
        }
        for v in volumes
    ]  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({"volumes": rows}))
    return folder


def test_a_test_on_another_scale_is_told_and_on_another_plane_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"slices": as_json(scales([placement("train", "A")], "train"))}))
    assert trained_scales(run) == {"A": SliceScale(2, 240.0, 5.0, 1.0)} and trained_scales(tmp_path) == {}
    check_like_training(run, written(tmp_path / "same", [placement("test", "A")]), "test", "A")
    assert capsys.readouterr().err == ""
    check_like_training(run, written(tmp_path / "other", [placement("test", "A", pixel=0.8)]), "test", "A")
    assert "240 mm in the training of run and 192 mm in testA; --like" in capsys.readouterr().err
    with pytest.raises(UserError, match="axial in the training of run and coronal in testA"):
        check_like_training(run, written(tmp_path / "plane", [placement("test", "A", axis=1)]), "test", "A")


def test_any_distance_that_the_training_had_is_no_difference() -> None:
    mixed = scales([placement("train", "A", apart=apart) for apart in (4.0, 7.0, 10.0)], "train")["A"]
    assert mixed.apart_mm == 7 and mixed.apart_range_mm == (4.0, 10.0)
    for apart, told in ((4.5, 0), (9.5, 0), (11.0, 0), (14.0, 1), (2.0, 1)):
        tested = scales([placement("test", "A", apart=apart)], "test")["A"]
        found = differences(mixed, tested, ("the training", "the test"))
        assert found == [f"slices are 4 to 10 mm apart in the training and {apart:g} mm in the test"] * told
    assert msgspec.convert(as_json({"A": mixed}), dict[str, SliceScale]) == {"A": mixed}
