"""Optional faults of a scan: the seven that raters of low-field scans grade (LISA 2024), each with its severity.

Networks for low field meet bad scans: how bad one may become before synthesis fails can only be asked of scans whose
faults are known. So every fault acts where its physics puts it (pose, tissue signal, image before encoding, k-space)
and scales with one number, its severity in (0, 1]. 1 is a scan that a rater would reject, a small severity changes
next to nothing, and for equal random numbers a larger severity never does less.

Movement, interference and spikes belong to the scan, not to the receiver: of a scan with several coils each is given a
generator in the same state. Receiver noise alone goes on drawing from coil to coil.

Values stand beside source and grade: V read in the source, V2 quoted by a second source, C computed, I inferred
(docs/facts.md section 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.deformation import draw_field
from simulation.geometry import COARSE_MM, FOV_MM, Pose, interpolate
from simulation.scanner import Sampling, band_limit, noise, to_image
from util.errors import UserError

FAULTS = ("noise", "zipper", "positioning", "banding", "motion", "contrast", "distortion")  # LISA's labels [V2]
GRADE_2_FROM = 0.5  # LISA grades 0, 1, 2 [V2]; where a severity passes from 1 to 2 [I]

# Noise added at severity 1, over the scan's own: white matter's SNR of 11 at 64 mT falls to 3.5 [C], just below the 3.9
# to 7.1 of ULF-Synth's published range [C from V].
EXTRA_NOISE = 3.0

ZIPPER_LEVEL = 1.0  # root mean square along the zipper at severity 1, over the head's mean signal [I]
ZIPPER_MARGIN = 0.08  # of the field of view on either side that the zipper spares [I]

SPIKES = 2  # in one struck slice [I]
SPIKED_SHARE = 0.5  # of the slices that are struck; one at least [I]
SPIKE_LEVEL = 0.18  # amplitude of one spike's stripes at severity 1, over the head's mean signal [I]
SPIKE_CYCLES = (5, 20)  # stripes over the field of view, so 48 to 12 mm apart: bands, not a fine weave [I]

# The preset of a 64 mT project [V2]: drift over a plane, a step, and the change of pose between planes; the latter a
# restless patient makes within the plane [I]. It is severity 0.5: blur and ghosts that a rater begins to mind [I].
DRIFT_MM, DRIFT_DEG = 1.0, 0.7
STEP_MM = 2.0
RESETTLE_MM, RESETTLE_DEG = (1.5, 3.0), (1.5, 2.0)
PRESETS_AT_1 = 2.0
MIDDLE = (0.4, 0.6)  # of the scan: when the head steps and resettles; at its ends movement hardly shows [I]
DRIFTS_ON = (0.25, 0.5, 0.75)  # shares of the scan; between them the head lies still [I]

CONTRAST_LOST = 0.75  # share of the tissues' differences that is gone at severity 1 [I]

DISPLACEMENT_MM = 8.0  # largest displacement of the head along the readout at severity 1: a few mm, clearly seen [I]
DISTORTION_CONTROL_MM = 70.0  # distance of control points: an imperfect magnet's field has no small features [I]
HEAD_MM = 85.0  # from the middle of the field of view, where that displacement counts [I]

# Off centre and tilted at severity 1, and the least share of it that is drawn. The embedded head is 208 mm long in a
# field of view of 240: 16 mm towards nose or occiput are enough to lose some of it [C]. Sizes [I].
OFF_CENTRE_MM, TILT_DEG = np.array([30.0, 45.0, 35.0]), np.array([10.0, 10.0, 16.0])
LEAST_SHARE = 0.7

Array = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
Strength = TypeVar("Strength", float, NDArray[np.float64])


# --- which, and how bad ------------------------------------------------------------------------------------------


def _check(fault: str, severity: float) -> None:
    if fault not in FAULTS:
        raise UserError(f"fault {fault}: unknown, choose from {', '.join(FAULTS)}")
    if not 0 < severity <= 1:
        raise UserError(f"fault {fault}: severity {severity} must be above 0 and at most 1")


def check_faults(severities: Mapping[str, float]) -> None:
    """Refuse what is no fault, and severities outside (0, 1].

    Raises:
        UserError: naming the fault, its severity and what is allowed.
    """
    for fault, severity in severities.items():
        _check(fault, severity)


def grade(severity: float) -> int:
    """The rater's grade, as LISA counts: 0 no fault (severity 0), 1 below 0.5, 2 from 0.5 on [I]."""
    return 0 if severity <= 0 else 2 if severity >= GRADE_2_FROM else 1


