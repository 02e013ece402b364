"""How long the simulator takes for one subject: both fields at 1 mm and the truth, A and B in a process each.

python -m scripts.simulator_speed [--matrix 218] [--subjects 5]
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from multiprocessing import get_context

import torch

from simulation.presets import Preset, find_preset, with_acquisition
from simulation.subject import simulate_scan
from util.errors import run_cli
from util.schema import CommandLine

THICKNESS_MM = 1.0
Job = tuple[int, str, int]  # subject, domain, matrix


def preset() -> Preset:
    """The same-contrast task in slices of 1 mm."""
    thick = find_preset("same-contrast")
    return Preset(thick.name, *(with_acquisition(scan, thickness_mm=THICKNESS_MM) for scan in (thick.low, thick.high)))


def simulate(job: Job) -> tuple[int, int]:
    """Simulate one scan; its number of slices, and the most memory this process has held, in MiB."""
    torch.set_num_threads(1)
    subject, domain, matrix = job
    scan = simulate_scan(preset(), 0, subject, domain, matrix=matrix, with_truth=domain == "A")
    return scan.image.shape[2], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(argv: Sequence[str]) -> None:
    """A line a subject. The first, which pays for start and anatomy, is left out."""
    parser = CommandLine(prog="simulator_speed", description=__doc__)
    parser.add_argument("--matrix", type=int, default=218, help="pixels a side [default: 218]")
    parser.add_argument("--subjects", type=int, default=5, help="how many [default: 5]")
    options = parser.parse_args(argv)
    with get_context("spawn").Pool(2) as pool:
        pool.map(simulate, [(0, "A", 32), (0, "B", 32)], chunksize=1)
        for subject in range(1, 1 + options.subjects):
            start = time.perf_counter()
            done = pool.map(simulate, [(subject, domain, options.matrix) for domain in "AB"], chunksize=1)
            slices, peaks = zip(*done, strict=True)
            seconds = time.perf_counter() - start
            print(f"subject {subject}: {slices[0]} + {slices[1]} slices, {seconds:.2f} s, {max(peaks)} MiB a process")


if __name__ == "__main__":
    run_cli(main, "simulator_speed")
