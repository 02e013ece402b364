"""Turn volumes into slices, foreground masks and a manifest: the data folder that train.py and test.py read.

python preprocessing_images.py --input_A LOW --input_B HIGH --out DATA
python preprocessing_images.py --simulate [PRESET] --out DATA
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from data.folder.manifest import Manifest
from options.preprocess_options import OutputOptions, PreprocessOptions, VolumeOptions, parse
from util.errors import run_cli, warn
from util.problems import BAD_FILES_NAME, Problem, listed
from util.processes import Processes, join_processes

if TYPE_CHECKING:
    from preprocessing.dicom import Converter
    from preprocessing.inputs import Inputs
    from preprocessing.slicing import SlicingSettings

# What reads volumes is imported late: SciPy and torch take seconds, and `--help` or a typo should not wait for them.


def main(argv: Sequence[str]) -> int:
    """Write the data folder and print a summary; with --check_data, only check the volumes."""
    with join_processes() as processes:
        options = processes.alone(partial(parse, argv))
        from preprocessing.folder import check_writable, summary

        dataroot, volumes = Path(options.output.out or ""), options.volumes
        if volumes.check_data:
            from preprocessing.checking import check_data

            find, workers = partial(find_volumes, volumes, options.output.bits), options.output.workers
            return check_data(find, dataroot, table_in=dataroot, workers=workers, processes=processes)
        processes.alone(partial(check_writable, dataroot, options.output.overwrite))
        left_out: list[Problem] = []
        if options.simulate is None:
            manifest, left_out = slice_volumes(dataroot, volumes, options.output, processes)
        else:
            manifest = simulate(dataroot, options, processes)
        if processes.first:
            Console().print(summary(dataroot, manifest))
            if left_out:
                warn(f"--skip_bad left out {listed(left_out)}; {dataroot / BAD_FILES_NAME} lists them")
    return 0


def find_volumes(volumes: VolumeOptions, bits: int, converter: Converter) -> tuple[Inputs, SlicingSettings]:
    """The volumes, and how they are sliced: one axis and one grid in mm for all of them."""
    from preprocessing.inputs import find_inputs
    from preprocessing.layout import LayoutChoice, choose_layout
    from preprocessing.slicing import SlicingSettings

    given = {"A": (volumes.input_A, volumes.contrast_A), "B": (volumes.input_B, volumes.contrast_B)}
    found = find_inputs(given, volumes.truth_A, converter)
    like = None if volumes.like is None else Path(volumes.like)
    choice = LayoutChoice(volumes.slice_axis, volumes.pixel_mm, volumes.fov_mm, volumes.thickness_mm, like)
    return found, SlicingSettings(bits, choose_layout(found, choice), (volumes.window_low, volumes.window_high))


def slice_volumes(
    dataroot: Path, volumes: VolumeOptions, output: OutputOptions, processes: Processes
) -> tuple[Manifest, list[Problem]]:
    """Slice the user's volumes."""
    from preprocessing.volumes import slice_data

    return slice_data(
        partial(find_volumes, volumes, output.bits),
        dataroot,
        val_fraction=0.0 if volumes.all_test else volumes.val_fraction,
        test_fraction=1.0 if volumes.all_test else volumes.test_fraction,
        seed=output.seed,
        skip_bad=volumes.skip_bad,
        workers=output.workers,
        processes=processes,
    )


def simulate(dataroot: Path, options: PreprocessOptions, processes: Processes) -> Manifest:
    """Write the simulated paired benchmark, and say how its fields differ."""
    from preprocessing.checking import print_notes
    from simulation.benchmark import notes_on, write_benchmark

    benchmark = processes.alone(options.simulated)
    manifest = write_benchmark(dataroot, benchmark, workers=options.output.workers, processes=processes)
    processes.alone(lambda: print_notes(notes_on(benchmark, manifest)))
    return manifest


if __name__ == "__main__":
    run_cli(main, "preprocessing_images.py")
