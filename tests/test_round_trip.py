"""From the slices' grid to that of the network and back, nothing moves: landmarks, edges, masks and air."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from test_testing import make_run, run_test
from torch import Tensor

from data.folder.manifest import Manifest, SliceEntry, VolumeEntry, write_manifest
from data.folder.slices import from_image, read_image, slice_name, write_image, write_mask
from data.raw_batch import RawGroup
from data.transforms import TrainTransform, to_native, to_network
from data.unaligned_options import PAD, PREPROCESS, resizes
from evaluation.predict import Device, MirrorAverage, NetworkGrid, embed, synthesise
from evaluation.subjects import SubjectSlices
from models.generator_pair import GeneratorPair

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

MOVED_PX = 0.1  # how far a landmark may come back from its place, in pixels of the slice
SHAPES = [(64, 64), (128, 128), (143, 143), (256, 256), (50, 44), (44, 50), (61, 47), (180, 144), (112, 257)]
LOAD_SIZES = (64, 128, 143)
MULTIPLES = (1, 4, 16, 128, 256)  # of the generators
WAYS = [  # to the network; without resizing, --load_size plays no part
    (preprocess, load_size, multiple)
    for preprocess in PREPROCESS
    for load_size in (LOAD_SIZES if resizes(preprocess) else LOAD_SIZES[:1])
    for multiple in MULTIPLES
]
PLACES = [(0.5, 0.5), (0.3, 0.62), (0.08, 0.1), (0.93, 0.9), (0.5, 0.03), (0.98, 0.4)]  # of the height and the width
CPU = Device(torch.device("cpu"), batch_size=4)


class Identity:
    """A generator that gives back what it is given, of sides that its layers could take."""

    def __init__(self, multiple: int = 1) -> None:
        self.multiple = multiple

    def synthesise(self, real_A: Tensor) -> Tensor:
        assert all(side % self.multiple == 0 for side in real_A.shape[-2:])
        return real_A

    def embed(self, images: Tensor, domain: str) -> Tensor:
        return torch.tensor([[float(side) for side in images.shape[-2:]]] * len(images))


def grid(shape: tuple[int, int]) -> tuple[Floats, Floats]:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return y, x


def blob(shape: tuple[int, int], place: tuple[float, float]) -> Floats:
    """A smooth spot of light, cut off where the slice ends."""
    (y, x), (height, width) = grid(shape), shape
    away = ((y / height - place[0]) / 0.06) ** 2 + ((x / width - place[1]) / 0.06) ** 2
    return (0.9 * np.exp(-away / 2)).astype(np.float32)


def ellipse(shape: tuple[int, int], place: tuple[float, float] = (0.48, 0.53), size: float = 0.31) -> Mask:
    """A head with a sharp rim, off the middle."""
    (y, x), (height, width) = grid(shape), shape
    return ((y - height * place[0]) / height) ** 2 + ((x - width * place[1]) / width) ** 2 < size**2


def centre(image: NDArray) -> NDArray[np.float64]:
    """The centre of mass in pixels, row and column."""
    weights = np.asarray(image, dtype=np.float64)
    return np.array([(weights * axis).sum() for axis in grid(image.shape)]) / weights.sum()


def crossing(profile: Floats, level: float) -> float:
    """Where a rising or falling profile goes through `level`, in pixels."""
    (before,) = np.flatnonzero(np.diff(profile > level))
    return float(before + (level - profile[before]) / (profile[before + 1] - profile[before]))


def there_and_back(
    image: Floats, mask: Mask, preprocess: str, load_size: int, multiple: int, *, mirrored: bool = False
) -> Floats:
    """The synthesis of one slice by the identity, as `test.py` does it."""
    n = np.zeros(1, dtype=np.float32)
    volume = SubjectSlices("s", ["s_000"], np.zeros(1, dtype=np.int64), n, None, image[None], mask[None])
    model = Identity(multiple)
    settings = NetworkGrid(preprocess=preprocess, load_size=load_size, multiple=multiple)
    return synthesise(MirrorAverage(model) if mirrored else model, volume, settings, CPU)[0]


@pytest.mark.parametrize(("preprocess", "load_size", "multiple"), WAYS)
def test_a_landmark_comes_back_to_its_place(preprocess: str, load_size: int, multiple: int) -> None:
    """Smooth spots anywhere, at the border too, in slices of any shape, averaged with the mirror image or not."""
    for shape in SHAPES:
        everything = np.ones(shape, dtype=bool)
        for i, place in enumerate(PLACES):
            image = blob(shape, place)
            back = there_and_back(image, everything, preprocess, load_size, multiple, mirrored=i % 2 == 1)
            assert back.shape == shape and back.dtype == np.float32
            moved = np.abs(centre(back) - centre(image)).max()
            reduced = (
                max(shape) / load_size if preprocess == PAD else 1.0
            )  # spots are oblong, and up to 4 times smaller
            assert moved < MOVED_PX * max(1.0, reduced / 2), (shape, place, moved)
            assert back.sum() == pytest.approx(image.sum(), rel=0.02)
            if not resizes(preprocess) or shape == (load_size, load_size):
                np.testing.assert_allclose(back, image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("preprocess", "load_size", "multiple"), WAYS)
def test_edges_near_the_border_stay_where_they_are(preprocess: str, load_size: int, multiple: int) -> None:
    """A bright rim along each side of the slice: its inner edge does not move, and it still reaches the border."""
    for shape in SHAPES:
        for axis, side in enumerate(shape):
            if preprocess == PAD and side < max(shape):
                continue  # along this axis the rim borders on padding, and the two mix
            place = grid(shape)[axis]
            for distance in (place, side - 1 - place):
                edge, width = 0.09 * side + 0.4, 0.02 * side
                image = (0.8 / (1 + np.exp((distance - edge) / width))).astype(np.float32)
                back = there_and_back(image, np.ones(shape, dtype=bool), preprocess, load_size, multiple)
                rim = 3 if preprocess == PAD else 0
                lines = (np.moveaxis(x, axis, -1)[rim : -rim or None : 7] for x in (image, back))
                for wanted, found in zip(*lines, strict=True):
                    assert abs(crossing(found, 0.4) - crossing(wanted, 0.4)) < MOVED_PX, (shape, axis)
                    if not rim:
                        np.testing.assert_allclose(found[[0, -1]], wanted[[0, -1]], atol=0.02)


@pytest.mark.parametrize(("preprocess", "load_size", "multiple"), WAYS)
def test_heads_keep_place_and_size_and_air_stays_air(preprocess: str, load_size: int, multiple: int) -> None:
    """A head with a sharp rim in bright air, which comes back as 0 but for the rim's own blur."""
    for shape in SHAPES:
        coarse = max(1.0, *(side / load_size for side in shape)) if resizes(preprocess) else 0.0
        moved = []
        for place in product((0.44, 0.5), (0.5, 0.53)):
            head = ellipse(shape, place)
            image = np.where(head, 0.7, 0.3).astype(np.float32)
            back = there_and_back(image, head, preprocess, load_size, multiple)
            moved.append(centre(back) - centre(head))
            assert back.sum() / 0.7 == pytest.approx(head.sum(), rel=0.02), shape
            far = distance_transform_edt(~head) > 4 * coarse
            assert far.any() and (back[far] == 0).all(), shape  # exactly, not nearly
        assert (np.abs(moved) <= 0.2 * coarse + 1e-6).all(), (shape, moved)  # rims are rounded to the network's pixels,
        assert (np.abs(np.mean(moved, axis=0)) < max(MOVED_PX, 0.03 * coarse)).all(), (
            shape,
            moved,
        )  # some outwards and others inwards


