"""The scanner: transmit and receive fields, coils, limited k-space, noise, magnitude.

Sources of its constants: docs/facts.md section 2.

Slices are (n, Y, X): phase encoding runs along Y (anterior-posterior), the readout along X.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulation.deformation import draw_field

BIAS_CONTROL_MM = 100.0
TAPER = 0.25  # outer fraction of k-space with a Tukey roll-off, as in vendors' filters against ringing
HEAD_RADIUS_MM = 90.0  # radius at which the fields of `centre_bright` have fallen by `drop`
LEAST_FACTOR = 0.2  # of these fields, far outside the head
COIL_RING_MM = 140.0  # radius of the circle of receivers around the head [I]
COIL_REACH_MM = 90.0  # distance over which a receiver's sensitivity falls off [I]
COIL_PHASE_RAD = 1.0  # change of its phase over that distance [I]
GAMMA_HZ_PER_T = 42.577e6
BLOCK = 8  # slices computed at once
FAT_SHIFT_PPM = 3.5  # between water and the methylene protons of fat: 45 Hz at 0.3 T, 447 Hz at 3 T

Array = NDArray[np.float32]
Spectrum = NDArray[np.complex64]


@dataclass(frozen=True)
class Sampling:
    """Extent of the measured k-space: `phase` lines and `read` points over the field of view.

    `partial`: measured fraction of these lines (0.5 to 1); the rest, on one side, is zero.
    """

    phase: float
    read: float
    partial: float = 1.0

    def windows(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (n,) of the phase-encoding lines and of the readout points, in centred order."""
        phase = acquired_window(n, min(self.phase, n))
        phase[: n // 2 + int(np.ceil((0.5 - self.partial) * min(self.phase, n)))] = 0
        return phase, acquired_window(n, min(self.read, n))


def receive_field(
    rng: np.random.Generator, std: float, z_mm: NDArray[np.float64], in_plane_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Multiplicative receive sensitivity (n, y, x) at the given positions: exp of a smooth field of deviation `std`."""
    field = draw_field(rng, 1, BIAS_CONTROL_MM, std)
    points = np.stack(np.meshgrid(z_mm - z_mm.mean(), in_plane_mm, in_plane_mm, indexing="ij")[::-1])
    return np.asarray(np.exp(field.at(points)[0]))


def centre_bright(drop: float, z_mm: NDArray[np.float64], in_plane_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factor (n, y, x) on flip angle or signal: a parabola, 1 + drop/2 in the head's centre and 1 - drop/2 at its edge.

    For the transmit field, `drop` is 0.42 at 7 T and 0.23 at 4 T (Vaughan et al., MRM 2001) [V]. The factor falls
    further outside the head, but not below LEAST_FACTOR.
    """
    z, y, x = np.meshgrid(z_mm - z_mm.mean(), in_plane_mm, in_plane_mm, indexing="ij")
    return np.maximum(1 + drop * (0.5 - (x**2 + y**2 + z**2) / HEAD_RADIUS_MM**2), LEAST_FACTOR)


def coil_sensitivities(
    coils: int, z_mm: NDArray[np.float64], in_plane_mm: NDArray[np.float64]
) -> NDArray[np.complex64]:
    """Complex sensitivities (coils, n, y, x) of receivers on a ring; their squared magnitudes sum to 1 everywhere.

    The root sum of squares of noise-free coil images thus is the image, and only `receive_field` shades it.
    """
    z, y, x = np.meshgrid(z_mm - z_mm.mean(), in_plane_mm, in_plane_mm, indexing="ij")
    maps = []
    for angle in 2 * np.pi * (np.arange(coils) + 0.5) / coils:
        distance = np.sqrt((x - COIL_RING_MM * np.cos(angle)) ** 2 + (y - COIL_RING_MM * np.sin(angle)) ** 2 + z**2)
        reach = distance / COIL_REACH_MM
        maps.append((1 + reach**2) ** -1.5 * np.exp(1j * COIL_PHASE_RAD * distance / COIL_REACH_MM))
    stack = np.stack(maps)
    return np.asarray(stack / np.sqrt((np.abs(stack) ** 2).sum(0)), np.complex64)


def fat_shift_mm(b0_t: float, bandwidth_hz: float, voxel_mm: float) -> float:
    """Displacement of fat along the readout, for a readout bandwidth per acquired voxel."""
    return FAT_SHIFT_PPM * 1e-6 * GAMMA_HZ_PER_T * b0_t / bandwidth_hz * voxel_mm


def acquired_window(n: int, acquired: float) -> NDArray[np.float64]:
    """Weights (n,) of the k-space lines in centred order: 1 inside, Tukey roll-off, 0 beyond `acquired` lines."""
    radius = np.abs(np.arange(n) - n // 2) / (acquired / 2)
    roll = np.clip((radius - (1 - TAPER)) / TAPER, 0, 1)
    return np.asarray(np.where(radius <= 1, 0.5 * (1 + np.cos(np.pi * roll)), 0.0))


def blocks(n: int) -> list[slice]:
    """Ranges of at most BLOCK of `n` slices, small enough for intermediate results to stay in the CPU cache."""
    return [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def band_limit(image: Array | Spectrum, matrix: int, sampling: Sampling) -> Spectrum:
    """Measured part of the centred k-space (n, matrix, matrix) of images (n, N, N), N a multiple of `matrix`.

    Scaled so that `to_image` returns the intensities of the images on the `matrix` grid.
    """
    n_fine = image.shape[-1]
    measured = slice(n_fine // 2 - matrix // 2, n_fine // 2 - matrix // 2 + matrix)
    phase, read = sampling.windows(matrix)
    weights = (phase[:, None] * read * (matrix / n_fine) ** 2).astype(np.float32)
    kspace = np.empty((len(image), matrix, matrix), np.complex64)
    for part in blocks(len(image)):
        spectrum = fft.fftshift(fft.fft2(image[part]), axes=(-2, -1))
        np.multiply(spectrum[:, measured, measured], weights, out=kspace[part])
    return kspace


def to_image(kspace: Spectrum) -> Spectrum:
    """Complex images (n, matrix, matrix) of centred k-space; zeros beyond the acquired lines act as interpolation."""
    image = np.empty_like(kspace, np.complex64)
    for part in blocks(len(kspace)):
        image[part] = fft.ifft2(fft.ifftshift(kspace[part], axes=(-2, -1)), overwrite_x=True)
    return image


def combined(coil_images: list[Spectrum]) -> Array:
    """Magnitude (n, matrix, matrix) of one coil, or root sum of squares of several."""
    if len(coil_images) == 1:
        return np.abs(coil_images[0]).astype(np.float32)
    return np.sqrt(sum(np.abs(image) ** 2 for image in coil_images)).astype(np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, int, int], sampling: Sampling, sigma: float) -> Spectrum:
    """k-space of white receiver noise in the measured lines, with `sigma` per real channel in the image."""
    n = shape[-1]
    phase, read = sampling.windows(n)
    plane = phase[:, None] * read[None, :]
    gain = sigma * n / np.sqrt((plane**2).mean())
    weights, kspace = (plane * gain).astype(np.float32), np.empty(shape, np.complex64)
    for part in blocks(len(kspace)):
        drawn = rng.standard_normal((*kspace[part].shape, 2), np.float32).view(np.complex64)[..., 0]
        np.multiply(drawn, weights, out=kspace[part])
    return kspace
