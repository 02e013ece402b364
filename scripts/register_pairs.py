"""Real scans of the same people at low and at high field become a data folder with truth, for test.py.

python -m scripts.register_pairs --low LOW --high HIGH --like DATA --out OUT
python test.py --dataroot OUT/data --name NAME --checkpoints_dir RUNS --results_dir RESULTS

LOW and HIGH each hold one NIfTI volume of each person, of one contrast. Slices are paired by their order, so both
volumes need as many. Each high-field slice is registered in its plane to the low-field slice: shift, turn, a scale
along each axis and a shear, since fields of view and pixels differ. What lies between slices is not corrected. OUT gets

low/, high/            the volumes, the high field registered, both on the grid of the low field
registration.csv       how well each slice lies; registration.png shows it
data/                  testA, testA_mask, testA_truth, and links to DATA's trainA and trainB, from which baselines learn
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

import preprocessing_images
from data.folder.manifest import DOMAINS, MANIFEST_NAME, read_manifest
from data.folder.people import person_of
from data.folder.slices import from_image, to_image
from preprocessing.geometry import from_ras, spacing_mm
from preprocessing.nifti import choose_slice_axis, find_volumes, read_nifti
from scripts.registration_quality import Quality, draw, qualities
from scripts.slice_registration import Registered, register
from util.errors import UserError, run_cli
from util.schema import CommandLine

Floats = NDArray[np.floating]

OUTPUTS = ("low", "high", "data", "registration.csv", "registration.png")
MIN_SLICE = 32  # pixels a side


def pair(low: str, high: str) -> dict[str, tuple[Path, Path]]:
    """The two files of each person, by the name of the low-field volume.

    Raises: UserError: a folder without volumes, a person without a partner, or with two volumes in one folder.
    """
    sides = [_by_person(location, flag) for location, flag in ((low, "--low"), (high, "--high"))]
    for flag, location, here, there in (("--low", low, sides[0], sides[1]), ("--high", high, sides[1], sides[0])):
        alone = [f"{path.name} (person {person})" for person, (_, path) in here.items() if person not in there]
        if alone:
            other = "--high" if flag == "--low" else "--low"
            raise UserError(f"{flag} {location}: {alone[0]} has no partner in {other}, need one volume of each person")
    return {subject: (path, sides[1][person][1]) for person, (subject, path) in sides[0].items()}


def _by_person(location: str, flag: str) -> dict[str, tuple[str, Path]]:
    volumes, problems, _ = find_volumes(Path(location), flag)
    if problems:
        raise UserError(f"{flag} {location}: {problems[0]}")
    found: dict[str, tuple[str, Path]] = {}
    for subject, path in volumes.items():
        person = person_of(subject).casefold()
        if person in found:
            raise UserError(
                f"{flag} {location}: {found[person][1].name} and {path.name} show one person ({person}), need one "
                f"volume of each person, of one contrast"
            )
        found[person] = subject, path
    return found


def read_slices(path: Path) -> tuple[Floats, int]:
    """The slices (S, H, W) of a volume, anterior or superior on top, and the slice axis in RAS. Raises UserError."""
    volume, affine, _ = read_nifti(path)
    axis = choose_slice_axis(volume.shape, spacing_mm(affine))
    slices = np.stack([to_image(plane) for plane in np.moveaxis(volume, axis, 0)])
    if min(slices.shape[1:]) < MIN_SLICE:
        raise UserError(f"{path}: slices of {slices.shape[1:]} pixels, need at least {MIN_SLICE} a side")
    return slices, axis


def register_files(low_path: Path, high_path: Path) -> tuple[Floats, Registered, int]:
    """The low-field slices, what was found, and the slice axis. Raises UserError: the volumes do not fit together."""
    (low, axis), (high, other) = read_slices(low_path), read_slices(high_path)
    if axis != other:
        names = "sagittal", "coronal", "axial"
        raise UserError(f"{high_path}: slices are {names[other]}, those of {low_path.name} {names[axis]}")
    if len(low) != len(high):
        raise UserError(
            f"{high_path}: {len(high)} slices, {low_path.name} has {len(low)}; slices are paired by their order, so "
            f"cut or resample the volumes to the same levels first"
        )
    return low, register(low, high, low_path.name), axis


def write_pair(
    out: Path, subject: str, source: Path, found: Registered, axis: int, voxel_mm: Sequence[float] | None
) -> None:
    """Write both volumes on the low field's grid as `low/SUBJECT.nii.gz` and `high/SUBJECT.nii.gz`."""
    low, ras, geometry = read_nifti(source)
    affine = geometry.affine
    if voxel_mm is not None:  # the header's directions with other lengths, in RAS order from here on
        affine = ras = ras @ np.diag([*(np.asarray(voxel_mm) / spacing_mm(ras)), 1.0])
    high = np.stack([from_image(image) for image in found.high])
    for name, volume in (("low", low), ("high", np.moveaxis(high, 0, axis))):
        (out / name).mkdir(parents=True, exist_ok=True)
        made = nibabel.Nifti1Image(np.ascontiguousarray(from_ras(volume, affine), np.float32), affine)
        nibabel.save(made, out / name / f"{subject}.nii.gz")