@pytest.mark.parametrize("load_size", [48, *LOAD_SIZES, 224])
@pytest.mark.parametrize("shape", [*SHAPES, (448, 448), (96, 256)])
def test_masks_do_not_shift_when_they_are_resized(shape: tuple[int, int], load_size: int) -> None:
    """In training and in testing alike, and a mirrored mask is the mirror image of the mask, to the pixel."""
    scale = np.array([load_size, load_size]) / shape
    image, moved = np.zeros(shape, dtype=np.float32), []
    for place in product((0.42, 0.5, 0.53), (0.46, 0.51, 0.57)):
        head = ellipse(shape, place)
        found = to_network(image, head, preprocess="resize", load_size=load_size)[1]
        assert set(found.unique().tolist()) == {0.0, 1.0}
        moved.append((centre(found[0].numpy()) + 0.5) / scale - (centre(head) + 0.5))  # edges of pixels are at halves
        assert found.sum() / scale.prod() == pytest.approx(head.sum(), rel=0.03)
        for axis in (-2, -1):
            mirrored = to_network(image, np.flip(head, axis), preprocess="resize", load_size=load_size)[1]
            assert torch.equal(mirrored.flip(axis), found)
        levels = torch.zeros(1, *shape, dtype=torch.uint8)
        crops = torch.zeros(1, 3, dtype=torch.int64)
        bits = torch.from_numpy(np.packbits(head))[None]
        transform = TrainTransform(preprocess="resize", load_size=load_size, crop_size=load_size, flip=False)
        assert torch.equal(transform(RawGroup(torch.zeros(1), levels, bits, crops))[1][0], found)
    coarser = np.maximum(1, 1 / scale)  # whole pixels on and off leave some tenths, but to all sides alike
    assert (np.abs(moved) < 0.25 * coarser).all(), moved
    assert (np.abs(np.mean(moved, axis=0)) < MOVED_PX * coarser).all(), moved


