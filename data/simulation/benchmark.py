"""The embedded paired benchmark as a data folder: unpaired training subjects, paired validation and test subjects."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.manifest import Manifest, VolumeEntry, write_manifest
from data.preprocessing.folder import fresh_folder
from data.preprocessing.geometry import SourceGeometry
from data.preprocessing.parallel import run_jobs
from data.preprocessing.slicing import write_volume
from data.simulation.presets import find_preset
from data.simulation.subject import simulate_scan
from util.errors import UserError

DRAWN_NAME = "simulation.json"
SLICE_AXIS = 2
MIN_MATRIX, MAX_MATRIX = 32, 512
FIRST_SUBJECT = {"trainA": 0, "trainB": 100_000, "val": 200_000, "test": 300_000}
MAX_SUBJECTS = 100_000


@dataclass(frozen=True)
class ScanJob:
    """One scan to simulate and slice."""

    dataroot: Path
    preset: str
    seed: int
    subject: int
    split: str
    domain: str
    bits: int
    matrix: int


def plan_scans(
    dataroot: Path, preset: str, *, n_train: int, n_val: int, n_test: int, seed: int, bits: int, matrix: int
) -> list[ScanJob]:
    """Every scan of the benchmark.

    `n_train` subjects a domain, A's and B's being different ones; `n_val` and `n_test` subjects that have both. Each
    split counts its subjects from a number of its own: more training subjects leave the test subjects what they were.

    Raises:
        UserError: an unknown preset, a matrix that is odd or out of range, or no subject in A or B to train with.
    """
    find_preset(preset)
    if not MIN_MATRIX <= matrix <= MAX_MATRIX or matrix % 2:
        raise UserError(f"--matrix {matrix}: must be even and between {MIN_MATRIX} and {MAX_MATRIX}")
    counts = {"trainA": n_train, "trainB": n_train, "val": n_val, "test": n_test}
    if n_train < 1 or not all(0 <= count <= MAX_SUBJECTS for count in counts.values()):
        raise UserError(
            f"--n_train {n_train}, --n_val {n_val}, --n_test {n_test}: need at least 1, 0 and 0 subjects, "
            f"at most {MAX_SUBJECTS}"
        )
    return [
        ScanJob(dataroot, preset, seed, FIRST_SUBJECT[group] + number, group.rstrip("AB"), domain, bits, matrix)
        for group, count in counts.items()
        for number in range(count)
        for domain in (group[-1] if group[-1] in "AB" else "AB")
    ]


def write_scan(job: ScanJob) -> tuple[VolumeEntry, dict[str, Any]]:
    """Simulate one scan, write its slices; return its manifest entry and what was drawn for it."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # workers share the processors among themselves
    scan = simulate_scan(
        find_preset(job.preset), job.seed, job.subject, job.domain, matrix=job.matrix, with_truth=job.domain == "A"
    )
    shape = (scan.image.shape[0], scan.image.shape[1], scan.image.shape[2])
    entry = write_volume(
        job.dataroot,
        split=job.split,
        domain=job.domain,
        subject=f"sim{job.subject:06d}",
        source=f"simulated:{job.preset}:{job.seed}:{job.subject}",
        volume=scan.image,
        affine_ras=scan.affine,
        geometry=SourceGeometry(shape, scan.affine, scan.affine, scan.affine, 1, 1),
        slice_axis=SLICE_AXIS,
        bits=job.bits,
        level_mm=scan.level_mm,
        truth=scan.truth,
        truth_mask=scan.truth_mask if scan.truth is not None else None,
        labels=scan.labels,
    )
    return entry, {"split": job.split, **scan.drawn}


def write_benchmark(
    dataroot: Path,
    preset: str,
    *,
    n_train: int,
    n_val: int,
    n_test: int,
    seed: int,
    bits: int,
    workers: int,
    matrix: int,
) -> Manifest:
    """Simulate and write the whole folder: slices, masks, truth, labels, manifest and every drawn parameter.

    The same arguments give the same bytes on any number of `workers`.
    """
    jobs = plan_scans(
        dataroot, preset, n_train=n_train, n_val=n_val, n_test=n_test, seed=seed, bits=bits, matrix=matrix
    )
    settings = {"preset": preset, "n_train": n_train, "n_val": n_val, "n_test": n_test, "seed": seed, "matrix": matrix}
    with fresh_folder(dataroot):
        results = run_jobs(write_scan, jobs, workers=workers, title="simulating subjects")
        manifest = Manifest("simulated", [entry for entry, _ in results], {**settings, "bits": bits})
        drawn = json.dumps([drawn for _, drawn in results], indent=1, sort_keys=True)
        (dataroot / DRAWN_NAME).write_text(drawn + "\n", encoding="utf-8")
        write_manifest(dataroot, manifest)
    return manifest
