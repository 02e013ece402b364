"""Optional faults of a scan: the seven that raters of low-field scans grade (LISA 2024), each with a severity.

Networks for low field meet bad scans, and only scans with known faults show how much a network tolerates. Each fault
acts where its physics does (pose, tissue signal, image before encoding, k-space) and scales with its severity in
(0, 1]. Severity 1 is a scan that a rater would reject, a small severity changes almost nothing, and with equal random
numbers the effect never decreases with severity.

Motion, interference and spikes belong to the scan, not to the receiver: every coil gets a generator in the same state.
Only receiver noise is independent between coils.

Grades of the values: V read in the source, V2 quoted by a second source, C computed, I inferred (docs/facts.md
section 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.deformation import draw_field
from simulation.geometry import COARSE_MM, FOV_MM, Pose, interpolate
from simulation.limits import FAULTS
from simulation.scanner import Sampling, band_limit, noise, to_image
from util.errors import UserError

GRADE_2_FROM = 0.5  # LISA grades 0, 1, 2 [V2]; smallest severity of grade 2 [I]

# Noise added at severity 1, relative to the scan's own. White matter's SNR of 11 at 64 mT falls to 3.5 [C], just below
# ULF-Synth's published range of 3.9 to 7.1 [C from V].
EXTRA_NOISE = 3.0

ZIPPER_LEVEL = 1.0  # RMS along the zipper at severity 1, relative to the head's mean signal [I]
ZIPPER_MARGIN = 0.08  # fraction of the field of view on either side without zippers [I]

SPIKES = 2  # per affected slice [I]
SPIKED_FRACTION = 0.5  # of the slices, at least one [I]
SPIKE_LEVEL = 0.18  # amplitude of one spike's stripes at severity 1, relative to the head's mean signal [I]
SPIKE_CYCLES = (5, 20)  # stripes per field of view, 48 to 12 mm apart: coarse bands [I]

# The preset of a 64 mT project [V2]: drift over a plane, a step, and the change of pose between planes, which a
# restless patient makes within the plane [I]. It is severity 0.5, where a rater starts to notice blur and ghosts [I].
DRIFT_MM, DRIFT_DEG = 1.0, 0.7
STEP_MM = 2.0
RESETTLE_MM, RESETTLE_DEG = (1.5, 3.0), (1.5, 2.0)
PRESETS_AT_1 = 2.0  # multiple of the preset at severity 1
MIDDLE = (0.4, 0.6)  # fraction of the scan: time of step and change of pose; motion at its ends hardly shows [I]
DRIFT_TIMES = (0.25, 0.5, 0.75)  # fractions of the scan at which the drift advances; the head rests in between [I]

CONTRAST_LOST = 0.75  # fraction of the differences between tissues lost at severity 1 [I]

DISPLACEMENT_MM = 8.0  # largest displacement of the head along the readout at severity 1, clearly visible [I]
DISTORTION_CONTROL_MM = 70.0  # spacing of control points: field errors of a magnet are smooth [I]
HEAD_MM = 85.0  # distance from the centre of the field of view within which it is the largest displacement [I]

# Largest shift and tilt at severity 1, and the smallest fraction of them that is drawn. The embedded head is 208 mm
# long in a field of view of 240 mm: 16 mm towards nose or occiput cut off part of it [C]. Sizes [I].
OFF_CENTRE_MM, TILT_DEG = np.array([30.0, 45.0, 35.0]), np.array([10.0, 10.0, 16.0])
LEAST_FRACTION = 0.7

Array = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
Strength = TypeVar("Strength", float, NDArray[np.float64])


# --- faults and severities ---------------------------------------------------------------------------------------


def _check(fault: str, severity: float) -> None:
    if fault not in FAULTS:
        raise UserError(f"fault {fault}: unknown, choose from {', '.join(FAULTS)}")
    if not 0 < severity <= 1:
        raise UserError(f"fault {fault}: severity {severity} must be above 0 and at most 1")


def check_faults(severities: Mapping[str, float]) -> None:
    """Check names and severities of faults.

    Raises:
        UserError: an unknown fault, or a severity outside (0, 1].
    """
    for fault, severity in severities.items():
        _check(fault, severity)


def grade(severity: float) -> int:
    """The rater's grade of LISA: 0 without the fault (severity 0), 1 below 0.5, 2 from 0.5 on [I]."""
    return 0 if severity <= 0 else 2 if severity >= GRADE_2_FROM else 1