def draw_severities(rng: np.random.Generator, names: Iterable[str], probability: float) -> dict[str, float]:
    """Each fault of `names` with `probability`, its severity uniform in (0, 1]; in the order of `FAULTS`.

    As many numbers are drawn whatever the arguments, and each fault has its own: asking for one fault more, or more
    often, leaves the others what they were.

    Raises:
        UserError: an unknown fault, or a probability outside [0, 1].
    """
    wanted = set(names)
    check_faults(dict.fromkeys(wanted, 1.0))
    if not 0 <= probability <= 1:
        raise UserError(f"probability {probability} of a fault must be between 0 and 1")
    drawn = rng.random((len(FAULTS), 2))
    return {
        fault: 1 - float(size)
        for fault, (chance, size) in zip(FAULTS, drawn, strict=True)
        if fault in wanted and chance < probability
    }


# --- k-space -----------------------------------------------------------------------------------------------------


def _head_level(kspace: Spectrum) -> float:
    """Mean magnitude of the pixels brighter than the average pixel: the head's, air left out."""
    image = np.abs(to_image(kspace))
    return float(image[image >= image.mean()].mean())


def extra_noise(
    kspace: Spectrum, severity: float, rng: np.random.Generator, *, sampling: Sampling, sigma: float
) -> Spectrum:
    """More receiver noise: its standard deviation grows from `sigma` to `sigma` sqrt(1 + (3 severity)^2).

    Args:
        kspace: (n, matrix, matrix) complex64, centred; its own noise is `sigma` per real channel once in the image.
        sampling: what is measured of k-space, as for `scanner.noise`.
    """
    _check("noise", severity)
    n, rows, columns = kspace.shape
    return kspace + noise(rng, (n, rows, columns), sampling, EXTRA_NOISE * severity * sigma)


