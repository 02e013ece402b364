"""From folders of NIfTI files to a data folder: plan (headers only), then slice every volume in parallel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.manifest import Manifest, VolumeEntry, write_manifest
from data.preprocessing.folder import fresh_folder
from data.preprocessing.geometry import SourceGeometry, ras_geometry, spacing_mm
from data.preprocessing.nifti import choose_slice_axis, find_volumes, read_geometry, read_nifti
from data.preprocessing.parallel import run_jobs
from data.preprocessing.slicing import write_volume
from data.preprocessing.splits import assign_splits
from data.slices import clean_subject
from util.errors import UserError

SAME_GRID = 0.5  # voxels by which the corners of a volume and its truth may lie apart


@dataclass(frozen=True)
class SlicingSettings:
    """How every volume is sliced: bits a pixel, `auto` or R, A, S, and the percentiles that become 0 and 1."""

    bits: int
    slice_axis: str
    percentiles: tuple[float, float]


@dataclass(frozen=True)
class VolumeJob:
    """One volume to slice. `subject` is its file name without suffix; `truth` a registered high-field volume."""

    path: Path
    subject: str
    domain: str
    split: str
    truth: Path | None
    dataroot: Path
    settings: SlicingSettings


def plan_jobs(
    dataroot: Path,
    settings: SlicingSettings,
    *,
    input_A: Path | None,
    input_B: Path | None,
    truth_A: Path | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[VolumeJob]:
    """Find every volume, check every header, and decide every subject's split, before anything is written.

    Raises: UserError naming flag or file, see `find_volumes` and `read_geometry`; also two names that become the same
        subject, a truth without a volume, or one that lies on another grid.
    """
    volumes = {
        "A": find_volumes(input_A, "--input_A") if input_A else {},
        "B": find_volumes(input_B, "--input_B") if input_B else {},
    }
    truths = find_volumes(truth_A, "--truth_A") if truth_A else {}
    for found in volumes.values():
        _check_names(found)
    geometries = {path: read_geometry(path) for found in volumes.values() for path in found.values()}
    if truths:
        _check_truths(volumes["A"], truths, geometries)
    splits = assign_splits(
        volumes["A"].keys(), volumes["B"].keys(), val_fraction=val_fraction, test_fraction=test_fraction, seed=seed
    )
    return [
        VolumeJob(
            path, subject, domain, splits[subject], truths.get(subject) if domain == "A" else None, dataroot, settings
        )
        for domain, found in volumes.items()
        for subject, path in found.items()
    ]


def write_dataset(dataroot: Path, jobs: list[VolumeJob], *, workers: int, recorded: dict[str, object]) -> Manifest:
    """Slice every planned volume into `dataroot` and write its manifest; nothing is left there if one fails.

    Args: recorded: options to repeat in the manifest; no paths.
    Raises: UserError naming the file, see `read_nifti` and `write_volume`.
    """
    with fresh_folder(dataroot):
        volumes = run_jobs(slice_volume, jobs, workers=workers, title="slicing volumes")
        manifest = Manifest("nifti", volumes, recorded)
        write_manifest(dataroot, manifest)
    return manifest


def slice_volume(job: VolumeJob) -> VolumeEntry:
    """Read one volume, and its truth if there is one, and write their slices."""
    volume, affine, geometry = read_nifti(job.path)
    return write_volume(
        job.dataroot,
        split=job.split,
        domain=job.domain,
        subject=job.subject,
        source=job.path.name,
        volume=volume,
        affine_ras=affine,
        geometry=geometry,
        slice_axis=choose_slice_axis(volume.shape, spacing_mm(affine), job.settings.slice_axis),
        bits=job.settings.bits,
        percentiles=job.settings.percentiles,
        truth=read_nifti(job.truth)[0] if job.truth else None,
    )


def _check_names(found: dict[str, Path]) -> None:
    """Two files whose names become the same subject would overwrite each other's slices."""
    owners: dict[str, Path] = {}
    for subject, path in found.items():
        other = owners.setdefault(clean_subject(subject).lower(), path)
        if other != path:
            raise UserError(f"{path}: becomes the same subject name as {other.name}, rename one of them")


def _check_truths(volumes: dict[str, Path], truths: dict[str, Path], geometries: dict[Path, SourceGeometry]) -> None:
    """Raise UserError unless every volume has its truth, every truth its volume, and both the same grid."""
    for subject, path in truths.items():
        if subject not in volumes:
            raise UserError(f"--truth_A {path}: no volume of this name in --input_A")
    for subject, path in volumes.items():
        if subject not in truths:
            raise UserError(f"--input_A {path}: has none of this name in --truth_A; put those into another --out")
        _check_same_grid(path, geometries[path], truths[subject], read_geometry(truths[subject]))


def _check_same_grid(path: Path, volume: SourceGeometry, truth_path: Path, truth: SourceGeometry) -> None:
    """Raise UserError unless both files sample the same places: equal RAS shape, corners within half a voxel."""
    shape, affine = ras_geometry(volume)
    truth_shape, truth_affine = ras_geometry(truth)
    if shape != truth_shape:
        raise UserError(f"--truth_A {truth_path}: RAS shape {truth_shape}, but {path} has {shape}; they must be equal")
    corners = np.array([[*corner, 1.0] for corner in np.ndindex(2, 2, 2)]) * [*np.subtract(shape, 1), 1]
    apart = np.linalg.norm(corners @ (affine - truth_affine).T, axis=1).max()
    if apart > SAME_GRID * max(spacing_mm(affine)):
        raise UserError(f"--truth_A {truth_path}: lies {apart:.1f} mm off {path.name}; resample it to that grid first")
