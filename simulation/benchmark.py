"""The simulated benchmark as a data folder: unpaired training subjects, paired validation and test subjects."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray

from data.folder.manifest import Manifest, VolumeEntry, write_manifest
from preprocessing.folder import NIFTI_FOLDER, fresh_folder
from preprocessing.geometry import SourceGeometry
from preprocessing.parallel import run_jobs
from preprocessing.slicing import Companions, write_volume
from simulation.anatomy import Anatomy, load_anatomy
from simulation.atrophy import with_atrophy
from simulation.label_maps import read_anatomy
from simulation.lesions import draw_lesions, with_lesions
from simulation.presets import Preset
from simulation.subject import Scan, generator, simulate_scan
from util.errors import UserError, printable
from util.processes import ALONE, Processes

DRAWN_NAME = "simulation.json"
SLICE_AXIS = 2
MIN_MATRIX, MAX_MATRIX = 32, 512
FIRST_SUBJECT = {"trainA": 0, "trainB": 100_000, "val": 200_000, "test": 300_000}
MAX_SUBJECTS = 100_000


@dataclass(frozen=True)
class Benchmark:
    """What to simulate: the task, the number of subjects, file format, anatomy, lesions, and faults in domain A.

    `anatomy` is a file for `read_anatomy` (None: the embedded head). `lesions` is a kind of `lesions.KINDS`: each
    subject of the split `lesions_in` (or of `all`) has `n_lesions` of them, the same in A and B.
    """

    preset: Preset
    n_train: int
    n_val: int
    n_test: int
    seed: int
    bits: int
    matrix: int
    nifti: bool = False
    anatomy: str | None = None
    deformation: float = 1.0
    ventricles: float = 1.0
    sulci_mm: float = 0.0
    lesions: str | None = None
    n_lesions: int = 3
    lesions_in: str = "test"
    faults: tuple[str, ...] = ()
    fault_probability: float = 0.0

    def recorded(self) -> dict[str, Any]:
        """The settings that the manifest records."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        protocols = [self.preset.low.name, self.preset.high.name]
        anatomy = self.anatomy and printable(self.anatomy)  # a file name need not be Unicode
        written = {"preset": self.preset.name, "protocols": protocols, "faults": list(self.faults), "anatomy": anatomy}
        return chosen | written


@dataclass(frozen=True)
class ScanJob:
    """One scan to simulate and slice."""

    dataroot: Path
    benchmark: Benchmark
    subject: int
    split: str
    domain: str

    @property
    def name(self) -> str:
        """The subject's name in file names."""
        return f"sim{self.subject:06d}"


def plan_scans(dataroot: Path, benchmark: Benchmark) -> list[ScanJob]:
    """Every scan of the benchmark.

    Training has `n_train` subjects per domain, different ones in A and B; validation and test have `n_val` and `n_test`
    subjects in both domains. Each split has its own range of subject numbers, so more training subjects do not change
    the test subjects.

    Raises:
        UserError: a matrix that is odd or out of range, or a number of subjects out of range.
    """
    b = benchmark
    if not MIN_MATRIX <= b.matrix <= MAX_MATRIX or b.matrix % 2:
        raise UserError(f"--matrix {b.matrix}: must be even and between {MIN_MATRIX} and {MAX_MATRIX}")
    counts = {"trainA": b.n_train, "trainB": b.n_train, "val": b.n_val, "test": b.n_test}
    if b.n_train < 1 or not all(0 <= count <= MAX_SUBJECTS for count in counts.values()):
        raise UserError(
            f"--n_train {b.n_train}, --n_val {b.n_val}, --n_test {b.n_test}: need at least 1, 0 and 0 subjects, "
            f"at most {MAX_SUBJECTS}"
        )
    return [
        ScanJob(dataroot, benchmark, FIRST_SUBJECT[group] + number, group.rstrip("AB"), domain)
        for group, count in counts.items()
        for number in range(count)
        for domain in (group[-1] if group[-1] in "AB" else "AB")
    ]


