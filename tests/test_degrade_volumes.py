"""Real high-field volumes as low field shows them: scripts/degrade_volumes.py."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from test_volume_mode import scan

from scripts import degrade_volumes
from scripts.degrade_volumes import LowField, degraded
from util.errors import UserError

AFFINE = np.diag([1.0, 1.0, 6.0, 1.0])


def phantom() -> np.ndarray:
    """A bright disc with thin dark lines, (64, 60, 6) float32, in air."""
    x, y, _ = np.mgrid[:64, :60, :6]
    disc = ((x - 32) / 24) ** 2 + ((y - 30) / 26) ** 2 < 1
    return np.where(disc, 100.0 - 60.0 * (x % 4 == 0), 0.0).astype(np.float32)


def test_fine_detail_goes_and_the_mean_stays() -> None:
    volume = phantom()
    made = degraded(volume, AFFINE, LowField(voxel_mm=5.0, snr=1e6, bias=0.0), np.random.default_rng(0))
    inside = (slice(20, 44), slice(20, 40))
    assert made.shape == volume.shape and made.dtype == np.float32
    assert made[inside].mean() == pytest.approx(volume[inside].mean(), rel=0.02)
    assert made[inside].std() < 0.25 * volume[inside].std()
    finer = degraded(volume, AFFINE, LowField(voxel_mm=1.0, snr=1e6, bias=0.0), np.random.default_rng(0))
    assert np.corrcoef(finer[inside].ravel(), volume[inside].ravel())[0, 1] > 0.7  # the k-space filter takes its part


def test_noise_has_the_level_asked_for() -> None:
    """Of one channel, inside the head, where the magnitude of a strong signal has it too."""
    flat = np.where(phantom() > 0, np.float32(100), np.float32(0))
    low = LowField(voxel_mm=1.0, snr=20.0, bias=0.0)
    noisy, clean = (degraded(flat, AFFINE, each, np.random.default_rng(1)) for each in (low, LowField(1.0, 1e9, 0.0)))
    assert (noisy - clean)[20:44, 20:40].std() == pytest.approx(100 / 20, rel=0.1)


def test_receive_field_is_smooth_and_as_strong_as_asked() -> None:
    flat = np.where(phantom() > 0, np.float32(100), np.float32(0))
    shaded = degraded(flat, AFFINE, LowField(1.0, 1e9, 0.3), np.random.default_rng(2))[20:44, 20:40]
    assert np.ptp(np.log(shaded)) > 0.05
    assert np.abs(np.diff(np.log(shaded), axis=0)).max() < 0.05


def test_both_volumes_lie_where_the_original_lay(tmp_path: Path) -> None:
    source = nibabel.load(scan(tmp_path / "in" / "p7.nii.gz", flipped=True))
    arguments = ["--high", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--voxel_mm", "4"]
    assert degrade_volumes.main(arguments) == 0
    for kind in ("low", "high"):
        made = nibabel.load(tmp_path / "out" / kind / "p7.nii.gz")
        assert made.shape == source.shape
        np.testing.assert_allclose(made.affine, source.affine, atol=1e-5)
    np.testing.assert_allclose(made.get_fdata(), source.get_fdata(), atol=1e-3)
    with pytest.raises(UserError, match="not an empty folder"):
        degrade_volumes.main(arguments)


def test_wrong_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--snr"):
        degrade_volumes.main(["--high", str(tmp_path), "--out", str(tmp_path / "out"), "--snr", "0"])