def write_table(path: Path, rows: Mapping[str, tuple[Registered, list[Quality]]]) -> None:
    """registration.csv: a line for each slice."""
    names = ["subject", "slice", "turn_deg", "scale_rows", "scale_columns", *(f.name for f in fields(Quality))]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        for subject, (found, every) in rows.items():
            for number, (placing, quality) in enumerate(zip(found.placings, every, strict=True), start=1):
                values = [placing.turn_deg, *placing.scales, *asdict(quality).values()]
                told = ["" if value is None else f"{value:.4g}" for value in values]
                table.writerow([subject, number, *told])


def write_data(out: Path, like: Path) -> None:
    """OUT/data: the test slices as preprocessing makes them, beside links to the training slices of `like`."""
    data = out / "data"
    preprocessing_images.main(
        [
            *("--input_A", str(out / "low"), "--truth_A", str(out / "high"), "--all_test"),
            *("--like", str(like), "--out", str(data)),
        ]
    )
    for domain in DOMAINS:
        for suffix in ("", "_mask"):
            folder = like / f"train{domain}{suffix}"
            if folder.is_dir():
                (data / folder.name).symlink_to(folder.resolve(), target_is_directory=True)


def prepare(out: Path, overwrite: bool) -> None:
    """An empty folder; of an earlier run's only what this program writes is removed. Raises UserError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        there = sorted(path.name for path in out.iterdir())
        if there and not overwrite:
            raise UserError(f"--out {out}: is not empty, give another folder or --overwrite")
        if foreign := set(there) - set(OUTPUTS):
            raise UserError(f"--out {out}: contains other files ({min(foreign)}), give another folder")
        for name in there:
            path = out / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error


def summary(rows: Mapping[str, tuple[Registered, list[Quality]]]) -> str:
    """A line for each volume, medians over its slices."""
    lines = []
    for subject, (_, every) in rows.items():
        told = [f"overlap of the heads {np.median([quality.dice for quality in every]):.3f}"]
        edges = [quality.edge_corr for quality in every if quality.edge_corr is not None]
        told += [f"edge correlation {np.median(edges):.2f}"] if edges else []
        misfits = [quality.misfit_px for quality in every if quality.misfit_px is not None]
        quarters = f"{sum(quality.quarters for quality in every)} of {4 * len(every)} quarters of slices tell"
        told.append(f"misfit of edges {np.median(misfits):.1f} px ({quarters})" if misfits else quarters)
        lines.append(f"{subject}: {', '.join(told)}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Read the command line, register, and write the folder."""
    parser = CommandLine(prog="register_pairs", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--low", required=True, help="low-field NIfTI volumes: a folder or one file")
    parser.add_argument("--high", required=True, help="high-field NIfTI volumes of the same people")
    parser.add_argument(
        "--like", required=True, type=Path, help="the training's data folder: slices are cut like its, baselines learn"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument(
        "--voxel_mm",
        nargs=3,
        type=float,
        metavar=("R", "A", "S"),
        help="voxel sides of the low field towards right, anterior and superior; none: its header's",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what this program has written to --out")
    options = parser.parse_args(argv)
    if options.voxel_mm is not None and not all(0 < side < np.inf for side in options.voxel_mm):
        raise UserError(f"--voxel_mm {' '.join(map(str, options.voxel_mm))}: need three numbers above 0")
    files = pair(options.low, options.high)
    if read_manifest(options.like) is None:
        raise UserError(f"--like {options.like}: no {MANIFEST_NAME}, need a data folder of preprocessing_images.py")
    prepare(options.out, options.overwrite)
    try:
        write_all(options.out, files, options.like, options.voxel_mm)
    except BaseException:
        prepare(options.out, overwrite=True)  # half of a folder would look like a whole one
        raise
    return 0


def write_all(out: Path, files: Mapping[str, tuple[Path, Path]], like: Path, voxel_mm: Sequence[float] | None) -> None:
    """Register every pair of `files` and write the folder `out`."""
    pairs, rows = [], {}
    for subject, (low_path, high_path) in files.items():
        low, found, axis = register_files(low_path, high_path)
        write_pair(out, subject, low_path, found, axis, voxel_mm)
        rows[subject] = found, qualities(low, found)
        pairs.append((subject, low, found))
    write_table(out / "registration.csv", rows)
    draw(pairs, out / "registration.png")
    print(summary(rows), flush=True)
    write_data(out, like)


if __name__ == "__main__":
    run_cli(main, "register_pairs")
