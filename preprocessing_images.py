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
            return check_data(dataroot, volumes, options.output, processes)
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


def check_data(dataroot: Path, volumes: VolumeOptions, output: OutputOptions, processes: Processes) -> int:
    """Read everything and write nothing but the table of files that cannot be used; status 2 if there are any."""
    from preprocessing.checking import check_volumes, print_notes, print_problems
    from preprocessing.dicom import converting

    with converting(dataroot, processes) as converter:
        found, settings = processes.alone(partial(find_volumes, volumes, output.bits, converter))
        processes.alone(partial(print_notes, found.notes))
        problems, doubtful = check_volumes(found.sources, settings, workers=output.workers, processes=processes)
    every = found.problems + problems
    status = processes.alone(partial(print_problems, every, found.n_files, dataroot, doubtful))
    return status if processes.first else 0  # torchrun would end the first process as soon as another one fails


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
    """Slice the user's volumes; every header is checked before anything is written."""
    from preprocessing.checking import check_inputs, print_notes
    from preprocessing.dicom import converting
    from preprocessing.volumes import SlicingPlan, split_people, write_dataset

    with converting(dataroot, processes) as converter:
        found, settings = processes.alone(partial(find_volumes, volumes, output.bits, converter))
        processes.alone(partial(check_inputs, found, dataroot, skip_bad=volumes.skip_bad))
        val, test = (0.0, 1.0) if volumes.all_test else (volumes.val_fraction, volumes.test_fraction)
        fractions = {"val_fraction": val, "test_fraction": test, "seed": output.seed}
        people, splits, notes = split_people(found.sources, val_fraction=val, test_fraction=test, seed=output.seed)
        processes.alone(partial(print_notes, [*found.notes, *notes]))
        plan = SlicingPlan(dataroot, settings, people, splits, volumes.skip_bad)
        return write_dataset(plan, found, workers=output.workers, recorded=fractions, processes=processes)


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