@lru_cache(maxsize=1)
def template(path: str | None, ventricles: float, sulci_mm: float) -> Anatomy:
    """The head that all subjects of a benchmark derive from; cached, so each process prepares it once."""
    return with_atrophy(read_anatomy(Path(path)) if path else load_anatomy(), ventricles=ventricles, sulci_mm=sulci_mm)


def write_scan(job: ScanJob) -> tuple[VolumeEntry, dict[str, Any]]:
    """Simulate one scan and write its slices; return its manifest entry and the drawn parameters."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # there is one worker per processor
    b, low = job.benchmark, job.domain == "A"
    anatomy = template(b.anatomy, b.ventricles, b.sulci_mm)
    if b.lesions and b.lesions_in in ("all", job.split):
        drawn = draw_lesions(generator(b.seed, job.subject, "lesions"), anatomy, b.lesions, b.n_lesions)
        anatomy = with_lesions(anatomy, drawn)
    scan = simulate_scan(
        b.preset,
        b.seed,
        job.subject,
        job.domain,
        matrix=b.matrix,
        with_truth=low,
        anatomy=anatomy,
        deformation=b.deformation,
        faults=b.faults if low else (),
        fault_probability=b.fault_probability,
    )
    if b.nifti:
        write_nifti(job, scan)
    shape = (scan.image.shape[0], scan.image.shape[1], scan.image.shape[2])
    entry = write_volume(
        job.dataroot,
        split=job.split,
        domain=job.domain,
        subject=job.name,
        source=f"simulated:{b.preset.name}:{b.seed}:{job.subject}",
        volume=scan.image,
        affine_ras=scan.affine,
        geometry=SourceGeometry(shape, scan.affine, scan.affine, scan.affine, 1, 1),
        slice_axis=SLICE_AXIS,
        bits=b.bits,
        level_mm=scan.level_mm,
        companions=Companions(scan.truth, scan.truth_mask, scan.labels, scan.lesions),
    )
    return entry, {"split": job.split, **scan.drawn}


def write_nifti(job: ScanJob, scan: Scan) -> None:
    """Write the volumes of one scan in scanner mm, RAS: image, labels, lesions if any, and in domain A the truth.

    File names contain split and domain: `nifti/test_sim300000_A.nii.gz`.
    """
    folder = job.dataroot / NIFTI_FOLDER
    folder.mkdir(exist_ok=True)
    volumes: dict[str, NDArray[Any] | None] = {
        "": scan.image,
        "_truth": scan.truth,
        "_labels": scan.labels,
        "_lesions": None if scan.lesions is None else scan.lesions.astype(np.uint8),
    }
    for suffix, volume in volumes.items():
        if volume is not None:
            image = nibabel.Nifti1Image(volume, scan.affine)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, folder / f"{job.split}_{job.name}_{job.domain}{suffix}.nii.gz")


def write_benchmark(
    dataroot: Path, benchmark: Benchmark, *, workers: int | None, processes: Processes = ALONE
) -> Manifest:
    """Simulate and write the whole folder: slices, masks, truth, labels, manifest and all drawn parameters.

    The same arguments give the same bytes with any number of `workers` and processes.
    """
    jobs = processes.alone(partial(_checked_scans, dataroot, benchmark))
    with fresh_folder(dataroot, processes):
        results = run_jobs(write_scan, jobs, workers=workers, title="simulating subjects", processes=processes)
        return processes.alone(partial(_finish, dataroot, benchmark, results))


def _checked_scans(dataroot: Path, benchmark: Benchmark) -> list[ScanJob]:
    """The scans, once all arguments are checked; called before the folder is cleared."""
    jobs = plan_scans(dataroot, benchmark)
    if benchmark.anatomy:
        read_anatomy(Path(benchmark.anatomy))
    return jobs


def _finish(dataroot: Path, benchmark: Benchmark, results: Sequence[tuple[VolumeEntry, dict[str, Any]]]) -> Manifest:
    manifest = Manifest("simulated", [entry for entry, _ in results], benchmark.recorded())
    drawn = json.dumps([drawn for _, drawn in results], indent=1, sort_keys=True)
    (dataroot / DRAWN_NAME).write_text(drawn + "\n", encoding="utf-8")
    write_manifest(dataroot, manifest)
    return manifest