def draw_severities(rng: np.random.Generator, names: Iterable[str], probability: float) -> dict[str, float]:
    """Severities uniform in (0, 1] of the faults in `names`, each present with `probability`; in the order of `FAULTS`.

    The same random numbers are drawn for all arguments, and each fault has its own, so another fault or probability
    does not change the severities of the others.

    Raises:
        UserError: an unknown fault, or a probability outside [0, 1].
    """
    wanted = set(names)
    check_faults(dict.fromkeys(wanted, 1.0))
    if not 0 <= probability <= 1:
        raise UserError(f"probability {probability} of a fault must be between 0 and 1")
    drawn = rng.random((len(FAULTS), 2))
    return {
        fault: 1 - float(complement)
        for fault, (chance, complement) in zip(FAULTS, drawn, strict=True)
        if fault in wanted and chance < probability
    }


# --- k-space -----------------------------------------------------------------------------------------------------


def _head_level(kspace: Spectrum) -> float:
    """Mean magnitude of the pixels brighter than the average pixel: the head without air."""
    image = np.abs(to_image(kspace))
    return float(image[image >= image.mean()].mean())


def extra_noise(
    kspace: Spectrum, severity: float, rng: np.random.Generator, *, sampling: Sampling, sigma: float
) -> Spectrum:
    """Additional receiver noise: its standard deviation rises from `sigma` to `sigma` sqrt(1 + (3 severity)^2).

    Args:
        kspace: (n, matrix, matrix) complex64, centred; its own noise is `sigma` per real channel in the image.
        sampling: the measured part of k-space, as for `scanner.noise`.
    """
    _check("noise", severity)
    n, rows, columns = kspace.shape
    return kspace + noise(rng, (n, rows, columns), sampling, EXTRA_NOISE * severity * sigma)


