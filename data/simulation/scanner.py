"""What the scanner does to a head's signal: receive field, limited k-space, noise, magnitude."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from data.simulation.deformation import draw_field

BIAS_CONTROL_MM = 100.0
TAPER = 0.25  # outer part of k-space that rolls off (Tukey window), as vendors filter against ringing

Array = NDArray[np.float32]


def receive_field(
    rng: np.random.Generator, std: float, z_mm: NDArray[np.float64], in_plane_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Multiplicative receive sensitivity (n, y, x) at the given positions, exp of a smooth field of that deviation."""
    field = draw_field(rng, 1, BIAS_CONTROL_MM, std)
    points = np.stack(np.meshgrid(z_mm - z_mm.mean(), in_plane_mm, in_plane_mm, indexing="ij")[::-1])
    return np.asarray(np.exp(field.at(points)[0]))


def acquired_window(n: int, acquired: float) -> NDArray[np.float64]:
    """Weight (n,) of each k-space line in centred order: 1 inside, Tukey roll-off, 0 beyond `acquired` lines."""
    radius = np.abs(np.arange(n) - n // 2) / (acquired / 2)
    roll = np.clip((radius - (1 - TAPER)) / TAPER, 0, 1)
    return np.asarray(np.where(radius <= 1, 0.5 * (1 + np.cos(np.pi * roll)), 0.0))


def band_limit(image: Array, matrix: int, acquired: float) -> NDArray[np.complex64]:
    """Centred k-space (n, matrix, matrix) of fine images (n, N, N), N a multiple of `matrix`, cut to `acquired` lines.

    Scaled so that `to_image` gives the image's own intensities on the `matrix` grid.
    """
    n_fine = image.shape[-1]
    spectrum = fft.fftshift(fft.fft2(image.astype(np.float32)), axes=(-2, -1))
    start = n_fine // 2 - matrix // 2
    cut = spectrum[:, start : start + matrix, start : start + matrix] * (matrix / n_fine) ** 2
    window = acquired_window(matrix, min(acquired, matrix)).astype(np.float32)
    return np.asarray(cut * window[:, None] * window[None, :], np.complex64)


def to_image(kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Complex images (n, matrix, matrix) of centred k-space; zeros beyond the acquired lines interpolate."""
    return np.asarray(fft.ifft2(fft.ifftshift(kspace, axes=(-2, -1))), np.complex64)


def noise(
    rng: np.random.Generator, shape: tuple[int, int, int], acquired: float, sigma: float
) -> NDArray[np.complex64]:
    """k-space of white receiver noise within the acquired lines, `sigma` per real channel once in the image."""
    n = shape[-1]
    window = acquired_window(n, min(acquired, n))
    plane = window[:, None] * window[None, :]
    gain = sigma * n / np.sqrt((plane**2).mean())
    drawn = rng.standard_normal((*shape, 2), np.float32)
    return np.asarray((drawn[..., 0] + 1j * drawn[..., 1]) * (plane * gain).astype(np.float32), np.complex64)
