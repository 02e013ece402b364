"""One grid in millimetres for A and B: heads keep size and aspect, and come back on the source's own pixels."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

import preprocessing_images
from data.folder.manifest import Manifest, VolumeEntry, read_manifest
from data.folder.slices import read_image, read_mask
from preprocessing.grid import Grid, averaged_slices, from_grid, place_grid, to_grid
from preprocessing.reassembly import assemble
from util.errors import UserError

HEAD_MM = (144.0, 180.0)  # left-right and anterior-posterior, an aspect of 1.25
# shape in the plane and pixel sides: a usual 64 mT grid, two high-field ones, oblong pixels
COARSE, SQUARE, FINE, OBLONG = (
    ((112, 136), (1.6, 1.6)),
    ((256, 256), (1.0, 1.0)),
    ((417, 490), (0.5, 0.5)),
    ((150, 120), (1.2, 1.8)),
)
N_SLICES, APART_MM = 8, 5.0


def head(
    shape: tuple[int, int], sides: tuple[float, float], shift_mm: tuple[float, float] = (6.0, -9.0)
) -> NDArray[np.float32]:
    """An ellipse of `HEAD_MM` in every slice, off the middle, brighter towards a landmark at its right and front."""
    x, y = ((np.arange(n) + 0.5 - n / 2) * side for n, side in zip(shape, sides, strict=True))
    x, y = x[:, None] - shift_mm[0], y[None] - shift_mm[1]
    inside = (2 * x / HEAD_MM[0]) ** 2 + (2 * y / HEAD_MM[1]) ** 2 < 1
    blob = np.exp(-((x - 30) ** 2 + (y - 40) ** 2) / (2 * 8.0**2))
    plane = np.where(inside, 300 + 600 * blob, 0)
    return np.repeat(plane[:, :, None], N_SLICES, axis=2).astype(np.float32)


def save(path: Path, volume: NDArray, sides: tuple[float, ...], order: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Write a RAS volume with voxels of `sides` mm, its axes stored in another `order`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*sides, 1.0])[:, [*order, 3]]
    nibabel.save(nibabel.Nifti1Image(volume.transpose(order), affine), path)
    return path


def preprocess(*arguments: object) -> None:
    assert preprocessing_images.main([str(argument) for argument in (*arguments, "--workers", 1)]) == 0


def manifest_of(dataroot: Path) -> Manifest:
    manifest = read_manifest(dataroot)
    assert manifest is not None
    return manifest


@pytest.fixture
def sliced(tmp_path: Path) -> tuple[Path, list[VolumeEntry]]:
    """A coarse low-field head beside three high-field ones of other grids, all of the same size in mm."""
    save(tmp_path / "A/low.nii", head(*COARSE), (*COARSE[1], APART_MM))
    for name, (shape, sides) in {"square": SQUARE, "fine": FINE, "oblong": OBLONG}.items():
        save(tmp_path / f"B/{name}.nii", head(shape, sides), (*sides, APART_MM), (1, 0, 2))
    preprocess("--input_A", tmp_path / "A", "--input_B", tmp_path / "B", "--all_test", "--out", tmp_path / "D")
    return tmp_path / "D", manifest_of(tmp_path / "D").volumes


def test_heads_of_all_grids_have_one_size_and_aspect(sliced: tuple[Path, list[VolumeEntry]]) -> None:
    dataroot, volumes = sliced
    sizes, shapes = {}, set()
    for volume in volumes:
        mask = read_mask(dataroot / f"{volume.folder}_mask" / volume.slices[3].file)
        shapes.add(mask.shape)
        assert volume.grid is not None
        image = read_image(dataroot / volume.folder / volume.slices[3].file)
        inside = np.minimum(image / np.median(image[mask]), 1)  # edges count by what they cover
        rows, columns = inside.max(1).sum(), inside.max(0).sum()
        sizes[volume.subject] = rows * volume.grid.pixel_mm, columns * volume.grid.pixel_mm
    assert len(shapes) == 1 and len(sizes) == 4
    for rows, columns in sizes.values():
        assert abs(rows / HEAD_MM[1] - 1) < 0.01 and abs(columns / HEAD_MM[0] - 1) < 0.01, sizes
        assert abs(rows / columns / 1.25 - 1) < 0.01


def test_landmarks_come_back_on_the_sources_own_pixels(tmp_path: Path, sliced: tuple[Path, list[VolumeEntry]]) -> None:
    dataroot, volumes = sliced
    for volume in volumes:
        slices = {row.index: read_image(dataroot / volume.folder / row.file) for row in volume.slices}
        back = assemble(volume, slices)
        source = nibabel.Nifti1Image.from_filename(tmp_path / volume.domain / volume.source)
        assert back.shape == source.shape and (back.affine == source.affine).all()
        low, high = volume.window
        shown = np.clip((source.get_fdata() - low) / (high - low), 0, 1)
        assert np.abs(landmark(back.get_fdata()[..., 3]) - landmark(shown[..., 3])).max() < 0.1


def landmark(plane: NDArray) -> NDArray:
    """Where the blob is: the centre of mass of what is brighter than the head around it, in pixels."""
    weight = np.clip(plane - 0.6, 0, None)
    assert weight.sum() > 0
    return np.array([(weight * axis).sum() / weight.sum() for axis in np.indices(plane.shape)])


def test_pixels_are_moved_and_not_interpolated_where_both_grids_have_their_size() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((61, 50, 3), bool)
    mask[20:51, 3:40] = True
    entry = place_grid(Grid(1.0004, 64), mask, 2, (1.0, 1.0, 5.0))
    image = rng.random((50, 61)).astype(np.float32)
    shown = to_grid(image, entry)
    assert set(shown.ravel().tolist()) <= {0.0, *image.ravel().tolist()}
    rows, columns = np.nonzero(to_grid(np.flipud(mask[:, :, 0].T).astype(np.float32), entry))
    assert abs(rows.mean() - 31.5) <= 0.5 and abs(columns.mean() - 31.5) <= 0.5
    back = from_grid(shown, entry, (50, 61))
    kept = back != 0
    assert kept.mean() > 0.9 and (back[kept] == image[kept]).all()


def test_coarser_pixels_do_not_alias() -> None:
    """Stripes finer than the grid's pixels become their mean."""
    stripes = np.tile([0.0, 1.0], (200, 100)).astype(np.float32)
    mask = np.ones((200, 200, 1), bool)
    shown = to_grid(stripes, place_grid(Grid(3.7, 40), mask, 2, (1.0, 1.0, 5.0)))
    assert np.abs(shown[5:-5, 5:-5] - 0.5).max() < 0.03


