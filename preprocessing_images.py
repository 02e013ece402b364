"""Volumes become slices, foreground masks and a manifest: the data folder that train.py and test.py read.

python preprocessing_images.py --input_A LOW --input_B HIGH --out DATA
python preprocessing_images.py --simulate [PRESET] --out DATA
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data.manifest import DOMAINS, SPLITS, Manifest
from data.preprocessing.folder import check_writable
from data.preprocessing.volumes import SlicingSettings, plan_jobs, write_dataset
from options.preprocess_options import OutputOptions, PreprocessOptions, VolumeOptions, parse
from util.errors import run_cli


def main(argv: Sequence[str]) -> int:
    """Write the data folder that the command line asks for and print what is in it."""
    options = parse(argv)
    dataroot = Path(options.output.out or "")
    check_writable(dataroot, options.output.overwrite)
    if options.simulate is None:
        manifest = slice_volumes(dataroot, options.volumes, options.output)
    else:
        manifest = simulate(dataroot, options.simulate, options)
    Console().print(summary(dataroot, manifest))
    return 0


def slice_volumes(dataroot: Path, volumes: VolumeOptions, output: OutputOptions) -> Manifest:
    """Slice volumes of one's own; every header is checked before anything is written."""
    fractions = (0.0, 1.0) if volumes.all_test else (volumes.val_fraction, volumes.test_fraction)
    settings = SlicingSettings(output.bits, volumes.slice_axis, (volumes.window_low, volumes.window_high))
    jobs = plan_jobs(
        dataroot,
        settings,
        input_A=Path(volumes.input_A) if volumes.input_A else None,
        input_B=Path(volumes.input_B) if volumes.input_B else None,
        truth_A=Path(volumes.truth_A) if volumes.truth_A else None,
        val_fraction=fractions[0],
        test_fraction=fractions[1],
        seed=output.seed,
    )
    recorded: dict[str, object] = {
        "bits": output.bits,
        "slice_axis": volumes.slice_axis,
        "window_percentiles": [volumes.window_low, volumes.window_high],
        "val_fraction": fractions[0],
        "test_fraction": fractions[1],
        "seed": output.seed,
    }
    return write_dataset(dataroot, jobs, workers=output.workers, recorded=recorded)


def simulate(dataroot: Path, preset: str, options: PreprocessOptions) -> Manifest:
    """Write the embedded paired benchmark."""
    from data.simulation.benchmark import Benchmark, write_benchmark  # its anatomy is only loaded when asked for

    chosen, output = options.benchmark, options.output
    benchmark = Benchmark(
        chosen.preset(preset),
        chosen.n_train,
        chosen.n_val,
        chosen.n_test,
        seed=output.seed,
        bits=output.bits,
        matrix=chosen.matrix,
        nifti=chosen.nifti,
        anatomy=chosen.anatomy,
        deformation=chosen.deformation,
        ventricles=chosen.ventricles,
        sulci_mm=chosen.sulci_mm,
        lesions=chosen.lesions,
        n_lesions=chosen.n_lesions,
        lesions_in=chosen.lesions_in,
        faults=chosen.fault_names,
        fault_probability=chosen.fault_probability,
    )
    return write_benchmark(dataroot, benchmark, workers=output.workers)


def summary(dataroot: Path, manifest: Manifest) -> Table:
    """Subjects and slices of every split and domain."""
    table = Table(title=f"{dataroot}: {len(manifest.volumes)} volumes", title_justify="left")
    table.add_column("split")
    for domain in DOMAINS:
        table.add_column(f"subjects {domain}", justify="right")
        table.add_column(f"slices {domain}", justify="right")
    for split in SPLITS:
        counts = []
        for domain in DOMAINS:
            volumes = [volume for volume in manifest.volumes if (volume.split, volume.domain) == (split, domain)]
            counts += [str(len(volumes)), str(sum(len(volume.slices) for volume in volumes))]
        table.add_row(split, *counts)
    return table


if __name__ == "__main__":
    run_cli(main, "preprocessing_images.py")
