"""One simulated subject: the same head scanned in domains A and B, and the truth on A's slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.ageing import aged
from simulation.anatomy import Anatomy, load_anatomy
from simulation.deformation import HeadShape, draw_shape
from simulation.faults import (
    FAULTS,
    banding,
    contrast_kept,
    contrast_loss,
    distortion,
    draw_severities,
    extra_noise,
    grade,
    mispositioned,
    motion,
    zipper,
)
from simulation.geometry import (
    FOV_MM,
    ScanGeometry,
    SlicedHead,
    draw_geometry,
    fine_axis_mm,
    fine_factor,
    interpolate,
    slice_head,
    to_embedded,
)
from simulation.presets import Preset, Protocol
from simulation.scanner import (
    LEAST_FACTOR,
    Sampling,
    band_limit,
    blocks,
    centre_bright,
    coil_sensitivities,
    combined,
    fat_shift_mm,
    noise,
    receive_field,
    to_image,
)
from simulation.sequences import NOMINAL, FastSpinEcho
from simulation.texture import MAPS, RANDOM, Texture, draw_texture, responses
from simulation.tissue import Tissue, draw_jitter, tissues_at

SNR_JITTER = 0.15
TRANSMIT_STEPS = 32  # flip angles at which signals are computed; linear in between
EVERYWHERE = (slice(None), slice(None))
PURPOSES = ("head", "scan A", "scan B", "faults A", "faults B", "lesions", "coverage", "texture", "age")

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """Properties of the subject, not of a scan: shape, jitter of tissue parameters, their variation inside tissues."""

    shape: HeadShape
    jitter: dict[str, dict[str, float]]
    texture: Texture


@dataclass(frozen=True)
class Scan:
    """One scan as volumes (X, Y, Z) in RAS.

    `image` is the scanner's image; `truth` the other protocol's image on the same grid without noise and bias (None in
    domain B); `truth_mask` the head; `labels` the number in `LABELS` with the largest part of each voxel; `lesions` the
    voxels that are mostly lesion (None if the head has none); `drawn` all random parameters, as JSON types.
    """

    image: Volume
    truth: Volume | None
    truth_mask: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    lesions: NDArray[np.bool_] | None
    level_mm: NDArray[np.float64]
    affine: NDArray[np.float64]
    drawn: dict[str, Any]


def generator(seed: int, subject: int, purpose: str) -> np.random.Generator:
    """An independent random stream for one purpose of one subject, which does not depend on the order of execution."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(subject, PURPOSES.index(purpose))))


@dataclass(frozen=True)
class ScanFaults:
    """The faults of one scan: `severities` in (0, 1] by fault, and a random stream for each."""

    severities: Mapping[str, float]
    seed: int = 0
    subject: int = 0
    domain: str = "A"

    def generator(self, fault: str) -> np.random.Generator:
        """The random stream of a fault, restarted by every call."""
        key = (self.subject, PURPOSES.index(f"faults {self.domain}"), FAULTS.index(fault))
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


NO_FAULTS = ScanFaults({})


