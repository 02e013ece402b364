"""`test.py --dataset_mode volume`: scans in, synthesised volumes out. They are sliced as preprocessing_images.py does.

Slice axis, field of view, pixel and thickness are those of the training, as the run folder tells. The slices stay in
`slices/` under RESULTS/NAME, to be looked at if a head looks wrong.
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
from preprocessing.checking import check_data
from preprocessing.choices import DEFAULT_PERCENTILES
from preprocessing.dicom import Converter
from preprocessing.folder import Flags, check_writable
from preprocessing.grid import Grid
from preprocessing.inputs import Inputs, find_scans
from preprocessing.layout import Layout, LayoutChoice, choose_layout
from preprocessing.other_formats import NIFTI_SUFFIXES, holds_dicom
from preprocessing.slicing import SlicingSettings
from preprocessing.volumes import slice_data
from util.errors import UserError, warn
from util.problems import listed
from util.processes import Processes
from util.reading import read_json
from util.runs import OPTIONS_NAME

FLAG = "--dataroot"
ADVICE = "the model has learned from no such slices, so look twice at what it makes of them"
FLAGS = Flags("--results_dir", "--cpu_threads 1")  # of test.py
BITS = 16


def slice_scans(options: TestOptions, run: Mapping[str, Any], processes: Processes) -> Path:
    """Slice the scans of --dataroot into a data folder, all of them for testing, and return it.

    Args: run: the run's saved options.
    Raises: UserError: nothing that can be read there, or a scan that cannot be used, without --skip_bad.
    """
    processes.alone(partial(check_writable, options.slices, overwrite=True, flag=FLAGS.out))
    _, left_out = slice_data(
        partial(_find, options, run),
        options.slices,
        val_fraction=0.0,
        test_fraction=1.0,
        seed=options.seed,
        skip_bad=options.skip_bad,
        workers=options.cpu_threads,
        processes=processes,
        flags=FLAGS,
    )
    if left_out and processes.first:
        warn(f"--skip_bad left out {listed(left_out)}")
    return options.slices


def check_scans(options: TestOptions, processes: Processes) -> int:
    """`--check_data`: read every scan and list those that cannot be used; status 2 if there are any."""
    run = processes.alone(partial(read_json, options.run_dir / OPTIONS_NAME))
    find, workers = partial(_find, options, run), options.cpu_threads
    return check_data(find, options.slices, table_in=options.results, workers=workers, processes=processes, flags=FLAGS)


def refuse_dataroot(dataroot: Path, of_volumes: bool) -> None:
    """Raise UserError if --dataroot is missing, or holds scans where a data folder of slices is asked for."""
    if not dataroot.exists():
        need = "does not exist, need a folder of .nii or .nii.gz files, or one such file"
        raise UserError(f"{FLAG} {dataroot}: {need if of_volumes else 'no such folder'}")
    is_file = dataroot.is_file()
    is_scan = is_file and (dataroot.name.lower().endswith(NIFTI_SUFFIXES) or holds_dicom(dataroot))
    holds = dataroot.is_dir() and find_folder(dataroot, "test", "A") is None and not (dataroot / MANIFEST_NAME).exists()
    if not of_volumes and (is_scan or (holds and (any(dataroot.glob("*.nii*")) or holds_dicom(dataroot)))):
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
