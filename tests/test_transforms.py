"""Whole batches are prepared as torchvision prepares slices one by one; chance follows from keys alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from data.folder.slices import as_image
from data.raw_batch import RawGroup
from data.transforms import FLIP, LEFT, TOP, TrainTransform, hashed_uniform, to_network
from data.unaligned_options import PAD, PREPROCESS, resizes

RNG = np.random.default_rng(0)
SHAPE = (37, 50)
DTYPES = (np.uint8, np.uint16, np.float32)


def levels_of(dtype: type, n: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    if dtype is np.float32:
        return RNG.random((n, *shape), dtype=np.float32)
    return RNG.integers(0, np.iinfo(dtype).max + 1, (n, *shape)).astype(dtype)


def group_of(levels: np.ndarray, masks: np.ndarray, crops: np.ndarray) -> RawGroup:
    bits = np.stack([np.packbits(mask) for mask in masks])
    signed = levels.view(np.int16) if levels.dtype == np.uint16 else levels
    return RawGroup(*map(torch.from_numpy, (np.arange(len(levels)), signed, bits, crops)))


def one_by_one(
    levels: np.ndarray, mask: np.ndarray, place: np.ndarray, preprocess: str, load: int, crop: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by torchvision, for one slice: resize, pad, crop, flip."""
    image = tv_tensors.Image(torch.from_numpy(as_image(levels))[None])
    foreground = tv_tensors.Mask(torch.from_numpy(mask)[None])
    pair = [image, foreground]
    if preprocess == PAD:
        height, width = pair[0].shape[-2:]
        short = abs(height - width)
        before, after = short // 2, short - short // 2
        room = [before, 0, after, 0] if height > width else [0, before, 0, after]
        shown = v2.functional.pad(tv_tensors.Image(torch.ones(1, height, width)), room)
        shown = v2.functional.resize(shown, [load, load], antialias=True)
        image = v2.functional.pad(image, room, padding_mode="edge")
        foreground = v2.functional.pad(foreground, room)
    if resizes(preprocess):
        covered = foreground.as_subclass(torch.Tensor).float()
        image, covered = (v2.functional.resize(x, [load, load], antialias=True) for x in (image, covered))
        pair = [image, tv_tensors.Mask(covered > 0.4999 * (shown if preprocess == PAD else 1))]
    if preprocess.endswith("crop"):
        height, width = pair[0].shape[-2:]
        room = [max(0, crop - width), max(0, crop - height)]
        pair = [v2.functional.pad(x, room) for x in pair]
        pair = [v2.functional.crop(x, int(place[TOP]), int(place[LEFT]), crop, crop) for x in pair]
    if place[FLIP]:
        pair = [v2.functional.horizontal_flip(x) for x in pair]
    image, foreground = (x.as_subclass(torch.Tensor).float() for x in pair)
    return torch.where(foreground > 0, image.clamp(0, 1) * 2 - 1, -1.0), foreground


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("preprocess", PREPROCESS)
@pytest.mark.parametrize("crop", [24, 45])  # 45 is more than a slice's height
def test_a_batch_is_what_its_slices_are_one_by_one(dtype: type, preprocess: str, crop: int) -> None:
    levels, masks = levels_of(dtype, 6), RNG.random((6, *SHAPE)) < 0.5
    transform = TrainTransform(preprocess=preprocess, load_size=48, crop_size=crop, flip=True)
    crops = transform.draw_crops(np.arange(6) * 7919, SHAPE)
    assert set(crops[:, FLIP].tolist()) == {0, 1}
    image, mask = transform(group_of(levels, masks, crops))
    for i in range(6):
        wanted, foreground = one_by_one(levels[i], masks[i], crops[i], preprocess, 48, crop)
        torch.testing.assert_close(image[i], wanted, rtol=0, atol=1e-6)
        assert torch.equal(mask[i], foreground)


