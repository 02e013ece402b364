"""One simulated subject: the same head scanned in domain A and in domain B, and the truth on A's slices."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data.simulation.anatomy import TISSUES, Anatomy, load_anatomy
from data.simulation.deformation import HEAD_CENTRE_MM, HeadShape, SmoothField, draw_field, draw_shape
from data.simulation.geometry import (
    FOV_MM,
    ScanGeometry,
    SlicedHead,
    draw_geometry,
    fine_axis_mm,
    fine_factor,
    interpolate,
    slice_head,
)
from data.simulation.presets import Preset, Protocol
from data.simulation.scanner import band_limit, noise, receive_field, to_image
from data.simulation.tissue import Tissue, draw_jitter, tissues_at

HETEROGENEITY_MM, HETEROGENEITY_STD = 25.0, 0.03
SNR_JITTER = 0.15
PURPOSES = ("head", "scan A", "scan B")

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """What belongs to the subject, not to the scan: shape, tissue parameters' jitter, signal variation in a tissue."""

    shape: HeadShape
    jitter: dict[str, dict[str, float]]
    variation: SmoothField


@dataclass(frozen=True)
class Scan:
    """One scan as volumes (X, Y, Z) in RAS.

    `image` is what the scanner delivers; `truth` is another protocol's image on the same grid without noise and bias
    (None in domain B); `truth_mask` is the head; `labels` the largest tissue of each voxel (0 air, then `TISSUES`).
    """

    image: Volume
    truth: Volume | None
    truth_mask: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    level_mm: NDArray[np.float64]
    affine: NDArray[np.float64]
    drawn: dict[str, Any]


def generator(seed: int, subject: int, purpose: str) -> np.random.Generator:
    """Independent stream for one purpose of one subject: no order of execution can change what it gives."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(subject, PURPOSES.index(purpose))))


def draw_head(seed: int, subject: int) -> Head:
    """The subject's head, from (seed, subject) alone."""
    rng = generator(seed, subject, "head")
    shape, jitter = draw_shape(rng), draw_jitter(rng)
    return Head(shape, jitter, draw_field(rng, len(TISSUES), HETEROGENEITY_MM, HETEROGENEITY_STD))


def _to_volume(stack: NDArray[Any]) -> NDArray[Any]:
    """(Z, Y, X) -> (X, Y, Z), contiguous."""
    return np.ascontiguousarray(stack.transpose(2, 1, 0))


