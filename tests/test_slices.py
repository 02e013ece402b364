"""Slice files: values, names, orientation, and refusals that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.folder.slices import (
    from_image,
    parse_name,
    read_image,
    read_mask,
    read_pixels,
    slice_name,
    to_image,
    write_image,
    write_mask,
    write_pixels,
)
from util.errors import UserError


@pytest.mark.parametrize(("bits", "step"), [(8, 1 / 255), (16, 1 / 65535)])
def test_written_image_comes_back_within_half_a_step(tmp_path: Path, bits: int, step: float) -> None:
    image = np.random.default_rng(0).random((7, 5), dtype=np.float32)
    write_image(tmp_path / "a.png", image, bits)
    back = read_image(tmp_path / "a.png")
    assert back.shape == (7, 5) and back.dtype == np.float32
    assert np.abs(back - image).max() <= 0.5 * step + 1e-7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 7), (64, 300)])
def test_levels_are_pngs_that_others_read(tmp_path: Path, dtype: type, shape: tuple[int, int]) -> None:
    """Pillow checks every chunk's checksum and undoes the filter."""
    top, rng = np.iinfo(dtype).max, np.random.default_rng(0)
    smooth = (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * 97 % (top + 1)).astype(dtype)
    for levels in (rng.integers(0, top, shape, endpoint=True).astype(dtype), smooth, np.asfortranarray(smooth)):
        write_pixels(tmp_path / "a.png", levels)
        with Image.open(tmp_path / "a.png") as image:
            assert image.mode in ("L", "I;16")
            np.testing.assert_array_equal(np.asarray(image), levels)
        np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), levels)


@pytest.mark.parametrize("levels", [np.zeros((2, 2)), np.zeros((2, 2), np.int16), np.zeros((2, 2, 3), np.uint8)])
def test_what_is_no_grey_plane_is_not_written(tmp_path: Path, levels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="need"):
        write_pixels(tmp_path / "a.png", levels)
    assert not (tmp_path / "a.png").exists()


def test_ends_of_the_range_are_exact(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[0.0, 1.0]], dtype=np.float32), 16)
    assert read_image(tmp_path / "a.png").tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_values_outside_the_range_are_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="need \\[0, 1\\]"):
        write_image(tmp_path / "a.png", np.full((2, 2), value, dtype=np.float32), 16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_levels_are_stored_as_they_are(tmp_path: Path, dtype: type) -> None:
    levels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (9, 13), dtype=dtype, endpoint=True)
    levels[4:] = 0
    write_pixels(tmp_path / "a.png", levels)
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (13, 9)
        assert (np.asarray(image) == levels).all()


def test_mask_is_stored_as_0_and_255_and_read_from_any_nonzero(tmp_path: Path) -> None:
    mask = np.eye(4, dtype=bool)
    write_mask(tmp_path / "a.png", mask)
    assert set(np.asarray(Image.open(tmp_path / "a.png")).ravel()) == {0, 255}
    assert (read_mask(tmp_path / "a.png") == mask).all()
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "b.png")
    assert (read_mask(tmp_path / "b.png") == mask).all()


def test_anterior_is_up_and_right_is_right() -> None:
    plane = np.zeros((4, 6))  # axes: towards right, towards anterior
    plane[3, 0], plane[0, 5] = 1, 2
    image = to_image(plane)
    assert image.shape == (6, 4)
    assert image[5, 3] == 1  # most right, least anterior: bottom right
    assert image[0, 0] == 2
    assert (from_image(image) == plane).all()


@pytest.mark.parametrize(
    ("stem", "parsed"),
    [
        ("sub-01_003", ("sub-01", 3)),
        ("a_b_012", ("a_b", 12)),
        ("case7", ("case", 7)),
        ("0042", ("subject", 42)),
        ("x", ("x", 0)),
    ],
)
def test_names_are_taken_apart(stem: str, parsed: tuple[str, int]) -> None:
    assert parse_name(stem) == parsed


def test_names_are_put_together_for_any_file_system() -> None:
    assert slice_name("sub 01/ä", 3) == "sub-01--_003.png"
    assert not slice_name("../x", 0).startswith(".")
    assert parse_name(Path(slice_name("sub_01", 1234)).stem) == ("sub_01", 1234)


def test_hand_made_kinds_are_read(tmp_path: Path) -> None:
    grey = np.array([[0, 51], [102, 255]], dtype=np.uint8)
    want = grey / np.float32(255)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "rgb.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey).convert("LA").save(tmp_path / "alpha.png")
    np.save(tmp_path / "integer.npy", grey)
    np.save(tmp_path / "float.npy", want.astype(np.float64))
    for path in tmp_path.iterdir():
        assert np.allclose(read_image(path), want, atol=1e-6), path.name


def _bad_files(folder: Path) -> dict[str, str]:
    """File name to a part of the message it must cause."""
    (folder / "text.png").write_text("not a picture")
    write_pixels(folder / "short.png", np.zeros((64, 64), dtype=np.uint16))
    (folder / "short.png").write_bytes((folder / "short.png").read_bytes()[:60])
    (folder / "other.jpg").write_bytes(b"x")
    (folder / "object.npy").write_bytes(b"x")
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)).save(folder / "colour.png")
    np.save(folder / "volume.npy", np.zeros((2, 3, 4), dtype=np.uint8))
    np.save(folder / "empty.npy", np.zeros((0, 4), dtype=np.uint8))
    np.save(folder / "range.npy", np.full((2, 2), 7.0))
    np.save(folder / "nan.npy", np.full((2, 2), np.nan))
    np.save(folder / "complex.npy", np.zeros((2, 2), dtype=complex))
    return {
        "text.png": "cannot be read",
        "short.png": "cannot be read",
        "other.jpg": "png or .npy",
        "object.npy": "cannot be read",
        "colour.png": "grey",
        "volume.npy": "grey",
        "empty.npy": "grey",
        "range.npy": "[0, 1]",
        "nan.npy": "[0, 1]",
        "complex.npy": "complex",
        "absent.png": "cannot be read",
    }


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    for name, part in _bad_files(tmp_path).items():
        with pytest.raises(UserError) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and part in str(caught.value)
        assert "\n" not in str(caught.value)