def test_pixels_and_field_of_view_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "A/low.nii", head(*COARSE), (*COARSE[1], APART_MM))
    preprocess("--input_A", tmp_path / "A", "--all_test", "--pixel_mm", 2, "--fov_mm", 200, "--out", tmp_path / "D")
    assert "200 x 200 mm in 100 x 100 pixels of 2 mm" in capsys.readouterr().out
    (volume,) = manifest_of(tmp_path / "D").volumes
    assert read_image(tmp_path / "D/testA" / volume.slices[0].file).shape == (100, 100)
    with pytest.raises(UserError, match=r"--pixel_mm 19 and --fov_mm 200 make slices of 12 pixels a side"):
        preprocess("--input_A", tmp_path / "A", "--pixel_mm", 19, "--fov_mm", 200, "--out", tmp_path / "E")
    preprocess("--input_A", tmp_path / "A", "--all_test", "--fov_mm", 120, "--out", tmp_path / "F")
    assert "of its head lie outside the field of view of 121.6 mm" in capsys.readouterr().err


def cube(sides: tuple[float, float, float]) -> NDArray[np.float32]:
    """A ball of 130 mm in a volume of 160 mm."""
    axes = [(np.arange(round(160 / side)) + 0.5) * side - 80 for side in sides]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.where(x**2 + y**2 + z**2 < 65**2, 500 + x + 2 * y, 0).astype(np.float32)


AXIAL, SAGITTAL, CORONAL, NEARLY_CUBIC = (2.0, 2.0, 8.0), (8.0, 2.0, 2.0), (2.0, 8.0, 2.0), (2.4, 1.88, 1.88)


def test_nearly_cubic_volumes_follow_the_others(tmp_path: Path) -> None:
    save(tmp_path / "A/low.nii", cube(AXIAL), AXIAL)
    save(tmp_path / "B/high.nii", cube(NEARLY_CUBIC), NEARLY_CUBIC)
    preprocess("--input_A", tmp_path / "A", "--input_B", tmp_path / "B", "--all_test", "--out", tmp_path / "D")
    assert {volume.slice_axis for volume in manifest_of(tmp_path / "D").volumes} == {2}
    preprocess("--input_A", tmp_path / "B", "--all_test", "--out", tmp_path / "E")  # alone, their thickest side decides
    assert [volume.slice_axis for volume in manifest_of(tmp_path / "E").volumes] == [0]