def test_edges_of_masks_lie_where_those_of_the_images_do() -> None:
    """A box of whole network pixels stays a box, and the half pixels beside it are the same on either side."""
    for factor, side in ((2, 64), (4, 32), (8, 16)):
        for offset in (0, factor // 2):
            mask = np.zeros((128, 128), dtype=bool)
            mask[32 - offset : 96 + offset, 32 - offset : 96 + offset] = True
            found = to_network(mask.astype(np.float32), mask, preprocess="resize", load_size=side)[1][0].numpy()
            rows = np.flatnonzero(found.any(1))
            assert rows[0] + rows[-1] == side - 1 and (found == found.T).all()
            assert len(rows) == 64 // factor + 2 * (offset > 0)


@pytest.mark.parametrize("preprocess", ["resize", "resize_and_crop"])
def test_slices_of_the_networks_size_are_not_resampled(preprocess: str) -> None:
    image, mask = np.random.default_rng(0).random((64, 64), dtype=np.float32), ellipse((64, 64))
    x, foreground = to_network(image, mask, preprocess=preprocess, load_size=64)
    assert (foreground[0].numpy() == mask).all()
    np.testing.assert_array_equal(x[0].numpy(), np.where(mask, image * 2 - 1, np.float32(-1)))
    back = to_native(x, (64, 64), preprocess=preprocess, load_size=64)
    np.testing.assert_array_equal(back, ((x[0] + 1) / 2).numpy())


def test_what_a_network_writes_into_the_padding_is_cut_off() -> None:
    image = np.full((143, 100), 0.2, dtype=np.float32)
    x, _ = to_network(image, np.ones_like(image, dtype=bool), preprocess="resize_and_crop", load_size=143, multiple=128)
    assert x.shape == (1, 256, 256)
    x[..., 143:, :] = x[..., 143:] = 1
    back = to_native(x, image.shape, preprocess="resize_and_crop", load_size=143)
    np.testing.assert_allclose(back, image, atol=1e-6)


@pytest.mark.parametrize("preprocess", PREPROCESS)
def test_only_the_generator_sees_padding(preprocess: str) -> None:
    """An encoder resizes what it is given: padding would make a head smaller than it was in training."""
    slices, masks = np.zeros((3, 100, 90), dtype=np.float32), np.ones((3, 100, 90), dtype=bool)
    grid_of_run = NetworkGrid(preprocess=preprocess, load_size=143, multiple=128)
    sides = embed(Identity(), slices, masks, "A", grid_of_run, CPU)
    own = (143, 143) if resizes(preprocess) else (100, 90)
    assert (sides == own).all()
    assert grid_of_run.tensor(slices, masks)[0].shape == (3, 1, *own)


# The whole of `test.py`


def write_scans(root: Path, shapes: dict[str, tuple[int, int]], n_slices: int = 2) -> None:
    """A test folder of low-field scans with a sharp head and a spot of light in it, and its manifest."""
    entries = []
    for name in ("testA", "testA_mask"):
        (root / name).mkdir(parents=True)
    for subject, shape in shapes.items():
        for index in range(n_slices):
            mask = ellipse(shape, (0.46 + 0.03 * index, 0.53))
            image = np.where(mask, 0.3 + 0.6 * blob(shape, (0.35, 0.6)), 0.1).astype(np.float32)
            write_image(root / "testA" / slice_name(subject, index), image, 16)
            write_mask(root / "testA_mask" / slice_name(subject, index), mask)
        affine = np.diag([1.0, 1.0, 5.0, 1.0]).tolist()
        slices = [SliceEntry(i, slice_name(subject, i), (i + 0.5) / n_slices) for i in range(n_slices)]
        entries.append(
            VolumeEntry(
                subject=subject,
                split="test",
                domain="A",
                source=f"{subject}.nii.gz",
                shape=[shape[1], shape[0], n_slices],
                affine=affine,
                spacing_mm=[1, 1, 5],
                slice_axis=2,
                window=[0, 1],
                slices=slices,
                sform=affine,
                sform_code=1,
            )
        )
    write_manifest(root, Manifest("nifti", entries))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("preprocess", "load_size", "side", "netG"),
    [
        ("resize_and_crop", 143, 128, "unet_128"),  # padded from 143 to 256
        ("resize_and_crop", 67, 64, "resnet_6blocks"),  # from 67 to 68
        ("resize", 128, 128, "unet_128"),
        ("crop", 128, 128, "unet_128"),
        ("none", 128, 128, "unet_128"),
    ],
)
def test_images_and_volumes_of_a_test_show_heads_in_their_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    preprocess: str,
    load_size: int,
    side: int,
    netG: str,
    mirrored: bool,
) -> None:
    padded = []

    def identity(model: GeneratorPair, real_A: Tensor) -> Tensor:
        padded.append(all(side % model.size_multiple == 0 for side in real_A.shape[-2:]))
        return real_A

    monkeypatch.setattr(GeneratorPair, "synthesise", identity)
    shapes = {"square": (96, 96), "wide": (90, 141), "high": (137, 75)}
    write_scans(tmp_path / "data", shapes)
    changes = {"preprocess": preprocess, "load_size": load_size, "netG": netG, "image_size": [side, side]}
    make_run(tmp_path / "run", "cycle_gan", **changes)
    folder, _ = run_test(tmp_path / "data", tmp_path, "run", *["--average_mirrored"] * mirrored)
    assert padded and all(padded)
    for subject, shape in shapes.items():
        volume = nibabel.load(folder / "volumes" / f"{subject}_synth.nii.gz").get_fdata(dtype=np.float32)
        assert volume.shape == (shape[1], shape[0], 2)
        for index in range(2):
            stem = Path(slice_name(subject, index)).stem
            real_A, fake_B = (read_image(folder / "images" / f"{stem}_{kind}.png") for kind in ("real_A", "fake_B"))
            np.testing.assert_allclose(volume[..., index], from_image(fake_B), atol=1e-4)
            before, after = (centre(np.maximum(image - 0.35, 0)) for image in (real_A, fake_B))  # of the spot alone
            assert np.abs(after - before).max() < MOVED_PX
            assert np.abs(centre(fake_B) - centre(real_A)).max() < 0.25 * max(1.0, *(n / load_size for n in shape))
            air = distance_transform_edt(real_A == 0) > 4 * max(1.0, *(length / load_size for length in shape))
            assert (fake_B[air] == 0).all() and (volume[..., index][from_image(air)] == 0).all()
