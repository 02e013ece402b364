"""The simulated benchmark as a data folder: unpaired training subjects, paired validation and test subjects.

A subject is a person and a warp: heads of different people, each deformed anew for every subject.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
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
from simulation.ageing import draw_age, hyperintensities_of_age
from simulation.anatomy import Anatomy
from simulation.atrophy import with_atrophy
from simulation.extent import FOV_MM
from simulation.heads import load_person
from simulation.hyperintensities import Hyperintensity
from simulation.label_maps import read_anatomy
from simulation.lesions import Lesion, draw_lesions, with_lesions
from simulation.people import ROLES, Roles, require_people
from simulation.presets import Preset, Protocol
from simulation.subject import Scan, generator, simulate_scan
from util.errors import UserError, printable
from util.processes import ALONE, Processes

DRAWN_NAME = "simulation.json"
SLICE_AXIS = 2
MIN_MATRIX, MAX_MATRIX = 32, 512
FIRST_SUBJECT = {"trainA": 0, "trainB": 100_000, "val": 200_000, "test": 300_000}
MAX_SUBJECTS = 100_000
MAX_TOGETHER = 8  # scans of one person that one worker makes, after loading the head once


Written = tuple[VolumeEntry, dict[str, Any]]  # of a scan, with its drawn parameters


@dataclass(frozen=True)
class Benchmark:
    """What to simulate: the task, the number of subjects, their people, file format, lesions, and faults in domain A.

    `people` are the heads of every group. `anatomy`, a file for `read_anatomy`, is the head of all subjects instead.
    `age` in years is that of all subjects (None: drawn to fit the head). `lesions` is a kind of `lesions.KINDS`: each
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
    people: Roles = field(default_factory=lambda: ROLES)
    anatomy: str | None = None
    deformation: float = 1.0
    ventricles: float = 1.0
    sulci_mm: float = 0.0
    age: float | None = None
    lesions: str | None = None
    n_lesions: int = 3
    lesions_in: str = "test"
    faults: tuple[str, ...] = ()
    fault_probability: float = 0.0

    @property
    def own_head(self) -> str | None:
        """The base name of the file whose head all subjects have, if there is one."""
        return self.anatomy and printable(Path(self.anatomy).name)  # a file name need not be Unicode

    @property
    def counts(self) -> dict[str, int]:
        """The number of subjects of every group."""
        return {"trainA": self.n_train, "trainB": self.n_train, "val": self.n_val, "test": self.n_test}

    def recorded(self) -> dict[str, Any]:
        """The settings that the manifest records."""
        chosen = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        preset = self.preset.on_grid(FOV_MM / self.matrix)
        return chosen | {
            "preset": preset.name,
            "protocols": [preset.low.name, preset.high.name],
            "acquired": {"A": _acquired(preset.low), "B": _acquired(preset.high)},
            "people": None if self.anatomy else {group: list(self._used(group)) for group in ROLES},
            "faults": list(self.faults),
            "anatomy": self.anatomy and printable(self.anatomy),
        }

    def person(self, group: str, number: int) -> str | None:
        """Whose head subject `number` of a group has: the group's people in turn. None: the head of `anatomy`."""
        return None if self.anatomy else self.people[group][number % len(self.people[group])]

    def _used(self, group: str) -> tuple[str, ...]:
        return self.people[group][: self.counts[group]]


def _acquired(protocol: Protocol) -> dict[str, Any]:
    """What a protocol measures on the grid of the slices: voxel, gap and SNR."""
    return {
        "voxel_mm": list(protocol.voxel_mm),
        "gap_mm": protocol.gap_mm,
        "snr_wm": protocol.snr_wm,
        "enlargement": protocol.enlargement,
    }


@dataclass(frozen=True)
class ScanJob:
    """One scan to simulate and slice."""

    dataroot: Path
    benchmark: Benchmark
    subject: int
    split: str
    domain: str
    person: str | None = None

    @property
    def name(self) -> str:
        """The subject's name in file names."""
        return f"sim{self.subject:06d}"


