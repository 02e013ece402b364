"""Paired image measures inside the head, per volume (docs/method.md section 6.2; references: docs/facts.md section 6).

Every function takes a prediction and a truth, both (S, H, W) arrays of S slices with intensities in [0, 1], and most a
boolean head mask of that shape. None means that the number does not exist for this input, never "bad".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

WINDOW = 11  # pixels a side, Gaussian window of SSIM with sigma 1.5 (Wang et al. 2004)
K1 = 0.01  # of SSIM's luminance factor
NO_LUMINANCE = 1e6  # in its place leaves one, to 1e-12, for that factor: what stays is contrast and structure
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003
MS_SSIM_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)  # 176: the window must fit at the coarsest scale


def _inside(prediction: Floats, truth: Floats, mask: Mask) -> tuple[Floats, Floats]:
    """The two images' head voxels, float64 (V,). Raises ValueError if shapes differ (broadcasting would hide it)."""
    if not prediction.shape == truth.shape == mask.shape:
        raise ValueError(f"prediction {prediction.shape}, truth {truth.shape}, mask {mask.shape}")
    return prediction[mask].astype(np.float64), truth[mask].astype(np.float64)


def _decibel(squared_error: float) -> float | None:
    """PSNR at data range 1; None where the error is zero, as infinity is not a number to average."""
    return None if squared_error == 0 else float(-10 * np.log10(squared_error))


def psnr(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """Peak signal-to-noise ratio in dB: mean squared error over the head's voxels of the volume, data range 1."""
    p, t = _inside(prediction, truth, mask)
    return _decibel(float(np.mean((p - t) ** 2))) if p.size else None


def affine_fit(prediction: Floats, truth: Floats, mask: Mask) -> tuple[float, float]:
    """Least-squares (scale, offset) such that scale * prediction + offset is nearest to truth inside the mask."""
    p, t = _inside(prediction, truth, mask)
    variance = float(np.mean((p - p.mean()) ** 2))
    scale = float(np.mean((p - p.mean()) * (t - t.mean()))) / variance if variance > 0 else 0.0
    return scale, float(t.mean() - scale * p.mean())


def psnr_fit(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """PSNR after the best affine intensity fit of the volume, so that windowing decides nothing."""
    if not mask.any():
        return None
    scale, offset = affine_fit(prediction, truth, mask)
    return psnr(scale * prediction.astype(np.float64) + offset, truth, mask)


def nrmse(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """Normalised root mean squared error ||p - t|| / ||t|| over the head's voxels."""
    p, t = _inside(prediction, truth, mask)
    size = float(np.linalg.norm(t))
    return float(np.linalg.norm(p - t)) / size if size > 0 else None


def mae(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """Mean absolute error over the head's voxels."""
    p, t = _inside(prediction, truth, mask)
    return float(np.mean(np.abs(p - t))) if p.size else None


def _ssim_by_slice(prediction: Floats, truth: Floats, k1: float = K1) -> tuple[Floats, Floats]:
    """scikit-image's SSIM, one 2-D map a slice: Gaussian weights, population covariance, data range 1.

    Returns: (S,) float64 means over the pixels whose whole window lies in the slice, and the maps, (S, H, W) float64.
    Raises: ValueError: shapes differ, or a side is under 11 px.
    """
    pairs = zip(prediction.astype(np.float64), truth.astype(np.float64), strict=True)
    found = [
        structural_similarity(
            p, t, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True, K1=k1
        )
        for p, t in pairs
    ]
    return np.array([mean for mean, _ in found]), np.stack([each for _, each in found])


def ssim(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """Structural similarity: mean of the slices' SSIM maps over the head's voxels; None where a side is under 11 px."""
    if not mask.any() or min(truth.shape[1:]) < WINDOW:
        return None
    return float(_ssim_by_slice(prediction, truth)[1][mask].mean())


def psnr_full(prediction: Floats, truth: Floats) -> float | None:
    """PSNR over the whole slices, background included."""
    return psnr(prediction, truth, np.ones(truth.shape, dtype=bool))


def ssim_full(prediction: Floats, truth: Floats) -> float | None:
    """SSIM over the whole slices but for their 5-pixel rim; None where a side is under 11 px."""
    return float(_ssim_by_slice(prediction, truth)[0].mean()) if min(truth.shape[1:]) >= WINDOW else None


def _halve(stack: Floats) -> Floats:
    """2 x 2 means; an odd last row or column is dropped."""
    count, height, width = stack.shape
    even = stack[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def ms_ssim_slices(prediction: Floats, truth: Floats) -> Floats | None:
    """Multi-scale SSIM (Wang et al. 2003) of each whole slice, (S,) float64; None where a side is under 176 px."""
    if min(truth.shape[1:]) < MS_SSIM_SIDE:
        return None
    p: Floats = prediction.astype(np.float64)
    t: Floats = truth.astype(np.float64)
    score = np.ones(len(p))
    for scale, weight in enumerate(SCALE_WEIGHTS):
        last = scale == len(SCALE_WEIGHTS) - 1  # luminance counts at the coarsest scale alone
        mean, _ = _ssim_by_slice(p, t, K1 if last else NO_LUMINANCE)
        score *= np.maximum(mean, 0) ** weight
        p, t = _halve(p), _halve(t)
    return score


def ms_ssim(prediction: Floats, truth: Floats) -> float | None:
    """Mean multi-scale SSIM of the volume's whole slices; None where a side is under 176 px."""
    scores = ms_ssim_slices(prediction, truth)
    return None if scores is None else float(scores.mean())