def zipper(kspace: Spectrum, severity: float, rng: np.random.Generator, *, sampling: Sampling) -> Spectrum:
    """A dashed line along phase encoding: radio interference at one constant frequency.

    Along a readout it is a pure oscillation, hence one column of the image, the same in all slices. It knows nothing of
    the pulse sequence: its phase is another one in every line, which strews it over the column.

    Args:
        kspace: (n, matrix, matrix) complex64, centred; lines on axis -2, readout on axis -1.
        sampling: what is measured of k-space; the interference is received there only.
    """
    _check("zipper", severity)
    n, lines, samples = kspace.shape
    phase, read = sampling.windows(samples)
    column = int(rng.integers(round(ZIPPER_MARGIN * samples), round((1 - ZIPPER_MARGIN) * samples)))
    turns = np.exp(2j * np.pi * rng.random((n, lines, 1)))
    oscillation = np.exp(-2j * np.pi * column * (np.arange(samples) - samples // 2) / samples)
    rms_once_in_image = read.mean() * np.sqrt((phase**2).mean() / lines)
    amplitude = ZIPPER_LEVEL * severity * _head_level(kspace) / rms_once_in_image
    return kspace + (amplitude * phase[:, None] * turns * (read * oscillation)).astype(np.complex64)


def banding(kspace: Spectrum, severity: float, rng: np.random.Generator) -> Spectrum:
    """Stripes across a slice: spikes (discharges, gradient noise), each of which adds to one sample of k-space.

    Half of the slices are struck, twice each, at low spatial frequencies: raters call coarse stripes banding. Position,
    direction and phase differ from slice to slice. All other samples keep their bytes.

    Args:
        kspace: (n, matrix, matrix) complex64, centred.
    """
    _check("banding", severity)
    n, matrix = len(kspace), kspace.shape[-1]
    struck = rng.random(n)
    struck = struck <= max(SPIKED_SHARE, struck.min())
    drawn = rng.random((3, n, SPIKES))
    low, high = (min(cycles, matrix // 5) for cycles in SPIKE_CYCLES)
    radius, direction = low + (high - low) * drawn[0], np.pi * drawn[1]  # the half that partial Fourier measures too
    row = np.rint(matrix // 2 + radius * np.sin(direction)).astype(int)
    column = np.rint(matrix // 2 + radius * np.cos(direction)).astype(int)
    amplitude = SPIKE_LEVEL * severity * _head_level(kspace) * matrix**2
    spikes = (amplitude * np.exp(2j * np.pi * drawn[2])).astype(np.complex64)
    spiked = kspace.copy()
    for number in np.flatnonzero(struck):
        np.add.at(spiked[number], (row[number], column[number]), spikes[number])
    return spiked


def line_times(matrix: int, sampling: Sampling, echoes: int) -> NDArray[np.float64]:
    """When each of the `matrix` lines is taken, as a share in [0, 1) of the scan, the same for all slices.

    An echo train of `echoes` takes one line from each of as many bands of k-space; so every band sees the whole scan.
    With one echo the lines follow each other. Lines that are not measured count with the nearest one that is.
    """
    position = (np.arange(matrix) - matrix // 2) / min(sampling.phase, matrix) + 0.5
    position = (position - (1 - sampling.partial)) / sampling.partial
    return np.asarray(np.clip(position, 0, np.nextafter(1, 0)) * echoes % 1)


def draw_poses(rng: np.random.Generator, severity: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the head lies during the scan: a drift, a step and a change of position, proportional to `severity`.

    Returns:
        Moments (5,) at which the pose changes, as shares of the scan, ascending; they do not depend on the severity.
        Poses (6, 3) before, between and after: x mm, y mm, degrees from the x to the y axis.
    """
    towards = 2 * np.pi * rng.random(3)
    towards[2] = towards[1] + (towards[2] - np.pi) / 3  # not back to where the step came from: that would undo it
    turned = rng.choice([-1.0, 1.0], 2)
    events = rng.uniform(*MIDDLE, 2)
    far, angle = rng.uniform(*RESETTLE_MM), rng.uniform(*RESETTLE_DEG)
    x, y = np.cos(towards), np.sin(towards)
    drift = np.array([DRIFT_MM * x[0], DRIFT_MM * y[0], DRIFT_DEG * turned[0]])
    step = np.array([STEP_MM * x[1], STEP_MM * y[1], 0.0])
    resettled = np.array([far * x[2], far * y[2], angle * turned[1]])
    moments = np.sort([*DRIFTS_ON, *events])
    part = np.convolve([0, *moments, 1], [0.5, 0.5], "valid")[:, None]
    poses = part * drift + (part > events[0]) * step + (part > events[1]) * resettled
    return moments, PRESETS_AT_1 * severity * poses


def moving_kspace(
    signal: Array | Spectrum,
    poses: NDArray[np.float64],
    pose_of_line: NDArray[np.int_],
    *,
    matrix: int,
    sampling: Sampling,
) -> Spectrum:
    """`scanner.band_limit` of a head that lies otherwise in some lines than in others.

    Every line is that of the head turned about the middle of the field of view (resampled by cubic splines), then
    shifted (by the phase ramp that the shift theorem asks for: exact, and periodic as the field of view is).

    Args:
        signal: (n, N, N) float32 or complex64 over the field of view, N a multiple of `matrix`.
        poses: (p, 3) x mm, y mm, degrees from the x to the y axis.
        pose_of_line: (matrix,) the row of `poses` that holds for each line (axis -2).

    Returns:
        Centred k-space (n, matrix, matrix) complex64.
    """
    kspace = np.empty((len(signal), matrix, matrix), np.complex64)
    order = np.arange(matrix) - matrix // 2
    splines = None
    for number in np.unique(pose_of_line):
        x_mm, y_mm, angle = poses[number]
        lines, turned = pose_of_line == number, signal
        if angle:
            if splines is None:
                splines = ndimage.spline_filter1d(signal, axis=1, output=signal.dtype)
                splines = ndimage.spline_filter1d(splines, axis=2, output=signal.dtype)
            turned = _turned(splines, np.radians(angle))
        ramp = np.exp(-2j * np.pi / FOV_MM * (order[lines, None] * y_mm + order * x_mm))
        kspace[:, lines] = band_limit(turned, matrix, sampling)[:, lines] * ramp.astype(np.complex64)
    return kspace


def _turned(splines: Array | Spectrum, angle_rad: float) -> Array | Spectrum:
    """Images (n, N, N) of cubic spline coefficients, turned about sample N/2, from the x towards the y axis."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    back = np.array([[cosine, -sine], [sine, cosine]])  # on (y, x), from the turned image to the image
    middle = np.full(2, splines.shape[-1] / 2)
    turned = np.empty_like(splines)
    for plane, out in zip(splines, turned, strict=True):
        ndimage.affine_transform(plane, back, middle - back @ middle, output=out, mode="nearest", prefilter=False)
    return turned


def motion(
    signal: Array | Spectrum,
    severity: float,
    rng: np.random.Generator,
    *,
    matrix: int,
    sampling: Sampling,
    echoes: int = 1,
) -> Spectrum:
    """k-space of a head that moves in the plane between phase lines: ghosts and blur. Stands for `scanner.band_limit`.

    Positions count from where the head lies when the middle line is taken, which is where the image shows it: truth and
    labels stay in register. All slices share the movement, being taken in turns. Motion through the plane is left out.

    Args:
        signal: (n, N, N) float32 or complex64 over the field of view, N a multiple of `matrix`.
        matrix, sampling: as for `scanner.band_limit`.
        echoes: length of the echo train, see `line_times`.

    Returns:
        Centred k-space (n, matrix, matrix) complex64.
    """
    _check("motion", severity)
    moments, poses = draw_poses(rng, severity)
    pose_of_line = np.searchsorted(moments, line_times(matrix, sampling, echoes), side="right")
    poses -= poses[pose_of_line[matrix // 2]]
    return moving_kspace(signal, poses, pose_of_line, matrix=matrix, sampling=sampling)


# --- before k-space ----------------------------------------------------------------------------------------------


def distortion(signal: Array, severity: float, rng: np.random.Generator, *, z_mm: NDArray[np.float64]) -> Array:
    """Displacement along the readout by errors of the magnet's and the gradients' field, smooth in space.

    What is pushed together becomes brighter, what is pulled apart darker: s'(x) = s(g) dg/dx at g = x - u(x), taken
    over whole samples, so that none of the signal is lost.

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
    rows = (np.arange(n) - n / 2) * FOV_MM / n
    edges = (np.arange(n + 1) - (n + 1) / 2) * FOV_MM / n
    u = interpolate(interpolate(u, rows, coarse, axis=1), edges, coarse, axis=2)
    origin = np.clip(np.arange(n + 1) - u * n / FOV_MM, 0, n)
    so_far = np.zeros((*signal.shape[:-1], n + 1))
    np.cumsum(signal, axis=-1, out=so_far[..., 1:], dtype=np.float64)
    low = np.minimum(origin.astype(int), n - 1)
    reached = np.take_along_axis(so_far, low, -1) + (origin - low) * np.take_along_axis(signal, low, -1)
    return np.diff(reached, axis=-1).astype(np.float32)


def flattened(signals: Mapping[str, Strength], severity: float) -> dict[str, Strength]:
    """Contrast lost: the strengths of gm, wm and csf drawn towards the mean of the three; other tissues as they were.

    Of signed signals the magnitudes are drawn together and the signs stay: drawn together across zero, head and all
    would vanish.

    Args:
        signals: tissue to signal, a number each or an array each of one shape.
    """
    _check("contrast", severity)
    brain = ("gm", "wm", "csf")
    mean = sum(np.abs(signals[name]) for name in brain) / len(brain)
    lost = CONTRAST_LOST * severity
    pulled = {name: np.sign(signals[name]) * ((1 - lost) * np.abs(signals[name]) + lost * mean) for name in brain}
    return {**signals, **pulled}


def misplaced(pose: Pose, severity: float, rng: np.random.Generator) -> Pose:
    """The head off centre and tilted; near severity 1, part of it outside the field of view and outside the slices.

    To be applied once the slices are planned, for these follow the head otherwise. What lies outside the field of view
    is not seen; it does not fold back.
    """
    _check("positioning", severity)
    signs, shares = rng.choice([-1.0, 1.0], (2, 3)), rng.uniform(LEAST_SHARE, 1, (2, 3))
    tilt, shift = severity * signs * shares * np.stack([TILT_DEG, OFF_CENTRE_MM])
    return Pose(pose.angles_deg + tilt, pose.shift_mm + shift)