def plan_scans(dataroot: Path, benchmark: Benchmark) -> list[ScanJob]:
    """Every scan of the benchmark.

    Training has `n_train` subjects per domain, different people in A and B; validation and test have `n_val` and
    `n_test` subjects in both domains. Each split has its own people and its own range of subject numbers, so more
    training subjects do not change the test subjects.

    Raises:
        UserError: a matrix that is odd or out of range, a number of subjects out of range, or nobody for a split.
    """
    b = benchmark
    if not MIN_MATRIX <= b.matrix <= MAX_MATRIX or b.matrix % 2:
        raise UserError(f"--matrix {b.matrix}: must be even and between {MIN_MATRIX} and {MAX_MATRIX}")
    if b.n_train < 1 or not all(0 <= count <= MAX_SUBJECTS for count in b.counts.values()):
        raise UserError(
            f"--n_train {b.n_train}, --n_val {b.n_val}, --n_test {b.n_test}: need at least 1, 0 and 0 subjects, "
            f"at most {MAX_SUBJECTS}"
        )
    if not b.anatomy:
        require_people(b.people, b.counts)
    return [
        ScanJob(dataroot, b, FIRST_SUBJECT[group] + number, group.rstrip("AB"), domain, b.person(group, number))
        for group, count in b.counts.items()
        for number in range(count)
        for domain in (group[-1] if group[-1] in "AB" else "AB")
    ]


def by_person(jobs: Sequence[ScanJob]) -> list[list[int]]:
    """Indices of the jobs, those of a person together, in parts small enough to share among workers; longest first."""
    of_person: dict[str | None, list[int]] = {}
    for index, job in enumerate(jobs):
        of_person.setdefault(job.person, []).append(index)
    parts = [
        own[first : first + MAX_TOGETHER] for own in of_person.values() for first in range(0, len(own), MAX_TOGETHER)
    ]
    return sorted(parts, key=len, reverse=True)


@lru_cache(maxsize=1)
def template(person: str | None, path: str | None, ventricles: float, sulci_mm: float) -> Anatomy:
    """The head of a person, or of a file, that subjects derive from; the last one is kept, as scans come by person."""
    head = load_person(person) if person else read_anatomy(Path(path or ""))
    return with_atrophy(head, ventricles=ventricles, sulci_mm=sulci_mm)


def write_scans(jobs: Sequence[ScanJob]) -> list[Written]:
    """Simulate and write some scans."""
    return [write_scan(job) for job in jobs]