def upper_only(seed: int, subject: int) -> bool:
    """Whether a subject belongs to the half that `Coverage.upper` is for: one of every two neighbouring numbers."""
    return bool((subject + int(generator(seed, subject // 2, "coverage").integers(2))) % 2)


def draw_head(seed: int, subject: int, deformation: float = 1.0, age: float | None = None) -> Head:
    """The subject's head, a function of (seed, subject); `deformation` as for `draw_shape`.

    `age` in years changes its tissues; None leaves them as they are in the middle of life.
    """
    rng = generator(seed, subject, "head")
    shape, jitter = draw_shape(rng, deformation), draw_jitter(rng)
    tissues = jitter if age is None else aged(jitter, age)
    return Head(shape, tissues, draw_texture(generator(seed, subject, "texture")))


def _to_volume(stack: NDArray[Any]) -> NDArray[Any]:
    """(Z, Y, X) -> (X, Y, Z), contiguous."""
    return np.ascontiguousarray(stack.transpose(2, 1, 0))


class Scanner:
    """One head in one scan geometry: fractions are resampled once, then any protocol can be imaged."""

    def __init__(self, head: Head, geometry: ScanGeometry, anatomy: Anatomy, faults: ScanFaults = NO_FAULTS) -> None:
        self.head, self.geometry, self.anatomy, self.faults = head, geometry, anatomy, faults
        self.sliced: SlicedHead = slice_head(anatomy, head.shape, geometry)
        from_centre = self.sliced.coarse_template - anatomy.centre_mm.reshape(3, 1, 1, 1)
        in_template = to_embedded(anatomy, self.sliced.coarse_template)
        self.smooth_maps = head.texture.smooth_at(from_centre, in_template).astype(np.float32)
        self.maps = self._random_maps(from_centre.astype(np.float32))

    def _random_maps(self, from_centre: Volume) -> Volume:
        """The maps (2, n, N, N) of `RANDOM` on the fine grid, zero beyond the head."""
        window = self.sliced.window
        maps = np.zeros((len(RANDOM), *self.sliced.fractions.shape[1:]), np.float32)
        fine_part = self.head.texture.fine_sampler(self.geometry.thickness_mm)
        for part in blocks(maps.shape[1]):
            at = np.stack([self._fine(axis[part], window) for axis in from_centre])
            smooth = np.stack([self._fine(values[part], window) for values in self.smooth_maps[: len(RANDOM)]])
            maps[:, part, *window] = smooth + fine_part(at)
        return maps

    def _fine(self, coarse: NDArray[Any], window: tuple[slice, slice] = EVERYWHERE) -> NDArray[Any]:
        """Interpolate a smooth field (n, y, x) from the coarse to the fine in-plane grid, or a window of it."""
        fine_mm, coarse_mm = fine_axis_mm(self.geometry.matrix), self.sliced.coarse_mm
        rows, columns = (fine_mm[part] for part in window)
        return interpolate(interpolate(coarse, rows, coarse_mm, axis=1), columns, coarse_mm, axis=2)

    def tissues(self, protocol: Protocol) -> dict[str, Tissue]:
        """This subject's tissue parameters at the protocol's field."""
        return tissues_at(protocol.b0_t, self.head.jitter, self.anatomy.tissues)

    def with_slices_of(self, protocol: Protocol) -> Scanner:
        """The same head and slice positions with the slice thickness of `protocol`."""
        current = self.geometry
        if protocol.thickness_mm == current.thickness_mm:
            return self
        gap = current.thickness_mm + current.gap_mm - protocol.thickness_mm  # negative if slices overlap
        geometry = replace(current, thickness_mm=protocol.thickness_mm, gap_mm=gap)
        return Scanner(self.head, geometry, self.anatomy, self.faults)

    def signal(self, protocol: Protocol, *, ideal: bool = False) -> Volume:
        """Signed signal (n, N, N) on the fine grid: sum over tissues of fraction times signal.

        `ideal`: nominal flip angle everywhere and no fat shift.
        """
        total = np.zeros(self.sliced.fractions.shape[1:], np.float32)
        strengths = self._strengths(protocol, ideal=ideal)
        for part in blocks(len(total)):
            slopes = [np.zeros_like(total[part]) for _ in MAPS]
            for number, name in enumerate(self.anatomy.tissues):
                fraction = self.sliced.fractions[number, part]
                if name == "fat" and protocol.bandwidth_hz and not ideal:
                    fraction = self._shifted(fraction, protocol)
                for into, strength in zip((total[part], *slopes), strengths[name], strict=True):
                    if strength is not None:
                        into += fraction * self._on_grid(strength, part)
            for number, slope in enumerate(slopes):
                smooth = number >= len(RANDOM)
                slope *= self._fine(self.smooth_maps[number, part]) if smooth else self.maps[number, part]
                total[part] += slope
        return total

    def _on_grid(self, strength: NDArray[np.float64], part: slice) -> Volume | np.float32:
        """A signal on the fine grid: a number if it is the same everywhere, else interpolated from the coarse grid."""
        return np.float32(strength[0]) if strength.ndim == 1 else self._fine(strength[part].astype(np.float32))

    def _strengths(self, protocol: Protocol, *, ideal: bool) -> dict[str, list[NDArray[np.float64] | None]]:
        """Signed signal of every tissue and its slope with each of `MAPS` (None: not varied by it).

        Each is a number, shape (1,), or (n, y, x) on the coarse grid if the flip angle varies.
        """
        tissues, sequence = self.tissues(protocol), protocol.sequence
        transmit, angles = None, NOMINAL
        if protocol.transmit_drop and not ideal:
            transmit = centre_bright(protocol.transmit_drop, self.geometry.z_mm, self.sliced.coarse_mm)
            angles = np.linspace(LEAST_FACTOR, 1 + protocol.transmit_drop / 2, TRANSMIT_STEPS)

        def placed(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return values if transmit is None else np.interp(transmit, angles, values)

        signals = {name: placed(sequence.signal(tissue, angles)) for name, tissue in tissues.items()}
        faded = {}
        if (severity := self.faults.severities.get("contrast", 0.0)) and not ideal:
            signals, faded = contrast_loss(signals, severity), contrast_kept(severity)
        strengths: dict[str, list[NDArray[np.float64] | None]] = {}
        for name in tissues:
            slopes = responses(sequence, protocol.b0_t, name, tuple(angles))
            kept = faded.get(name, 1.0)
            strengths[name] = [signals[name], *(placed(kept * slopes[m]) if m in slopes else None for m in MAPS)]
        return strengths

    def _shifted(self, fraction: Volume, protocol: Protocol) -> Volume:
        """Fat displaced to the right by its chemical shift along the readout."""
        assert protocol.bandwidth_hz is not None
        shift = fat_shift_mm(protocol.b0_t, protocol.bandwidth_hz, protocol.resolution_mm)
        x = fine_axis_mm(self.geometry.matrix)
        return interpolate(fraction, x - shift, x, axis=2)

    def sampling(self, protocol: Protocol) -> Sampling:
        """The measured part of k-space."""
        pixel = self.geometry.pixel_mm
        read_mm, phase_mm, _ = protocol.voxel_mm
        return Sampling(FOV_MM / max(phase_mm, pixel), FOV_MM / max(read_mm, pixel), protocol.partial_fourier)

    def ideal(self, protocol: Protocol) -> Volume:
        """Magnitude (n, matrix, matrix) with the protocol's contrast and resolution, without noise and bias."""
        sampling = replace(self.sampling(protocol), partial=1.0)
        kspace = band_limit(self.signal(protocol, ideal=True), self.geometry.matrix, sampling)
        return np.abs(to_image(kspace)).astype(np.float32)

    def image(self, protocol: Protocol, rng: np.random.Generator) -> tuple[Volume, dict[str, float]]:
        """The scanner's magnitude image (n, matrix, matrix), and the parameters drawn for it."""
        positions = self.geometry.z_mm, self.sliced.coarse_mm
        bias = receive_field(rng, protocol.bias_std, *positions) * centre_bright(protocol.receive_drop, *positions)
        snr = protocol.snr_wm * (1 + SNR_JITTER * float(rng.uniform(-1, 1)))
        sigma = abs(float(protocol.sequence.signal(tissues_at(protocol.b0_t)["wm"])[0])) / snr
        received = self.signal(protocol)
        for part in blocks(len(received)):
            received[part] *= self._fine(bias[part].astype(np.float32))
        if severity := self.faults.severities.get("distortion"):
            received = distortion(received, severity, self.faults.generator("distortion"), z_mm=self.geometry.z_mm)
        return self.acquire(received, protocol, sigma, rng), {"snr_wm": snr, "sigma": sigma}

    def acquire(self, received: Volume, protocol: Protocol, sigma: float, rng: np.random.Generator) -> Volume:
        """One repetition: magnitude (n, matrix, matrix) of a signal on the fine grid, with independent noise."""
        sampling, coil_images = self.sampling(protocol), []
        fault_rng = self.faults.generator("noise")
        for sensitivity in self._sensitivities(protocol.coils):
            coil_signal = received if sensitivity is None else received * self._fine(sensitivity)
            kspace = self._encode(coil_signal, protocol, sampling)
            kspace += noise(rng, kspace.shape, sampling, sigma)
            if severity := self.faults.severities.get("noise"):
                kspace = extra_noise(kspace, severity, fault_rng, sampling=sampling, sigma=sigma)
            coil_images.append(to_image(kspace))
        return combined(coil_images)

    def _encode(self, signal: NDArray[Any], protocol: Protocol, sampling: Sampling) -> NDArray[np.complex64]:
        """k-space without noise; its faults are the same for every coil."""
        faults, matrix = self.faults, self.geometry.matrix
        if severity := faults.severities.get("motion"):
            echoes = protocol.sequence.n_echoes if isinstance(protocol.sequence, FastSpinEcho) else 1
            rng = faults.generator("motion")
            kspace = motion(signal, severity, rng, matrix=matrix, sampling=sampling, echoes=echoes)
        else:
            kspace = band_limit(signal, matrix, sampling)
        if severity := faults.severities.get("zipper"):
            kspace = zipper(kspace, severity, faults.generator("zipper"), sampling=sampling)
        if severity := faults.severities.get("banding"):
            kspace = banding(kspace, severity, faults.generator("banding"))
        return kspace

    def _sensitivities(self, coils: int) -> Sequence[NDArray[np.complex64] | None]:
        """The sensitivity of each receiver, (n, y, x) on the coarse grid; None for uniform sensitivity."""
        return [*coil_sensitivities(coils, self.geometry.z_mm, self.sliced.coarse_mm)] if coils else [None]

    def labels(self) -> tuple[NDArray[np.bool_], NDArray[np.uint8], NDArray[np.bool_]]:
        """Head mask, number in `LABELS` of the largest tissue, and lesion mask, each (n, matrix, matrix)."""
        step = fine_factor(self.geometry.matrix)
        fractions = self.sliced.fractions[:, :, ::step, ::step]
        head = fractions.sum(0)
        largest, label = 1 - head, np.zeros(head.shape, np.uint8)
        numbers = self.anatomy.label_numbers[1:]
        for number in np.unique(numbers):
            fraction = fractions[numbers == number].sum(0)
            larger = fraction > largest
            label[larger], largest = number, np.maximum(largest, fraction)
        mask = np.stack([_filled(plane) for plane in head > 0.5])
        return mask, label, fractions[self.anatomy.is_lesion].sum(0) > 0.5


def _filled(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The plane (Y, X) without holes: as `binary_fill_holes`, in a third of the time."""
    outside, _ = ndimage.label(~plane)
    reached = np.zeros(outside.max() + 1, bool)
    for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        reached[edge] = True
    reached[0] = False
    return np.asarray(~reached[outside])


def _record(scanner: Scanner, protocol: Protocol, drawn: dict[str, Any]) -> dict[str, Any]:
    """All drawn parameters of a scan except the random fields, as JSON types."""
    geometry = scanner.geometry
    return {
        "protocol": protocol.name,
        "voxel_mm": list(protocol.voxel_mm),
        "gap_mm": protocol.gap_mm,
        "crop": list(geometry.crop),
        "angles_deg": geometry.pose.angles_deg.tolist(),
        "shift_mm": geometry.pose.shift_mm.tolist(),
        "z_first_mm": float(geometry.z_mm[0]),
        "n_slices": len(geometry.z_mm),
        "shape_matrix": scanner.head.shape.matrix.tolist(),
        "tissues": {name: asdict(tissue) for name, tissue in scanner.tissues(protocol).items()},
        "faults": {
            name: {"severity": severity, "grade": grade(severity)}
            for name, severity in scanner.faults.severities.items()
        },
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
    deformation: float = 1.0,
    age: float | None = None,
    faults: Sequence[str] = (),
    fault_probability: float = 0.0,
) -> Scan:
    """Scan `subject` in domain `A` (low field) or `B` (high field) of the preset, on a grid of `matrix` pixels a side.

    Voxels and noise are what `Preset.on_grid` makes of the protocols. The scan has each of `faults` with
    `fault_probability`. Its truth, mask and labels have no faults but follow the pose of the head.
    """
    anatomy = anatomy or load_anatomy()
    preset = preset.on_grid(FOV_MM / matrix)
    protocol, coverage = (preset.low, preset.low_coverage) if domain == "A" else (preset.high, preset.high_coverage)
    head = draw_head(seed, subject, deformation, age)
    rng = generator(seed, subject, f"scan {domain}")
    geometry = draw_geometry(
        rng,
        anatomy,
        head.shape,
        matrix=matrix,
        thickness_mm=protocol.thickness_mm,
        gap_mm=protocol.gap_mm,
        coverage=coverage,
        upper_only=upper_only(seed, subject),
    )
    drawn_faults = draw_severities(generator(seed, subject, f"faults {domain}"), faults, fault_probability)
    scan_faults = ScanFaults(drawn_faults, seed, subject, domain)
    if severity := scan_faults.severities.get("positioning"):
        pose = mispositioned(geometry.pose, severity, scan_faults.generator("positioning"))
        geometry = replace(geometry, pose=pose)
    scanner = Scanner(head, geometry, anatomy, scan_faults)
    image, drawn = scanner.image(protocol, rng)
    mask, label, lesions = scanner.labels()
    return Scan(
        image=_to_volume(image),
        truth=_to_volume(scanner.with_slices_of(preset.high).ideal(preset.high)) if with_truth else None,
        truth_mask=_to_volume(mask),
        labels=_to_volume(label),
        lesions=_to_volume(lesions) if anatomy.is_lesion.any() else None,
        level_mm=scanner.sliced.level_mm,
        affine=geometry.affine,
        drawn=_record(scanner, protocol, {"subject": subject, "domain": domain, "age": age, **drawn}),
    )