class Scanner:
    """One head placed in one scan geometry: fractions are resampled once, then any protocol can be imaged."""

    def __init__(self, head: Head, geometry: ScanGeometry, anatomy: Anatomy) -> None:
        self.head, self.geometry = head, geometry
        self.sliced: SlicedHead = slice_head(anatomy, head.shape, geometry)
        centre = HEAD_CENTRE_MM.reshape(3, 1, 1, 1)
        self.variation = head.variation.at(self.sliced.coarse_template - centre).astype(np.float32)

    def _fine(self, coarse: Volume) -> Volume:
        """Bring a smooth (n, y, x) field from the coarse to the fine in-plane grid."""
        fine_mm, coarse_mm = fine_axis_mm(self.geometry.matrix), self.sliced.coarse_mm
        return interpolate(interpolate(coarse, fine_mm, coarse_mm, axis=1), fine_mm, coarse_mm, axis=2)

    def tissues(self, protocol: Protocol) -> dict[str, Tissue]:
        """This subject's tissue parameters at the protocol's field."""
        return tissues_at(protocol.b0_t, self.head.jitter)

    def signal(self, protocol: Protocol) -> Volume:
        """Signed signal (n, N, N) on the fine grid: sum over tissues of fraction times signal."""
        total = np.zeros(self.sliced.fractions.shape[1:], np.float32)
        tissues = self.tissues(protocol)
        for number, name in enumerate(TISSUES):
            strength = np.float32(protocol.sequence.signal(tissues[name]))
            varied = strength * (1 + self._fine(self.variation[number]))
            total += self.sliced.fractions[number] * varied
        return total

    def acquired_lines(self, protocol: Protocol) -> float:
        """k-space lines measured over the field of view."""
        pixel = self.geometry.pixel_mm
        return FOV_MM / max(protocol.resolution_mm or pixel, pixel)

    def ideal(self, protocol: Protocol) -> Volume:
        """Magnitude (n, matrix, matrix) with the protocol's contrast and sharpness, free of noise and bias."""
        kspace = band_limit(self.signal(protocol), self.geometry.matrix, self.acquired_lines(protocol))
        return np.abs(to_image(kspace)).astype(np.float32)

    def image(self, protocol: Protocol, rng: np.random.Generator) -> tuple[Volume, dict[str, float]]:
        """Magnitude (n, matrix, matrix) as the scanner delivers it, and what was drawn for it."""
        bias = receive_field(rng, protocol.bias_std, self.geometry.z_mm, self.sliced.coarse_mm).astype(np.float32)
        snr = protocol.snr_wm * (1 + SNR_JITTER * float(rng.uniform(-1, 1)))
        sigma = abs(protocol.sequence.signal(tissues_at(protocol.b0_t)["wm"])) / snr
        lines = self.acquired_lines(protocol)
        received = self.signal(protocol) * self._fine(bias)
        kspace = band_limit(received, self.geometry.matrix, lines)
        kspace += noise(rng, kspace.shape, lines, sigma)
        return np.abs(to_image(kspace)).astype(np.float32), {"snr_wm": snr, "sigma": sigma}

    def labels(self) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Head mask and largest tissue (0 air), each (n, matrix, matrix)."""
        step = fine_factor(self.geometry.matrix)
        fractions = self.sliced.fractions[:, :, ::step, ::step]
        air = 1 - fractions.sum(0, keepdims=True)
        label = np.concatenate([air, fractions]).argmax(0).astype(np.uint8)
        solid = fractions.sum(0) > 0.5
        return np.stack([ndimage.binary_fill_holes(plane) for plane in solid]), label


def _record(scanner: Scanner, protocol: Protocol, drawn: dict[str, Any]) -> dict[str, Any]:
    """Every drawn parameter of a scan but the random fields, as JSON types."""
    geometry = scanner.geometry
    return {
        "protocol": protocol.name,
        "crop": list(geometry.crop),
        "angles_deg": geometry.pose.angles_deg.tolist(),
        "shift_mm": geometry.pose.shift_mm.tolist(),
        "z_first_mm": float(geometry.z_mm[0]),
        "n_slices": len(geometry.z_mm),
        "shape_matrix": scanner.head.shape.matrix.tolist(),
        "tissues": {name: asdict(tissue) for name, tissue in scanner.tissues(protocol).items()},
        **drawn,
    }


def simulate_scan(
    preset: Preset,
    seed: int,
    subject: int,
    domain: str,
    *,
    matrix: int,
    with_truth: bool,
    anatomy: Anatomy | None = None,
) -> Scan:
    """Scan `subject` in domain `A` (low field) or `B` (high field) of the preset."""
    anatomy = anatomy or load_anatomy()
    protocol = preset.low if domain == "A" else preset.high
    head = draw_head(seed, subject)
    rng = generator(seed, subject, f"scan {domain}")
    geometry = draw_geometry(rng, anatomy, head.shape, matrix=matrix, thickness_mm=protocol.thickness_mm)
    scanner = Scanner(head, geometry, anatomy)
    image, drawn = scanner.image(protocol, rng)
    mask, label = scanner.labels()
    return Scan(
        image=_to_volume(image),
        truth=_to_volume(scanner.ideal(preset.high)) if with_truth else None,
        truth_mask=_to_volume(mask),
        labels=_to_volume(label),
        level_mm=scanner.sliced.level_mm,
        affine=geometry.affine,
        drawn=_record(scanner, protocol, {"subject": subject, "domain": domain, **drawn}),
    )