def write_scan(job: ScanJob) -> Written:
    """Simulate one scan and write its slices; return its manifest entry and the drawn parameters."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # there is one worker per processor
    b, low = job.benchmark, job.domain == "A"
    anatomy = template(job.person, b.anatomy, b.ventricles, b.sulci_mm)
    age_rng = generator(b.seed, job.subject, "age")
    age = draw_age(age_rng, anatomy) if b.age is None else b.age
    lesions: list[Lesion | Hyperintensity] = [*hyperintensities_of_age(age_rng, anatomy, age)]
    asked = bool(b.lesions and b.n_lesions and b.lesions_in in ("all", job.split))
    if b.lesions and asked:
        lesions += draw_lesions(generator(b.seed, job.subject, "lesions"), anatomy, b.lesions, b.n_lesions)
    anatomy = with_lesions(anatomy, lesions) if lesions else anatomy
    scan = simulate_scan(
        b.preset,
        b.seed,
        job.subject,
        job.domain,
        matrix=b.matrix,
        with_truth=low,
        anatomy=anatomy,
        deformation=b.deformation,
        age=age,
        faults=b.faults if low else (),
        fault_probability=b.fault_probability,
    )
    if not asked:  # a folder of masks is complete or not there, and age gives lesions to some only
        scan = replace(scan, lesions=None)
    if b.nifti:
        write_nifti(job, scan)
    shape = (scan.image.shape[0], scan.image.shape[1], scan.image.shape[2])
    entry = write_volume(
        job.dataroot,
        split=job.split,
        domain=job.domain,
        subject=job.name,
        person=job.person,
        source=f"simulated:{b.preset.name}:{b.seed}:{job.subject}",
        volume=scan.image,
        affine_ras=scan.affine,
        geometry=SourceGeometry(shape, scan.affine, scan.affine, scan.affine, 1, 1),
        slice_axis=SLICE_AXIS,
        bits=b.bits,
        level_mm=scan.level_mm,
        companions=Companions(scan.truth, scan.truth_mask, scan.labels, scan.lesions),
    )
    noise = scan.drawn["sigma"] / (entry.window[1] - entry.window[0])
    return entry, {"split": job.split, "person": job.person or b.own_head, "noise": noise, **scan.drawn}


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
        parts = by_person(jobs)
        written = run_jobs(
            write_scans,
            [[jobs[index] for index in part] for part in parts],
            workers=workers,
            title="simulating scans, by person",
            processes=processes,
        )
        results = _in_order(parts, written)
        return processes.alone(partial(_finish, dataroot, benchmark, results))


def _checked_scans(dataroot: Path, benchmark: Benchmark) -> list[ScanJob]:
    """The scans, once all arguments are checked; called before the folder is cleared."""
    jobs = plan_scans(dataroot, benchmark)
    if benchmark.anatomy:
        read_anatomy(Path(benchmark.anatomy))
    return jobs


def _in_order(parts: Sequence[Sequence[int]], written: Sequence[Sequence[Written]]) -> list[Written]:
    """What was written, in the order of the jobs that `parts` has the indices of."""
    found = {
        index: result
        for part, results in zip(parts, written, strict=False)  # every process but the first has none
        for index, result in zip(part, results, strict=True)
    }
    return [found[index] for index in sorted(found)]


def _finish(dataroot: Path, benchmark: Benchmark, results: Sequence[Written]) -> Manifest:
    settings = benchmark.recorded()
    for domain, acquired in settings["acquired"].items():
        levels = [drawn["noise"] for entry, drawn in results if entry.domain == domain]
        acquired["noise"] = float(np.mean(levels))
    manifest = Manifest("simulated", [entry for entry, _ in results], settings)
    drawn = json.dumps([drawn for _, drawn in results], indent=1, sort_keys=True)
    (dataroot / DRAWN_NAME).write_text(drawn + "\n", encoding="utf-8")
    write_manifest(dataroot, manifest)
    return manifest


def notes_on(benchmark: Benchmark, manifest: Manifest) -> Iterable[str]:
    """What one should know of a simulated folder: resolution and noise of both fields, and whether one head is all."""
    pixel, settings = FOV_MM / benchmark.matrix, manifest.settings
    larger = settings["acquired"]["B"]["enlargement"]
    for domain, protocol in zip("AB", settings["protocols"], strict=True):
        acquired = settings["acquired"][domain]
        read, phase, thickness = acquired["voxel_mm"]
        gap = f", gaps of {acquired['gap_mm']:g} mm" if acquired["gap_mm"] else ""
        yield (
            f"{domain}: {protocol}, voxels of {read:.2f} x {phase:.2f} x {thickness:g} mm, {read / pixel:.2f} x "
            f"{phase / pixel:.2f} pixels{gap}; white matter's SNR {acquired['snr_wm']:.3g}; noise "
            f"{acquired['noise']:.3f} of the slices' range"
        )
    if larger > 1:
        yield (
            f"pixels of {pixel:.2f} mm (--matrix {benchmark.matrix}) are larger than the voxels of B's protocol: in "
            f"both fields, voxel sides are {larger:.2f} times the protocol's in plane, and SNR rises in proportion"
        )
    if benchmark.anatomy:
        yield (
            f"--anatomy {benchmark.own_head}: every subject is a warp of this one head, so training and test share the "
            f"person, and measures say nothing about other people"
        )
