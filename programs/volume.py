"""`test.py --dataset_mode volume`: scans in, synthesised volumes out. They are sliced as preprocessing_images.py does.

The slices are cut like those that the run was trained on: slice axis, field of view, pixel and thickness are read from
its run folder. They stay beside the results, in `slices/` under RESULTS/NAME, to be looked at if a head looks wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data.folder.manifest import MANIFEST_NAME
from data.folder.slice_folder import find_folder
from data.scale import SliceScale, trained_scales
from options.test_options import TestOptions
from preprocessing.checking import check_inputs, check_volumes, print_notes, print_problems
from preprocessing.choices import DEFAULT_PERCENTILES
from preprocessing.dicom import Converter, converting
from preprocessing.folder import check_writable
from preprocessing.grid import Grid
from preprocessing.inputs import Inputs, find_scans
from preprocessing.layout import Layout, LayoutChoice, choose_layout
from preprocessing.other_formats import NIFTI_SUFFIXES, holds_dicom
from preprocessing.slicing import SlicingSettings
from preprocessing.volumes import SlicingPlan, split_people, write_dataset
from util.errors import UserError, warn
from util.problems import listed
from util.processes import Processes
from util.reading import read_json
from util.runs import OPTIONS_NAME

FLAG = "--dataroot"
ADVICE = "the model has learned from no such slices, so look twice at what it makes of them"
WITHOUT_WORKERS = "--cpu_threads 1"  # the option under which volumes are sliced one by one
BITS = 16


def slice_scans(options: TestOptions, run: Mapping[str, Any], processes: Processes) -> Path:
    """Slice the scans of --dataroot into a data folder, all of them for testing, and return it.

    Args: run: the run's saved options.
    Raises: UserError: nothing that can be read there, or a scan that cannot be used, without --skip_bad.
    """
    with converting(options.slices, processes) as converter:
        return _slice(options, run, processes, converter)


def _slice(options: TestOptions, run: Mapping[str, Any], processes: Processes, converter: Converter) -> Path:
    folder = options.slices
    found, settings = processes.alone(partial(_find, options, run, converter))
    processes.alone(partial(_may_write, folder))
    processes.alone(partial(check_inputs, found, folder, skip_bad=options.skip_bad))
    fractions = {"val_fraction": 0.0, "test_fraction": 1.0, "seed": options.seed}
    people, splits, _ = split_people(found.sources, val_fraction=0.0, test_fraction=1.0, seed=options.seed)
    processes.alone(partial(print_notes, found.notes))
    plan = SlicingPlan(folder, settings, people, splits, options.skip_bad)
    _, left_out = write_dataset(
        plan,
        found,
        workers=options.cpu_threads,
        recorded=fractions,
        processes=processes,
        instead=WITHOUT_WORKERS,
    )
    if left_out and processes.first:
        warn(f"--skip_bad left out {listed(left_out)}")
    return folder


def check_scans(options: TestOptions, processes: Processes) -> int:
    """`--check_data`: read every scan and list those that cannot be used; status 2 if there are any."""
    run = processes.alone(partial(read_json, options.run_dir / OPTIONS_NAME))
    with converting(options.slices, processes) as converter:
        found, settings = processes.alone(partial(_find, options, run, converter))
        processes.alone(partial(print_notes, found.notes))
        problems, doubtful = check_volumes(
            found.sources, settings, workers=options.cpu_threads, processes=processes, instead=WITHOUT_WORKERS
        )
    every = found.problems + problems
    status = processes.alone(partial(print_problems, every, found.n_files, options.results, doubtful))
    return status if processes.first else 0


def refuse_dataroot(dataroot: Path, of_volumes: bool) -> None:
    """Raise UserError if --dataroot is missing, or holds scans where a data folder of slices is asked for."""
    if not dataroot.exists():
        need = "does not exist, need a folder of .nii or .nii.gz files, or one such file"
        raise UserError(f"{FLAG} {dataroot}: {need if of_volumes else 'no such folder'}")
    if of_volumes:
        return
    is_file = dataroot.is_file()
    is_scan = is_file and (dataroot.name.lower().endswith(NIFTI_SUFFIXES) or holds_dicom(dataroot))
    holds = dataroot.is_dir() and find_folder(dataroot, "test", "A") is None and not (dataroot / MANIFEST_NAME).exists()
    if is_scan or (holds and (any(dataroot.glob("*.nii*")) or holds_dicom(dataroot))):
        raise UserError(f"{FLAG} {dataroot}: scans, not slices; --dataset_mode volume reads them")


def written(results: Path) -> list[Path]:
    """The synthesised volumes of a test."""
    return sorted((results / "volumes").glob("*_synth.nii.gz"))


def _find(options: TestOptions, run: Mapping[str, Any], converter: Converter) -> tuple[Inputs, SlicingSettings]:
    """The scans, and how they are sliced."""
    domain = str(run["direction"])[0]
    found = find_scans(options.dataroot, domain, FLAG, options.contrast, converter)
    trained = trained_scales(options.run_dir).get(domain)
    if trained is None:
        warn(
            f"{options.run_dir} was trained on slices of no known size in mm, so the scans' own field of view is "
            f"taken; heads should fill it as they did in training"
        )
        choice = LayoutChoice()
    else:
        choice = LayoutChoice(like=options.run_dir, known=layout_of(trained, run))
    return found, SlicingSettings(BITS, choose_layout(found, choice), DEFAULT_PERCENTILES)


def layout_of(trained: SliceScale, run: Mapping[str, Any]) -> Layout:
    """The layout of the training's slices; runs that do not tell their pixel get that of the network's images.

    Thinner slices are averaged if the training's were.
    """
    pixel = trained.pixel_mm or trained.fov_mm / max(run["image_size"])
    return Layout(trained.slice_axis, Grid(pixel, round(trained.fov_mm / pixel)), trained.thickness_mm)


def _may_write(folder: Path) -> None:
    try:
        check_writable(folder, overwrite=True)
    except UserError as error:
        raise UserError(str(error).replace("--out", "--results_dir", 1)) from error