def test_planes_of_one_person_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, sides in {"p1_axi": AXIAL, "p1_sag": SAGITTAL, "p1_cor": CORONAL, "p2_axi": AXIAL}.items():
        save(tmp_path / f"A/{name}.nii", cube(sides), sides)
    with pytest.raises(UserError, match=r"2 of 4 files cannot be used: .*p1_cor\.nii: its slices are coronal, along A"):
        preprocess("--input_A", tmp_path / "A", "--out", tmp_path / "D")
    preprocess("--input_A", tmp_path / "A", "--all_test", "--skip_bad", "--out", tmp_path / "E")
    assert [volume.subject for volume in manifest_of(tmp_path / "E").volumes] == ["p1_axi", "p2_axi"]
    capsys.readouterr()
    preprocess("--input_A", tmp_path / "A", "--all_test", "--slice_axis", "S", "--out", tmp_path / "F")
    assert "2 volumes of thick or few slices are cut across these, axial" in capsys.readouterr().out
    assert len(manifest_of(tmp_path / "F").volumes) == 4


def test_other_distances_of_slices_are_told_and_averaged_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thin = (2.0, 2.0, 2.5)
    save(tmp_path / "A/low.nii", cube(AXIAL), AXIAL)
    save(tmp_path / "B/high.nii", cube(thin), thin)
    command = ("--input_A", tmp_path / "A", "--input_B", tmp_path / "B", "--all_test", "--out")
    preprocess(*command, tmp_path / "D")
    assert "8 mm apart in A and 2.5 mm in B" in capsys.readouterr().out
    preprocess(*command, tmp_path / "E", "--thickness_mm", 8)
    assert "slices of B (2.5 mm apart) are averaged over 8 mm" in capsys.readouterr().out
    low, high = manifest_of(tmp_path / "E").volumes
    assert (low.thickness_mm, high.thickness_mm) == (None, 8)
    # 3.2 slices: three whole ones, and a tenth of their neighbours
    spike = np.zeros((1, 1, 9), np.float32)
    spike[..., 4] = 1
    averaged = averaged_slices(spike, 2, 2.5, 8.0)[0, 0]
    assert np.allclose(averaged, np.array([0, 0, 0.1, 1, 1, 1, 0.1, 0, 0]) / 3.2, atol=1e-6)


def test_a_test_folder_is_sliced_like_the_training(tmp_path: Path) -> None:
    save(tmp_path / "A/low.nii", cube(AXIAL), AXIAL)
    save(tmp_path / "B/high.nii", cube(NEARLY_CUBIC), NEARLY_CUBIC)
    preprocess("--input_A", tmp_path / "A", "--input_B", tmp_path / "B", "--all_test", "--out", tmp_path / "D")
    wanted = manifest_of(tmp_path / "D")
    preprocess("--input_A", tmp_path / "B", "--all_test", "--like", tmp_path / "D", "--out", tmp_path / "E")
    (volume,) = manifest_of(tmp_path / "E").volumes
    assert volume.slice_axis == 2 and volume.grid is not None and wanted.volumes[0].grid is not None
    assert (volume.grid.pixel_mm, volume.grid.size) == (wanted.volumes[0].grid.pixel_mm, wanted.volumes[0].grid.size)
    with pytest.raises(UserError, match="--pixel_mm"):
        preprocess("--input_A", tmp_path / "B", "--like", tmp_path / "D", "--pixel_mm", 1, "--out", tmp_path / "F")
    with pytest.raises(UserError, match=r"--like .*: no manifest\.json"):
        preprocess("--input_A", tmp_path / "B", "--like", tmp_path / "A", "--out", tmp_path / "F")


def test_a_truth_lies_on_the_grid_of_its_volume(tmp_path: Path) -> None:
    save(tmp_path / "A/s.nii", head(*COARSE), (*COARSE[1], APART_MM))
    save(tmp_path / "T/s.nii", head(*COARSE) * 2, (*COARSE[1], APART_MM))
    preprocess(
        "--input_A", tmp_path / "A", "--truth_A", tmp_path / "T", "--all_test", "--pixel_mm", 1, "--out", tmp_path / "D"
    )
    (volume,) = manifest_of(tmp_path / "D").volumes
    for row in volume.slices:
        image, truth = (read_image(tmp_path / f"D/testA{kind}" / row.file) for kind in ("", "_truth"))
        assert image.shape == truth.shape and np.abs(image - truth).max() < 1e-3
