"""The simulated benchmark that the options of preprocessing_images.py describe."""

from __future__ import annotations

from options.preprocess_options import BenchmarkOptions, OutputOptions
from simulation.benchmark import Benchmark


def benchmark_of(preset: str, chosen: BenchmarkOptions, output: OutputOptions) -> Benchmark:
    """The benchmark of that preset with these options.

    Raises: UserError for an option that the preset's sequence does not take, or an unknown fault.
    """
    return Benchmark(
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
