"""Simulated pairs of many protocols in one data folder, from which a model for scans of any 0.05 to 0.1 T is trained.

python -m scripts.simulate_pairs --out DATA --n_train 264 --n_val 24
python train.py --model supervised --dataroot DATA ...

`preprocessing_images.py --simulate` has one protocol a folder. Here every subject has one of its own: contrast (T2w,
T1w, FLAIR in turn), field, timings, voxel, SNR, receive field, lesions, faults and size of the head. DATA gets `trainA`
and `valA`, each with `_mask`, `_truth`, `_truth_mask`, `_labels` and `_lesions`. The truth is a 3 T scan of the same
contrast and of the same slices, without noise and receive field. There is no domain B: pairs need none.

The test people of the simulated benchmark are left out. `--seed` gives other subjects.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.folder.manifest import Manifest, VolumeEntry, write_manifest
from preprocessing.folder import check_writable, fresh_folder
from preprocessing.geometry import SourceGeometry
from preprocessing.parallel import run_jobs
from preprocessing.slicing import Companions, write_volume
from simulation.ageing import draw_age, hyperintensities_of_age
from simulation.benchmark import DRAWN_NAME, FIRST_SUBJECT, MAX_TOGETHER, SLICE_AXIS, template
from simulation.extent import FOV_MM
from simulation.lesions import draw_lesions, with_lesions
from simulation.limits import FAULTS
from simulation.people import ROLES
from simulation.presets import Preset, Protocol
from simulation.sequences import FastSpinEcho, SpinEcho, SpoiledGRE
from simulation.sequences import Sequence as PulseSequence
from simulation.subject import Scan, generator, simulate_scan
from util.errors import UserError, run_cli
from util.schema import CommandLine

CONTRASTS = ("T2w", "T1w", "FLAIR")
# what a restless or unlucky scan has. Not `distortion`: its truth lies elsewhere, and a network of single slices cannot
# know where, so it would learn to blur
WANTED_FAULTS = tuple(fault for fault in FAULTS if fault != "distortion")
FAULT_PROBABILITY = 0.1
LESIONS = (None, "tumour", "infarct", "wmh")  # in turn
MOST_LESIONS = 4
ZOOM = 0.15  # how much larger or smaller than simulated a head may be: the pixel of a real scan may be a guess
PEOPLE = {"train": (*ROLES["trainA"], *ROLES["trainB"]), "val": ROLES["val"]}
PIXELS = (64, 512)  # smallest and largest side of a slice

# 3 T, two-dimensional, slices as thick as the low field's. FSE as in `presets.HIGH_T2W`; spin echo as in
# `presets.CLINICAL_T1W`; FLAIR as `presets.CLINICAL_FLAIR` with the TI that nulls CSF at 3 T [C].
HIGH: dict[str, PulseSequence] = {
    "T2w": FastSpinEcho(4000, 90, 15, 10),
    "T1w": SpinEcho(500, 12),
    "FLAIR": FastSpinEcho(9000, 110, 22, 10, 150, ti_ms=2460),
}


@dataclass(frozen=True)
class PairJob:
    """One subject: low-field scan and truth."""

    dataroot: Path
    matrix: int
    seed: int
    split: str
    number: int

    @property
    def subject(self) -> int:
        """Its number among all simulated subjects."""
        return FIRST_SUBJECT["val" if self.split == "val" else "trainA"] + self.number

    @property
    def person(self) -> str:
        """Whose head it has. Contrasts change fastest, so every person gets each of them."""
        people = PEOPLE[self.split]
        return people[self.number // len(CONTRASTS) % len(people)]

    @property
    def contrast(self) -> str:
        """The contrast of both fields."""
        return CONTRASTS[self.number % len(CONTRASTS)]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def low_sequence(rng: np.random.Generator, contrast: str) -> PulseSequence:
    """A sequence of that contrast as low-field scanners have them: timings around those of `simulation.presets`."""
    if contrast == "T2w":
        return FastSpinEcho(rng.uniform(1800, 4000), 10.0 * rng.integers(8, 16), 40, 10)
    if contrast == "FLAIR":
        return FastSpinEcho(4000, 10.0 * rng.integers(13, 20), 40, 10, 120, ti_ms=rng.uniform(1330, 1470))
    if rng.random() < 0.5:
        return FastSpinEcho(rng.uniform(1200, 1800), 6, 16, 6, 120, ti_ms=rng.uniform(250, 400))
    return SpoiledGRE(rng.uniform(30, 70), rng.uniform(8, 14), rng.uniform(35, 65))


def draw_preset(rng: np.random.Generator, contrast: str, pixel_mm: float) -> Preset:
    """A low-field scan and its 3 T truth on slices of `pixel_mm`.

    In-plane voxels from 1.3 to 2.6 mm, slices from 4 to 10 mm, white matter's SNR from 6 to 35, receive field 0.04 to
    0.2: the 0.055 T and 0.064 T scans of `simulation.presets` lie inside.
    """
    thickness = rng.uniform(4, 10)
    finest = 1.3 if contrast == "T1w" else 1.5
    resolution = max(pixel_mm, rng.uniform(finest, 2.6))
    coarser = rng.uniform(1, 1.25) if rng.random() < 0.5 else None
    low = Protocol(
        f"low-{contrast}",
        rng.uniform(0.05, 0.1),
        low_sequence(rng, contrast),
        resolution,
        thickness,
        snr_wm=_log_uniform(rng, 6, 35),
        bias_std=_log_uniform(rng, 0.04, 0.2),
        phase_mm=coarser and resolution * coarser,
        partial_fourier=float(rng.choice([1.0, 0.75])),
    )
    high = Protocol(f"3T-{contrast}", 3.0, HIGH[contrast], max(1.0, pixel_mm), thickness, snr_wm=40.0, bias_std=0.1)
    return Preset("pairs", low, high)


def on_square(volume: NDArray[Any], side: int) -> NDArray[Any]:
    """(X, Y, Z) with X and Y cut or filled with zeros to `side`, the middle staying in the middle."""
    for axis in (0, 1):
        missing = side - volume.shape[axis]
        before = abs(missing) // 2
        if missing < 0:
            volume = np.take(volume, range(before, before + side), axis)
        elif missing:
            room = [(0, 0)] * volume.ndim
            room[axis] = (before, missing - before)
            volume = np.pad(volume, room)
    return np.ascontiguousarray(volume)


def simulate(job: PairJob) -> tuple[Scan, dict[str, Any]]:
    """The scan with its truth on a grid of any size, and what was drawn for it beside what the scan tells."""
    rng = np.random.default_rng([job.seed, job.subject])
    zoomed = 2 * round(job.matrix * rng.uniform(1 - ZOOM, 1 + ZOOM) / 2)
    preset = draw_preset(rng, job.contrast, FOV_MM / zoomed)
    anatomy = template(job.person, None, 1.0, 0.0)
    age_rng = generator(job.seed, job.subject, "age")
    age = draw_age(age_rng, anatomy)
    kind = LESIONS[int(rng.integers(len(LESIONS)))]
    lesions: list[Any] = [*hyperintensities_of_age(age_rng, anatomy, age)]
    if kind is not None:
        count = int(rng.integers(1, MOST_LESIONS + 1))
        lesions += draw_lesions(generator(job.seed, job.subject, "lesions"), anatomy, kind, count)
    scan = simulate_scan(
        preset,
        job.seed,
        job.subject,
        "A",
        matrix=zoomed,
        with_truth=True,
        anatomy=with_lesions(anatomy, lesions) if lesions else anatomy,
        age=age,
        faults=WANTED_FAULTS,
        fault_probability=FAULT_PROBABILITY,
    )
    drawn = {
        "zoom": zoomed / job.matrix,
        "lesions": kind,
        "b0_t": preset.low.b0_t,
        "sequence": asdict(preset.low.sequence),
    }
    return scan, drawn


def write_pair(job: PairJob) -> tuple[VolumeEntry, dict[str, Any]]:
    """Simulate one subject and write its slices; return its manifest entry and what was drawn."""
    torch.set_num_threads(1)
    scan, drawn = simulate(job)
    assert scan.truth is not None
    image, truth, mask, labels = (
        on_square(x, job.matrix) for x in (scan.image, scan.truth, scan.truth_mask, scan.labels)
    )
    lesions = np.zeros(image.shape, bool) if scan.lesions is None else on_square(scan.lesions, job.matrix)
    affine = scan.affine.copy()
    for axis in (0, 1):  # a zoomed head is a head of another size, on the same grid
        affine[axis, :2] *= drawn["zoom"]
        affine[axis, 3] = -FOV_MM / 2
    shape = (image.shape[0], image.shape[1], image.shape[2])
    entry = write_volume(
        job.dataroot,
        split=job.split,
        domain="A",
        subject=f"sim{job.subject:06d}",
        person=job.person,
        source=f"simulated:pairs:{job.contrast}:{job.seed}:{job.subject}",
        volume=image,
        affine_ras=affine,
        geometry=SourceGeometry(shape, affine, affine, affine, 1, 1),
        slice_axis=SLICE_AXIS,
        bits=16,
        level_mm=scan.level_mm,
        companions=Companions(truth, mask, labels, lesions),
    )
    noise = scan.drawn["sigma"] / (entry.window[1] - entry.window[0])
    return entry, {"split": job.split, "person": job.person, "noise": noise, **drawn, **scan.drawn}


def write_part(jobs: Sequence[PairJob]) -> list[tuple[VolumeEntry, dict[str, Any]]]:
    """Simulate and write some subjects."""
    return [write_pair(job) for job in jobs]


def parts_of(jobs: Sequence[PairJob]) -> list[list[PairJob]]:
    """The jobs, those of a person together, so that a worker loads a head once."""
    parts: list[list[PairJob]] = []
    for person in dict.fromkeys(job.person for job in jobs):
        own = [job for job in jobs if job.person == person]
        parts += [own[first : first + MAX_TOGETHER] for first in range(0, len(own), MAX_TOGETHER)]
    return parts


def write_pairs(dataroot: Path, *, matrix: int, seed: int, counts: dict[str, int], workers: int | None) -> Manifest:
    """Write the whole folder; the same arguments give the same bytes with any number of workers."""
    jobs = [PairJob(dataroot, matrix, seed, split, i) for split, count in counts.items() for i in range(count)]
    with fresh_folder(dataroot):
        written = run_jobs(write_part, parts_of(jobs), workers=workers, title="simulating pairs, by person")
        found = sorted((one for part in written for one in part), key=lambda one: one[0].subject)
        settings = {
            "pairs": True,
            "matrix": matrix,
            "seed": seed,
            "counts": counts,
            "people": {k: list(v) for k, v in PEOPLE.items()},
        }
        manifest = Manifest("simulated", [entry for entry, _ in found], settings)
        drawn = json.dumps([drawn for _, drawn in found], indent=1, sort_keys=True)
        (dataroot / DRAWN_NAME).write_text(drawn + "\n", encoding="utf-8")
        write_manifest(dataroot, manifest)
    return manifest


def main(argv: Sequence[str]) -> int:
    """Read the command line and write the folder."""
    parser = CommandLine(prog="simulate_pairs", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", required=True, type=Path, help="the data folder to write")
    parser.add_argument("--n_train", type=int, default=264, help="subjects to train on")
    parser.add_argument("--n_val", type=int, default=24, help="subjects for validation")
    parser.add_argument("--matrix", type=int, default=192, help=f"pixels a side of a slice of {FOV_MM:g} mm")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same files")
    parser.add_argument("--workers", type=int, help="subjects at a time; none: the processors")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run's slices in --out")
    options = parser.parse_args(argv)
    low, high = PIXELS
    if not low <= options.matrix <= high or options.matrix % 2:
        raise UserError(f"--matrix {options.matrix}: must be even and between {low} and {high}")
    if options.n_train < 1 or options.n_val < 0 or options.seed < 0:
        told = f"--n_train {options.n_train}, --n_val {options.n_val}, --seed {options.seed}"
        raise UserError(f"{told}: allowed are numbers from 1, from 0 and from 0")
    check_writable(options.out, options.overwrite)
    counts = {"train": options.n_train, "val": options.n_val}
    manifest = write_pairs(
        options.out, matrix=options.matrix, seed=options.seed, counts=counts, workers=options.workers
    )
    slices = {split: sum(len(v.slices) for v in manifest.volumes if v.split == split) for split in counts}
    told = f"{slices['train']} slices to train on, {slices['val']} for validation"
    print(f"{options.out}: {len(manifest.volumes)} subjects, {told}")
    return 0


if __name__ == "__main__":
    run_cli(main, "simulate_pairs")
