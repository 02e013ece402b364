"""What the scanner does to a head's signal: transmit and receive fields, coils, limited k-space, noise, magnitude.

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
TAPER = 0.25  # outer part of k-space that rolls off (Tukey window), as vendors filter against ringing
HEAD_RADIUS_MM = 90.0  # where a field has fallen by the whole `drop` of `centre_bright`
COIL_RING_MM = 140.0  # receivers stand on a circle of this radius around the head [I]
COIL_REACH_MM = 90.0  # distance over which a receiver's sensitivity falls off [I]
COIL_PHASE_RAD = 1.0  # how far its phase turns over that distance [I]
GAMMA_HZ_PER_T = 42.577e6
BLOCK = 8  # slices computed at once
FAT_SHIFT_PPM = 3.5  # between water and the methylene protons of fat: 45 Hz at 0.3 T, 447 Hz at 3 T

Array = NDArray[np.float32]
Spectrum = NDArray[np.complex64]


@dataclass(frozen=True)
class Sampling:
    """Extent of the measured k-space: `phase` lines, `read` points, both over the field of view.

    `partial`: share of these lines that is measured (0.5 to 1); the rest, on one side, stays zero.
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
    """Multiplicative receive sensitivity (n, y, x) at the given positions, exp of a smooth field of that deviation."""
    field = draw_field(rng, 1, BIAS_CONTROL_MM, std)
    points = np.stack(np.meshgrid(z_mm - z_mm.mean(), in_plane_mm, in_plane_mm, indexing="ij")[::-1])
    return np.asarray(np.exp(field.at(points)[0]))


def centre_bright(drop: float, z_mm: NDArray[np.float64], in_plane_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factor (n, y, x) on flip angle or signal: a parabola, highest in the head's centre, 1 half-way down to its edge.

    `drop` is the difference from centre to edge; of the transmit field 0.42 at 7 T, 0.23 at 4 T (Vaughan et al., MRM
    2001) [V]. It goes on falling outside the head, but not below a fifth.
    """
    z, y, x = np.meshgrid(z_mm - z_mm.mean(), in_plane_mm, in_plane_mm, indexing="ij")
    return np.maximum(1 + drop * (0.5 - (x**2 + y**2 + z**2) / HEAD_RADIUS_MM**2), 0.2)


def coil_sensitivities(
    coils: int, z_mm: NDArray[np.float64], in_plane_mm: NDArray[np.float64]
) -> NDArray[np.complex64]:
    """Complex sensitivities (coils, n, y, x) of receivers on a ring, whose squares add up to 1 everywhere.

    So the root of the sum of squares of noise-free coil images is the image, and `receive_field` alone shades it.
    """
    z, y, x = np.meshgrid(z_mm - z_mm.mean(), in_plane_mm, in_plane_mm, indexing="ij")
    maps = []
    for angle in 2 * np.pi * (np.arange(coils) + 0.5) / coils:
        far = np.sqrt((x - COIL_RING_MM * np.cos(angle)) ** 2 + (y - COIL_RING_MM * np.sin(angle)) ** 2 + z**2)
        maps.append((1 + (far / COIL_REACH_MM) ** 2) ** -1.5 * np.exp(1j * COIL_PHASE_RAD * far / COIL_REACH_MM))
    stack = np.stack(maps)
    return np.asarray(stack / np.sqrt((np.abs(stack) ** 2).sum(0)), np.complex64)


def fat_shift_mm(b0_t: float, bandwidth_hz: float, voxel_mm: float) -> float:
    """How far fat appears along the readout from where it is, for a readout bandwidth per acquired voxel."""
    return FAT_SHIFT_PPM * 1e-6 * GAMMA_HZ_PER_T * b0_t / bandwidth_hz * voxel_mm


def acquired_window(n: int, acquired: float) -> NDArray[np.float64]:
    """Weight (n,) of each k-space line in centred order: 1 inside, Tukey roll-off, 0 beyond `acquired` lines."""
    radius = np.abs(np.arange(n) - n // 2) / (acquired / 2)
    roll = np.clip((radius - (1 - TAPER)) / TAPER, 0, 1)
    return np.asarray(np.where(radius <= 1, 0.5 * (1 + np.cos(np.pi * roll)), 0.0))


def blocks(n: int) -> list[slice]:
    """`n` slices in parts so small that what is computed on the way to a part's result stays in the cache."""
    return [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def band_limit(image: Array | Spectrum, matrix: int, sampling: Sampling) -> Spectrum:
    """Centred k-space (n, matrix, matrix) of fine images (n, N, N), N a multiple of `matrix`, cut to what is measured.

    Scaled so that `to_image` gives the image's own intensities on the `matrix` grid.
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
    """Complex images (n, matrix, matrix) of centred k-space; zeros beyond the acquired lines interpolate."""
    image = np.empty_like(kspace, np.complex64)
    for part in blocks(len(kspace)):
        image[part] = fft.ifft2(fft.ifftshift(kspace[part], axes=(-2, -1)), overwrite_x=True)
    return image


def combined(coil_images: list[Spectrum]) -> Array:
    """Magnitude (n, matrix, matrix): of one coil, or the root of the sum of squares of several."""
    if len(coil_images) == 1:
        return np.abs(coil_images[0]).astype(np.float32)
    return np.sqrt(sum(np.abs(image) ** 2 for image in coil_images)).astype(np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, int, int], sampling: Sampling, sigma: float) -> Spectrum:
    """k-space of white receiver noise within the measured lines, `sigma` per real channel once in the image."""
    n = shape[-1]
    phase, read = sampling.windows(n)
    plane = phase[:, None] * read[None, :]
    gain = sigma * n / np.sqrt((plane**2).mean())
    weights, kspace = (plane * gain).astype(np.float32), np.empty(shape, np.complex64)
    for part in blocks(len(kspace)):
        drawn = rng.standard_normal((*kspace[part].shape, 2), np.float32).view(np.complex64)[..., 0]
        np.multiply(drawn, weights, out=kspace[part])
    return kspace
