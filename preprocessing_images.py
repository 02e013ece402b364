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
            manifest = simulate(dataroot, options.simulate, options, processes)
        if processes.first:
            Console().print(summary(dataroot, manifest))
            if left_out:
                warn(f"--skip_bad left out {listed(left_out)}; {dataroot / BAD_FILES_NAME} lists them")
    return 0


def check_data(dataroot: Path, volumes: VolumeOptions, output: OutputOptions, processes: Processes) -> int:
    """Read everything and write nothing but the table of files that cannot be used; status 2 if there are any."""
    from preprocessing.checking import check_volumes, print_notes, print_problems
    from preprocessing.inputs import find_inputs

    found = processes.alone(partial(find_inputs, volumes.input_A, volumes.input_B, volumes.truth_A))
    settings = settings_of(volumes, output)
    processes.alone(partial(print_notes, found.notes))
    problems, doubtful = check_volumes(found.sources, settings, workers=output.workers, processes=processes)
    every = found.problems + problems
    status = processes.alone(partial(print_problems, every, found.n_files, dataroot, doubtful))
    return status if processes.first else 0  # torchrun would end the first process as soon as another one fails


def settings_of(volumes: VolumeOptions, output: OutputOptions) -> SlicingSettings:
    """The slicing settings that the options give."""
    from preprocessing.slicing import SlicingSettings

    return SlicingSettings(output.bits, volumes.slice_axis, (volumes.window_low, volumes.window_high))


def slice_volumes(
    dataroot: Path, volumes: VolumeOptions, output: OutputOptions, processes: Processes
) -> tuple[Manifest, list[Problem]]:
    """Slice the user's volumes; every header is checked before anything is written."""
    from preprocessing.checking import check_inputs, print_notes
    from preprocessing.inputs import find_inputs
    from preprocessing.volumes import SlicingPlan, split_people, write_dataset

    found = processes.alone(partial(find_inputs, volumes.input_A, volumes.input_B, volumes.truth_A))
    processes.alone(partial(check_inputs, found, dataroot, skip_bad=volumes.skip_bad))
    val, test = (0.0, 1.0) if volumes.all_test else (volumes.val_fraction, volumes.test_fraction)
    fractions = {"val_fraction": val, "test_fraction": test, "seed": output.seed}
    people, splits, notes = split_people(found.sources, val_fraction=val, test_fraction=test, seed=output.seed)
    processes.alone(partial(print_notes, [*found.notes, *notes]))
    plan = SlicingPlan(dataroot, settings_of(volumes, output), people, splits, volumes.skip_bad)
    return write_dataset(plan, found, workers=output.workers, recorded=fractions, processes=processes)


def simulate(dataroot: Path, preset: str, options: PreprocessOptions, processes: Processes) -> Manifest:
    """Write the simulated paired benchmark."""
    from options.benchmark import benchmark_of
    from simulation.benchmark import write_benchmark

    benchmark = processes.alone(partial(benchmark_of, preset, options.benchmark, options.output))
    return write_benchmark(dataroot, benchmark, workers=options.output.workers, processes=processes)


if __name__ == "__main__":
    run_cli(main, "preprocessing_images.py")