def zipper(kspace: Spectrum, severity: float, rng: np.random.Generator, *, sampling: Sampling) -> Spectrum:
    """A dashed line along phase encoding: radio interference of constant frequency.

    Along the readout it is a pure oscillation, which is one column of the image, the same in all slices. It is not
    synchronised with the sequence: its phase is random in every line, which spreads it along the column.

    Args:
        kspace: (n, matrix, matrix) complex64, centred; lines on axis -2, readout on axis -1.
        sampling: the measured part of k-space, which alone receives the interference.
    """
    _check("zipper", severity)
    n, lines, samples = kspace.shape
    phase, read = sampling.windows(samples)
    column = int(rng.integers(round(ZIPPER_MARGIN * samples), round((1 - ZIPPER_MARGIN) * samples)))
    phases = np.exp(2j * np.pi * rng.random((n, lines, 1)))
    oscillation = np.exp(-2j * np.pi * column * (np.arange(samples) - samples // 2) / samples)
    rms_in_image = read.mean() * np.sqrt((phase**2).mean() / lines)
    amplitude = ZIPPER_LEVEL * severity * _head_level(kspace) / rms_in_image
    return kspace + (amplitude * phase[:, None] * phases * (read * oscillation)).astype(np.complex64)


def banding(kspace: Spectrum, severity: float, rng: np.random.Generator) -> Spectrum:
    """Stripes across a slice from spikes (discharges, gradient noise), each of which adds to one sample of k-space.

    Half of the slices have two spikes each, at low spatial frequencies: raters call coarse stripes banding. Position,
    direction and phase are random for each slice. All other samples are unchanged.

    Args:
        kspace: (n, matrix, matrix) complex64, centred.
    """
    _check("banding", severity)
    n, matrix = len(kspace), kspace.shape[-1]
    chance = rng.random(n)
    affected = chance <= max(SPIKED_FRACTION, chance.min())
    drawn = rng.random((3, n, SPIKES))
    low, high = (min(cycles, matrix // 5) for cycles in SPIKE_CYCLES)
    radius, direction = low + (high - low) * drawn[0], np.pi * drawn[1]  # in the half that partial Fourier measures
    row = np.rint(matrix // 2 + radius * np.sin(direction)).astype(int)
    column = np.rint(matrix // 2 + radius * np.cos(direction)).astype(int)
    amplitude = SPIKE_LEVEL * severity * _head_level(kspace) * matrix**2
    spikes = (amplitude * np.exp(2j * np.pi * drawn[2])).astype(np.complex64)
    spiked = kspace.copy()
    for number in np.flatnonzero(affected):
        np.add.at(spiked[number], (row[number], column[number]), spikes[number])
    return spiked


def line_times(matrix: int, sampling: Sampling, echoes: int) -> NDArray[np.float64]:
    """Acquisition time of each of the `matrix` lines as a fraction in [0, 1) of the scan, the same for all slices.

    A train of `echoes` acquires one line in each of `echoes` bands of k-space, so every band extends over the whole
    scan. With one echo, lines are acquired in order. Lines that are not measured get the time of the nearest line.
    """
    position = (np.arange(matrix) - matrix // 2) / min(sampling.phase, matrix) + 0.5
    position = (position - (1 - sampling.partial)) / sampling.partial
    return np.asarray(np.clip(position, 0, np.nextafter(1, 0)) * echoes % 1)


def draw_poses(rng: np.random.Generator, severity: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses of the head during the scan: a drift, a step and a change of pose, proportional to `severity`.

    Returns:
        Times (5,) at which the pose changes, as ascending fractions of the scan, independent of the severity.
        Poses (6, 3) before, between and after them: x mm, y mm, degrees from the x to the y axis.
    """
    direction = 2 * np.pi * rng.random(3)
    direction[2] = direction[1] + (direction[2] - np.pi) / 3  # not back to the start of the step, which would undo it
    sign = rng.choice([-1.0, 1.0], 2)
    events = rng.uniform(*MIDDLE, 2)
    distance, angle = rng.uniform(*RESETTLE_MM), rng.uniform(*RESETTLE_DEG)
    x, y = np.cos(direction), np.sin(direction)
    drift = np.array([DRIFT_MM * x[0], DRIFT_MM * y[0], DRIFT_DEG * sign[0]])
    step = np.array([STEP_MM * x[1], STEP_MM * y[1], 0.0])
    resettled = np.array([distance * x[2], distance * y[2], angle * sign[1]])
    times = np.sort([*DRIFT_TIMES, *events])
    middle = np.convolve([0, *times, 1], [0.5, 0.5], "valid")[:, None]
    poses = middle * drift + (middle > events[0]) * step + (middle > events[1]) * resettled
    return times, PRESETS_AT_1 * severity * poses


def moving_kspace(
    signal: Array | Spectrum,
    poses: NDArray[np.float64],
    pose_of_line: NDArray[np.int_],
    *,
    matrix: int,
    sampling: Sampling,
) -> Spectrum:
    """`scanner.band_limit` of a head whose pose differs between phase-encoding lines.

    For each line the head is rotated about the centre of the field of view (resampled by cubic splines), then shifted
    by the phase ramp of the shift theorem, which is exact and periodic in the field of view.

    Args:
        signal: (n, N, N) float32 or complex64 over the field of view, N a multiple of `matrix`.
        poses: (p, 3) x mm, y mm, degrees from the x to the y axis.
        pose_of_line: (matrix,) index into `poses` of each line (axis -2).

    Returns:
        Centred k-space (n, matrix, matrix) complex64.
    """
    kspace = np.empty((len(signal), matrix, matrix), np.complex64)
    order = np.arange(matrix) - matrix // 2
    splines = None
    for number in np.unique(pose_of_line):
        x_mm, y_mm, angle = poses[number]
        lines, rotated = pose_of_line == number, signal
        if angle:
            if splines is None:
                splines = ndimage.spline_filter1d(signal, axis=1, output=signal.dtype)
                splines = ndimage.spline_filter1d(splines, axis=2, output=signal.dtype)
            rotated = _rotated(splines, np.radians(angle))
        ramp = np.exp(-2j * np.pi / FOV_MM * (order[lines, None] * y_mm + order * x_mm))
        kspace[:, lines] = band_limit(rotated, matrix, sampling)[:, lines] * ramp.astype(np.complex64)
    return kspace


def _rotated(splines: Array | Spectrum, angle_rad: float) -> Array | Spectrum:
    """Images (n, N, N) of cubic spline coefficients, rotated about sample N/2 from the x towards the y axis."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    back = np.array([[cosine, -sine], [sine, cosine]])  # on (y, x), from the rotated image to the image
    middle = np.full(2, splines.shape[-1] / 2)
    rotated = np.empty_like(splines)
    for plane, out in zip(splines, rotated, strict=True):
        ndimage.affine_transform(plane, back, middle - back @ middle, output=out, mode="nearest", prefilter=False)
    return rotated


def motion(
    signal: Array | Spectrum,
    severity: float,
    rng: np.random.Generator,
    *,
    matrix: int,
    sampling: Sampling,
    echoes: int = 1,
) -> Spectrum:
    """k-space of a head that moves in the plane between lines: ghosts and blur. Replaces `scanner.band_limit`.

    Poses are relative to that of the central line, where the image shows the head, so truth and labels stay registered.
    The slices are interleaved and share the motion. Through-plane motion is not simulated.

    Args:
        signal: (n, N, N) float32 or complex64 over the field of view, N a multiple of `matrix`.
        matrix, sampling: as for `scanner.band_limit`.
        echoes: length of the echo train, see `line_times`.

    Returns:
        Centred k-space (n, matrix, matrix) complex64.
    """
    _check("motion", severity)
    times, poses = draw_poses(rng, severity)
    pose_of_line = np.searchsorted(times, line_times(matrix, sampling, echoes), side="right")
    poses -= poses[pose_of_line[matrix // 2]]
    return moving_kspace(signal, poses, pose_of_line, matrix=matrix, sampling=sampling)


# --- before k-space ----------------------------------------------------------------------------------------------


def distortion(signal: Array, severity: float, rng: np.random.Generator, *, z_mm: NDArray[np.float64]) -> Array:
    """Displacement along the readout by smooth errors of the magnet's and the gradients' field.

    Compressed regions become brighter, stretched ones darker: s'(x) = s(g) dg/dx at g = x - u(x), integrated over whole
    samples, which conserves the signal.

    Args:
        signal: (n, N, N) float32 over the field of view; readout on axis -1.
        z_mm: (n,) positions of the slices.

    Returns:
        (n, N, N) float32.
    """
    _check("distortion", severity)
    field = draw_field(rng, 1, DISTORTION_CONTROL_MM, 1.0)
    coarse = np.arange(-FOV_MM / 2, FOV_MM / 2 + COARSE_MM, COARSE_MM)
    u = field.at(np.stack(np.meshgrid(z_mm - z_mm.mean(), coarse, coarse, indexing="ij")[::-1]))[0]
    middle = np.abs(coarse) <= HEAD_MM
    u *= DISPLACEMENT_MM * severity / np.abs(u[:, middle][:, :, middle]).max()
    n = signal.shape[-1]
    lines = (np.arange(n) - n / 2) * FOV_MM / n
    edges = (np.arange(n + 1) - (n + 1) / 2) * FOV_MM / n
    u = interpolate(interpolate(u, lines, coarse, axis=1), edges, coarse, axis=2)
    origin = np.clip(np.arange(n + 1) - u * n / FOV_MM, 0, n)
    cumulative = np.zeros((*signal.shape[:-1], n + 1))
    np.cumsum(signal, axis=-1, out=cumulative[..., 1:], dtype=np.float64)
    low = np.minimum(origin.astype(int), n - 1)
    integral = np.take_along_axis(cumulative, low, -1) + (origin - low) * np.take_along_axis(signal, low, -1)
    return np.diff(integral, axis=-1).astype(np.float32)


def contrast_loss(signals: Mapping[str, Strength], severity: float) -> dict[str, Strength]:
    """Move the signals of gm, wm and csf towards their mean; other tissues are unchanged.

    Only magnitudes move, and signs are kept: signals of opposite sign would otherwise cancel.

    Args:
        signals: signal by tissue, numbers or arrays of one shape.
    """
    _check("contrast", severity)
    brain = ("gm", "wm", "csf")
    mean = sum(np.abs(signals[name]) for name in brain) / len(brain)
    lost = CONTRAST_LOST * severity
    moved = {name: np.sign(signals[name]) * ((1 - lost) * np.abs(signals[name]) + lost * mean) for name in brain}
    return {**signals, **moved}


def contrast_kept(severity: float) -> dict[str, float]:
    """What is left of the contrast inside gm, wm and csf after `contrast_loss`, as factors by tissue."""
    return dict.fromkeys(("gm", "wm", "csf"), 1 - CONTRAST_LOST * severity)


def mispositioned(pose: Pose, severity: float, rng: np.random.Generator) -> Pose:
    """The head off centre and tilted; near severity 1, part of it is outside the field of view and the slices.

    Apply it after the slices are planned, as they would follow the head. Parts outside the field of view are cut off;
    they do not alias.
    """
    _check("positioning", severity)
    signs, fractions = rng.choice([-1.0, 1.0], (2, 3)), rng.uniform(LEAST_FRACTION, 1, (2, 3))
    tilt, shift = severity * signs * fractions * np.stack([TILT_DEG, OFF_CENTRE_MM])
    return Pose(pose.angles_deg + tilt, pose.shift_mm + shift)
