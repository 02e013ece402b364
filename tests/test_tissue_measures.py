"""Measures from a segmentation against implementations of their own, and the segmenter itself on made-up heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops

from evaluation.metrics import tissues
from evaluation.metrics.image import affine_fit
from evaluation.segmenter import fit_segmenter, load_segmenter, save_segmenter, segment
from util.errors import UserError


def made_up_head(seed: int, *, lesions: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A truth (4, 24, 24) float32 and its classes: a disc of white matter in grey matter in CSF, and bright lesions."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :24]
    radius = np.hypot(y - 12 - rng.uniform(-1, 1), x - 12 - rng.uniform(-1, 1))
    classes = np.select([radius < 6, radius < 8.5, radius < 11], [3, 2, 1], 0).astype(np.uint8)
    volume = np.stack([classes] * 4)
    for _ in range(lesions):
        i, j = rng.integers(9, 13), rng.integers(9, 13)
        volume[1:3, i : i + 3, j : j + 3] = tissues.LESION
    brightness = np.array([0, 0.9, 0.5, 0.3, 0.7], np.float32)
    return np.clip(brightness[volume] + rng.normal(0, 0.02, volume.shape), 0, 1).astype(np.float32), volume


def test_classes_are_those_of_the_simulator() -> None:
    from simulation.anatomy import LABELS, LESIONS

    labels = np.arange(max(LABELS.values()) + 1, dtype=np.uint8)
    classes = tissues.classes_of(labels)
    for name, number in LABELS.items():
        expected = tissues.LESION if name in LESIONS else {**tissues.TISSUES, "dgm": 2}.get(name, 0)
        assert classes[number] == expected, name


def test_dice_and_volumes_by_hand_and_by_sets() -> None:
    rng = np.random.default_rng(0)
    found, true = (rng.integers(0, 5, (3, 9, 8)).astype(np.uint8) for _ in range(2))
    scores, errors = [], []
    for number in (1, 2, 3):
        a, b = ({tuple(at) for at in np.argwhere(volume == number)} for volume in (found, true))
        scores.append(2 * len(a & b) / (len(a) + len(b)))
        errors.append(abs(len(a) - len(b)) / len(b))
    assert tissues.dice(found, true) == pytest.approx(np.mean(scores))
    assert tissues.volume_error(found, true) == pytest.approx(np.mean(errors))
    assert tissues.dice(true, true) == 1 and tissues.volume_error(true, true) == 0
    without = np.where(true == 1, 0, true)
    assert tissues.dice(found, without) is None and tissues.volume_error(found, without) is None


def test_contrast_ranks_by_hand() -> None:
    truth, classes = made_up_head(0)
    assert tissues.contrast_ranks(truth, truth, classes) == 1
    assert tissues.contrast_ranks(1 - truth, truth, classes) == 0
    swapped = np.select([classes == 1, classes == 2], [0.4, 0.5], truth)  # CSF between grey and white matter
    assert tissues.contrast_ranks(swapped, truth, classes) == pytest.approx(2 / 3)
    assert tissues.contrast_ranks(truth, truth, np.zeros_like(classes)) is None


def test_lesions_are_those_of_scikit_image() -> None:
    rng = np.random.default_rng(1)
    classes = np.where(gaussian_filter(rng.normal(size=(6, 30, 30)), 1) > 0.25, tissues.LESION, 0).astype(np.uint8)
    regions = [region for region in regionprops(label(classes == tissues.LESION, connectivity=3)) if region.area >= 4]
    expected = sorted(sorted(np.ravel_multi_index(tuple(region.coords.T), classes.shape)) for region in regions)
    assert sorted(sorted(lesion) for lesion in tissues.lesions_of(classes)) == expected and len(expected) > 3


def test_lost_and_invented_lesions_by_hand() -> None:
    true = np.zeros((3, 20, 20), np.uint8)
    true[1, 2:6, 2:6], true[1, 2:6, 12:16], true[1, 12:16, 2:6] = [tissues.LESION] * 3
    true[1, 16:19, 16:19] = tissues.LESION  # nine voxels: too small to count
    in_truth = true.copy()
    in_truth[1, 12:16, 2:6] = 0  # the segmenter does not see the third one even in the truth
    found = np.zeros_like(true)
    found[1, 2:4, 2:4] = tissues.LESION  # a quarter of the first: found; of the second nothing
    assert tissues.lesions_lost(found, in_truth, true) == (1, 2)
    assert tissues.lesions_lost(in_truth, in_truth, true) == (0, 2)
    assert tissues.lesions_invented(found, in_truth, true) == 0
    found[2, 10:12, 10:14] = tissues.LESION  # far from all
    found[1, 16, 2:6] = tissues.LESION  # touches the third
    assert tissues.lesions_invented(found, in_truth, true) == 1
    in_truth[2, 12, 12] = tissues.LESION  # the segmenter sees something there in the truth too
    assert tissues.lesions_invented(found, in_truth, true) == 0


def test_the_contrast_of_lesions_by_hand() -> None:
    true = np.full((3, 30, 30), 3, np.uint8)
    true[:, :, 15:17] = 1  # CSF is no surroundings
    true[1, 5:9, 5:9], true[1, 20:24, 20:24] = [tissues.LESION] * 2
    true[2, 12:14, 5:7] = tissues.LESION  # four voxels: too small
    head = np.ones_like(true, bool)
    truth = np.full(true.shape, 0.4)
    truth[true == 1], truth[1, 5:9, 5:9], truth[1, 20:24, 20:24] = 0.9, 0.8, 0.6
    assert tissues.lesion_contrasts(truth, true) == pytest.approx([0.4, 0.2])
    assert tissues.lesion_contrast(truth, truth, true, head) == pytest.approx((1, 0))
    assert tissues.lesion_contrast(0.3 * truth + 0.1, truth, true, head) == pytest.approx((1, 0))  # a window
    faded = truth.copy()
    faded[1, 5:9, 5:9] = 0.4  # the first is gone, and the fit of all else is nearly that of the truth
    scale, _ = affine_fit(faded, truth, head)
    strength, error = tissues.lesion_contrast(faded, truth, true, head)
    assert strength == pytest.approx(scale * 0.2 * 0.2 / (0.4**2 + 0.2**2))
    assert error == pytest.approx((0.4 + abs(0.2 * scale - 0.2)) / 0.6)
    assert tissues.lesion_contrast(truth, truth, np.where(true == tissues.LESION, 3, true), head) == (None, None)


def test_lesions_without_brain_around_them_have_no_contrast() -> None:
    true = np.zeros((1, 12, 12), np.uint8)
    true[0, 3:8, 3:8] = tissues.LESION
    image = np.random.default_rng(0).random(true.shape)
    assert not tissues.lesion_contrasts(image, true).size
    assert tissues.lesion_contrast(image, image, true, np.ones_like(true, bool)) == (None, None)


def test_the_segmenter_learns_tissues_and_lesions(tmp_path: Path) -> None:
    images, classes = zip(*(made_up_head(seed, lesions=seed % 2) for seed in range(6)), strict=True)
    network = fit_segmenter(images, classes, steps=60, seed=0)
    truth, true = made_up_head(99, lesions=1)
    found = segment(network, truth)
    assert found.shape == true.shape and (tissues.dice(found, true) or 0) > 0.85
    assert tissues.lesions_lost(found, found, true)[1] == 1
    blurred = gaussian_filter(truth, (0, 2, 2))
    assert (tissues.dice(segment(network, blurred), true) or 0) < (tissues.dice(found, true) or 0) - 0.05
    save_segmenter(network, tmp_path / "weights.pt")
    assert np.array_equal(segment(load_segmenter(tmp_path / "weights.pt"), truth), found)
    again = fit_segmenter(images, classes, steps=2, seed=0), fit_segmenter(images, classes, steps=2, seed=0)
    assert all((a == b).all() for a, b in zip(again[0].parameters(), again[1].parameters(), strict=True))


def test_a_file_that_holds_no_segmenter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not the weights of a segmenter"):
        load_segmenter(tmp_path / "weights.pt")