def test_the_batch_around_a_slice_changes_no_bit_of_it() -> None:
    levels, masks = levels_of(np.uint16, 5), RNG.random((5, *SHAPE)) < 0.5
    transform = TrainTransform(preprocess="resize_and_crop", load_size=64, crop_size=40, flip=True)
    keys = RNG.integers(2**62, size=5)
    image, mask = transform(group_of(levels, masks, transform.draw_crops(keys, SHAPE)))
    for i in range(5):
        only = slice(i, i + 1)
        alone = transform(group_of(levels[only], masks[only], transform.draw_crops(keys[only], SHAPE)))
        assert torch.equal(alone[0], image[only]) and torch.equal(alone[1], mask[only])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_prepares_the_same(dtype: type) -> None:
    levels, masks = levels_of(dtype, 4), RNG.random((4, *SHAPE)) < 0.5
    transform = TrainTransform(preprocess="resize_and_crop", load_size=64, crop_size=40, flip=True)
    group = group_of(levels, masks, transform.draw_crops(np.arange(4), SHAPE))
    there = transform(group.each(lambda tensor: tensor.cuda()))
    for found, wanted in zip(there, transform(group), strict=True):
        torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-5)


def test_chance_is_even_and_streams_are_independent() -> None:
    keys = np.arange(20000)  # as alike as keys can be
    streams = np.stack([hashed_uniform(keys, stream) for stream in range(6)])
    assert streams.min() >= 0 and streams.max() < 1
    counts = np.apply_along_axis(lambda x: np.histogram(x, 20, (0, 1))[0], 1, streams)
    assert np.abs(counts - 1000).max() < 160  # five standard deviations
    assert np.abs(np.corrcoef(streams) - np.eye(6)).max() < 0.04
    assert (hashed_uniform(keys[::-1], 3)[::-1] == streams[3]).all()


def test_every_place_of_a_crop_is_reached_and_follows_from_the_key_alone() -> None:
    transform = TrainTransform(preprocess="crop", load_size=0, crop_size=48, flip=True)
    a, b, other = (
        transform.draw_crops(keys, (50, 40)) for keys in (np.arange(2000), np.arange(2000), -np.arange(2000))
    )
    assert set(a[:, TOP].tolist()) == {0, 1, 2}
    assert set(a[:, LEFT].tolist()) == set(range(9))  # padded by 8 at both ends
    assert set(a[:, FLIP].tolist()) == {0, 1}
    assert (a == b).all() and (a != other).any(axis=1).mean() > 0.8
    still = TrainTransform(preprocess="resize", load_size=32, crop_size=32, flip=False)
    assert not still.draw_crops(np.arange(9), (50, 40)).any()


def test_no_global_generator_is_touched() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    transform = TrainTransform(preprocess="crop", load_size=8, crop_size=8, flip=True)
    transform(group_of(levels_of(np.uint8, 2), np.ones((2, *SHAPE), bool), transform.draw_crops(np.arange(2), SHAPE)))
    assert torch.equal(before, torch.get_rng_state())


def test_test_time_takes_one_slice_or_many() -> None:
    image, mask = levels_of(np.float32, 3), RNG.random((3, *SHAPE)) < 0.5
    for preprocess in ("resize", "crop"):
        settings = {"preprocess": preprocess, "load_size": 64, "multiple": 16}
        many = to_network(image, mask, **settings)
        assert many[0].shape == ((3, 1, 64, 64) if preprocess == "resize" else (3, 1, 48, 64))
        for i in range(3):
            one = to_network(image[i], mask[i], **settings)
            assert all(torch.equal(x, y[i]) for x, y in zip(one, many, strict=True))


def test_square_slices_are_padded_by_nothing_and_others_keep_their_aspect() -> None:
    levels, mask = RNG.random((2, 40, 40)).astype(np.float32), np.ones((2, 40, 40), bool)
    padded, stretched = (
        to_network(levels, mask, preprocess=preprocess, load_size=32) for preprocess in (PAD, "resize")
    )
    assert all(torch.equal(one, other) for one, other in zip(padded, stretched, strict=True))
    wide = np.zeros((30, 60), bool)
    wide[5:25, 20:40] = True  # 20 x 20
    found = to_network(wide.astype(np.float32), wide, preprocess=PAD, load_size=90)[1][0]
    assert (found.any(0).sum(), found.any(1).sum()) == (30, 30)
    squashed = to_network(wide.astype(np.float32), wide, preprocess="resize", load_size=90)[1][0]
    assert (squashed.any(0).sum(), squashed.any(1).sum()) == (30, 60)
