"""The process that trains a task's segmenter on the true high field of its training people.

python -m benchmarks.fidelity.segment --dataroot DATA LESION_DATA --out segmenter.pt --steps 400
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.folder.slice_folder import SliceFolder
from evaluation.metrics.tissues import Classes, classes_of
from evaluation.segmenter import fit_segmenter, save_segmenter
from evaluation.subjects import positions_by_subject, read_subject
from util.errors import UserError, run_cli
from util.schema import CommandLine
from util.threads import sleep_while_waiting

SEED = 0


def main(argv: Sequence[str]) -> None:
    """Train and write the weights."""
    parser = CommandLine(prog="segment.py", description=__doc__)
    parser.add_argument("--dataroot", nargs="+", required=True, help="data folders with labels")
    parser.add_argument("--out", required=True, help="file of the weights")
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args(argv)
    sleep_while_waiting()
    volumes = [volume for root in options.dataroot for domain in "AB" for volume in high_field(Path(root), domain)]
    images, classes = zip(*volumes, strict=True)
    save_segmenter(fit_segmenter(images, classes, steps=options.steps, seed=SEED), Path(options.out))


def high_field(dataroot: Path, domain: str) -> Iterator[tuple[NDArray[np.float32], Classes]]:
    """High-field slices (S, H, W) of training subjects with their classes: the truth of A, the scans of B.

    Raises: UserError: the folder has no labels.
    """
    folder = SliceFolder(dataroot, "train", domain)
    labels = folder.sibling("labels")
    if labels is None:
        raise UserError(f"{folder.folder}: has no labels")
    for positions in positions_by_subject(folder).values():
        volume = read_subject(folder, positions, with_truth=domain == "A")
        image = volume.visible if volume.truth is None else volume.truth
        yield image, classes_of(np.stack([labels.read(i) for i in positions]))


if __name__ == "__main__":
    run_cli(main, "segment.py")
