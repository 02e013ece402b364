"""Paired image measures inside the head, per volume (docs/method.md section 6.2; references: docs/facts.md section 6).

Every function takes a prediction and a truth, both (S, H, W) arrays of S slices with intensities in [0, 1], and most a
boolean head mask of that shape. None means that the number does not exist for this input, never "bad".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

SIGMA = 1.5  # pixels, Gaussian window of SSIM (Wang et al. 2004)
TRUNCATE = 3.5  # sigmas; gives the 11 x 11 window
RADIUS = int(TRUNCATE * SIGMA + 0.5)
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for data range 1
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003
MS_SSIM_SIDE = (2 * RADIUS + 1) * 2 ** (len(SCALE_WEIGHTS) - 1)  # 176: the window must fit at the coarsest scale


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


def _blur(stack: Floats) -> Floats:
    return gaussian_filter(stack, sigma=(0.0, SIGMA, SIGMA), truncate=TRUNCATE)


def _similarity(prediction: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """SSIM map and its contrast-structure factor, each (S, H, W) float64, one 2-D map a slice."""
    p, t = prediction.astype(np.float64), truth.astype(np.float64)
    mean_p, mean_t = _blur(p), _blur(t)
    var_p, var_t = _blur(p * p) - mean_p**2, _blur(t * t) - mean_t**2
    structure = (2 * (_blur(p * t) - mean_p * mean_t) + C2) / (var_p + var_t + C2)
    luminance = (2 * mean_p * mean_t + C1) / (mean_p**2 + mean_t**2 + C1)
    return luminance * structure, structure


def ssim_map(prediction: Floats, truth: Floats) -> Floats:
    """SSIM of every pixel: Gaussian weights of sigma 1.5, population covariance, data range 1; (S, H, W) float64."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape}, truth {truth.shape}")
    return _similarity(prediction, truth)[0]


def ssim(prediction: Floats, truth: Floats, mask: Mask) -> float | None:
    """Structural similarity: mean of the slices' SSIM maps over the head's voxels of the volume."""
    return float(ssim_map(prediction, truth)[mask].mean()) if mask.any() else None


def psnr_full(prediction: Floats, truth: Floats) -> float | None:
    """PSNR over the whole slices, background included."""
    return psnr(prediction, truth, np.ones(truth.shape, dtype=bool))


def _valid(stack: Floats) -> Floats:
    """The pixels whose whole window lies inside the slice."""
    return stack[:, RADIUS:-RADIUS, RADIUS:-RADIUS]


def ssim_full(prediction: Floats, truth: Floats) -> float | None:
    """SSIM over the whole slices but for the 5-pixel rim that scikit-image leaves out too; None up to 10 px a side."""
    return float(_valid(ssim_map(prediction, truth)).mean()) if min(truth.shape[1:]) > 2 * RADIUS else None


def _halve(stack: Floats) -> Floats:
    """2 x 2 means; an odd last row or column is dropped."""
    count, height, width = stack.shape
    even = stack[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def ms_ssim_slices(prediction: Floats, truth: Floats) -> Floats | None:
    """Multi-scale SSIM (Wang et al. 2003) of each whole slice, (S,) float64; None where a side is under 176 px."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape}, truth {truth.shape}")
    if min(truth.shape[1:]) < MS_SSIM_SIDE:
        return None
    p: Floats = prediction.astype(np.float64)
    t: Floats = truth.astype(np.float64)
    score = np.ones(len(p))
    for scale, weight in enumerate(SCALE_WEIGHTS):
        both, structure = _similarity(p, t)
        part = both if scale == len(SCALE_WEIGHTS) - 1 else structure
        score *= np.maximum(_valid(part).mean(axis=(1, 2)), 0) ** weight
        p, t = _halve(p), _halve(t)
    return score


def ms_ssim(prediction: Floats, truth: Floats) -> float | None:
    """Mean multi-scale SSIM of the volume's whole slices; None where a side is under 176 px."""
    scores = ms_ssim_slices(prediction, truth)
    return None if scores is None else float(scores.mean())
