"""What a scan resolves and how noisy it is, measured in the images of both fields on coarse and fine grids."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from simulation.anatomy import HEAD_CENTRE_MM, TISSUES, Anatomy
from simulation.deformation import SmoothField
from simulation.extent import FOV_MM
from simulation.geometry import Pose, ScanGeometry, fine_axis_mm
from simulation.presets import HIGH_T2W, LOW_T2W, M4RAW_T2W, PRESETS, Protocol, find_preset
from simulation.scanner import fat_shift_mm
from simulation.subject import Scanner, draw_head

MATRICES = (64, 96, 128, 224)
TILT = 0.11  # of an edge against the rows, which together sample it finely then
BOX_MM = 70.0


def _phantom(matrix: int) -> Scanner:
    """A box of white matter, 140 mm wide, in air, in two slices."""
    fractions = np.zeros((len(TISSUES), 121, 121, 61), np.float32)
    middle = np.abs(np.arange(121) - 60) * 2 <= BOX_MM
    fractions[TISSUES.index("wm"), middle[:, None] & middle] = 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = HEAD_CENTRE_MM - [120, 120, 60]
    head = draw_head(0, 0)
    still = replace(head.shape, matrix=np.eye(3), displacement=SmoothField(np.zeros((3, 11, 11, 11)), 40.0))
    geometry = ScanGeometry(Pose(np.zeros(3), np.zeros(3)), matrix, 5.0, np.array([-5.0, 0.0]), (0.0, 0.0))
    anatomy = Anatomy(fractions, affine, known_centre_mm=HEAD_CENTRE_MM)
    return Scanner(replace(head, shape=still, texture=replace(head.texture, strength=0.0)), geometry, anatomy)


def _edge_mm(scanner: Scanner, protocol: Protocol, *, along_phase: bool) -> float:
    """Distance over which a slightly tilted edge rises from 20 to 80 %, with all rows put on top of each other."""
    matrix, x = scanner.geometry.matrix, fine_axis_mm(scanner.geometry.matrix)
    from_edge = x[None, :] - TILT * x[:, None]
    edge = np.clip(from_edge / (x[1] - x[0]) + 0.5, 0, 1).astype(np.float32)[None]
    seen = scanner.acquire(
        edge.transpose(0, 2, 1) if along_phase else edge, replace(protocol, coils=0), 0.0, np.random.default_rng(0)
    )
    image = seen[0].T if along_phase else seen[0]
    step, rows = len(x) // matrix, slice(matrix // 4, -matrix // 4)
    offset = from_edge[::step, ::step][rows]
    near = np.abs(offset) < 3 * protocol.voxel_mm[1]
    order = np.argsort(offset[near])
    where, height = offset[near][order], image[rows][near][order]
    smooth = np.convolve(height, np.ones(5) / 5, "same")
    rise = [float(where[np.flatnonzero(smooth > level)[0]]) for level in (0.2, 0.8)]
    return rise[1] - rise[0]


@pytest.mark.parametrize("matrix", MATRICES)
def test_edges_of_a_are_wider_than_those_of_b_by_the_protocols_ratio(matrix: int) -> None:
    scanner = _phantom(matrix)
    for preset in PRESETS.values():
        scanned = preset.on_grid(FOV_MM / matrix)
        for side in (0, 1):
            ratio = preset.low.voxel_mm[side] / preset.high.voxel_mm[side]
            low, high = (_edge_mm(scanner, p, along_phase=bool(side)) for p in (scanned.low, scanned.high))
            assert ratio > 1.3 and low / high == pytest.approx(ratio, rel=0.12), (preset.name, side)
            assert high == pytest.approx(0.72 * scanned.high.voxel_mm[side], rel=0.15)


@pytest.mark.parametrize("matrix", MATRICES)
def test_snr_in_white_matter_and_noise_in_air_follow_the_acquired_voxel(matrix: int) -> None:
    """White matter's SNR is the protocol's times the root of the in-plane area over the protocol's own."""
    scanner = _phantom(matrix)
    for domain in ("low", "high"):
        nominal = replace(getattr(find_preset("same-contrast"), domain), bias_std=0.0)
        scanned = getattr(replace(find_preset("same-contrast"), **{domain: nominal}).on_grid(FOV_MM / matrix), domain)
        areas = [math.prod(protocol.voxel_mm[:2]) for protocol in (nominal, scanned)]
        clean = scanner.acquire(scanner.signal(scanned), scanned, 0.0, np.random.default_rng(0))
        images, drawn = zip(*(scanner.image(scanned, np.random.default_rng(seed)) for seed in range(3)), strict=True)
        for image, scan in zip(images, drawn, strict=True):
            assert 0.85 <= scan["snr_wm"] / (nominal.snr_wm * math.sqrt(areas[1] / areas[0])) <= 1.15
            white, air = _inside(matrix, BOX_MM - 15), ~_inside(matrix, BOX_MM + 20)
            noise = image[:, white] - clean[:, white]
            assert clean[:, white].mean() / noise.std() == pytest.approx(scan["snr_wm"], rel=0.06)
            from_air = image[:, air].mean() / math.sqrt(math.pi / 2)  # one channel's, from the Rayleigh mean
            assert clean[:, white].mean() / from_air == pytest.approx(scan["snr_wm"], rel=0.06)


def _inside(matrix: int, half_mm: float) -> NDArray[np.bool_]:
    axis = np.abs((np.arange(matrix) - matrix / 2) * FOV_MM / matrix) <= half_mm
    return axis[:, None] & axis


def test_voxels_on_a_grid() -> None:
    """At 240 pixels and more the protocols are scanned as they are; below, everything grows with the pixels, once."""
    preset = find_preset("same-contrast")
    assert preset.on_grid(1.0) == preset.on_grid(0.5) == preset
    coarse = preset.on_grid(2.5)
    assert coarse.low.voxel_mm == (4.0, 4.0, 5.0) and coarse.high.voxel_mm == (2.5, 2.5, 5.0)
    assert coarse.low.snr_wm == pytest.approx(2.5 * LOW_T2W.snr_wm)
    assert coarse.high.snr_wm == pytest.approx(2.5 * HIGH_T2W.snr_wm)
    assert coarse.on_grid(2.5) == coarse
    for name in PRESETS:
        for matrix in range(32, 513, 2):
            scanned = find_preset(name).on_grid(FOV_MM / matrix)
            assert scanned.on_grid(FOV_MM / matrix) == scanned
            assert min(scanned.high.voxel_mm[:2]) >= FOV_MM / matrix or scanned.high.enlargement == 1
            assert all(a >= 1.33 * b for a, b in zip(scanned.low.voxel_mm[:2], scanned.high.voxel_mm[:2], strict=True))


def test_fat_moves_as_far_in_an_enlarged_voxel() -> None:
    scanned = M4RAW_T2W.enlarged(2.0, 0.0)
    shifts = [fat_shift_mm(p.b0_t, p.bandwidth_hz, p.resolution_mm) for p in (M4RAW_T2W, scanned) if p.bandwidth_hz]
    assert len(shifts) == 2 and shifts[0] == pytest.approx(shifts[1])
    assert scanned.phase_mm == pytest.approx(2 * 240 / 195) and scanned.thickness_mm == M4RAW_T2W.thickness_mm
