"""The process that tests a row on one split: predicts, keeps the predictions, and writes the measures.

python -m benchmarks.fidelity.work --data OUT BUDGET TASK --phase val --out FOLDER [--run RUN --epoch latest]
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fidelity.lengths import STAGE_BEFORE_REFINEMENT, Slices, images_seen
from benchmarks.fidelity.measure import Measured, keep, prediction_path
from benchmarks.fidelity.rows import BASELINES, Row
from benchmarks.fidelity.store import PHASES, Place, machine, now, write_json
from data.folder.slice_folder import SliceFolder
from evaluation import baselines
from evaluation.encoder import grid_of
from evaluation.predict import Device, synthesise
from evaluation.subjects import SubjectSlices, read_subject
from models.trained import load_trained
from util.checkpoint import LATEST
from util.device import choose_device
from util.errors import run_cli
from util.schema import CommandLine
from util.threads import sleep_while_waiting

BATCH = 16  # slices
CHOSEN_BY = "psnr_fit"  # on validation people, where a row's best checkpoint is tested
FLAT, EARLY = 0.1, 0.7  # dB, and part of the curve's points: one of the first has to be so near the best of all


def main(argv: Sequence[str]) -> None:
    """Test one row, or all that need no training, and write a result for each."""
    parser = CommandLine(prog="work.py", description=__doc__)
    parser.add_argument("--data", nargs=3, required=True, metavar=("OUT", "BUDGET", "TASK"))
    parser.add_argument("--phase", required=True, choices=PHASES)
    parser.add_argument("--out", required=True, help="folder of the row; of all rows, without --run")
    parser.add_argument("--gpu_ids", default="auto")
    parser.add_argument("--run", help="run folder; none: the rows without a training")
    parser.add_argument("--epoch", default=LATEST, help="latest, a number, or best: the best one on this split")
    parser.add_argument("--before_refinement", action="store_true", help="only earlier stages count as seen")
    options = parser.parse_args(argv)
    sleep_while_waiting()
    on = Device(choose_device(options.gpu_ids), BATCH)
    place, task = Place(Path(options.data[0]), options.data[1]), options.data[2]
    split, out = Measured(place, task, options.phase, on), Path(options.out)
    if options.run is None:
        untrained_rows(split, place.data(task), out, options.phase)
    else:
        trained_row(split, Path(options.run), options.epoch, out, options.phase, options.before_refinement)


def untrained_rows(split: Measured, dataroot: Path, out: Path, phase: str) -> None:
    """Predict and measure the baselines of test.py."""
    with ThreadPoolExecutor(1) as pool:
        began = time.perf_counter()
        fitted = baselines.fit(SliceFolder(dataroot, "train", "A"), SliceFolder(dataroot, "train", "B"), pool)
        for volume in _volumes(split):
            for row, slices in baselines.synthesise(volume, fitted, pool).items():
                keep(prediction_path(out / row / "0" / phase, volume.subject), slices)
        seconds = time.perf_counter() - began
    training = {"images": {}, "wall_s": seconds}
    for row in BASELINES:
        _write(out / row / "0", phase, split, {"epoch": "", "training": training})


def trained_row(split: Measured, run: Path, epoch: str, out: Path, phase: str, before_refinement: bool) -> None:
    """Predict with a trained run and measure; with `best`, with the checkpoint that scores best on this split."""
    found: dict[str, Any] = {}
    if epoch == "best":
        found["curve"] = {}
        for one in _epochs(run):
            _predict(split, run, one, out / phase)
            scores = split.row(out / phase)["subjects"].values()
            found["curve"][one] = float(np.mean([each[CHOSEN_BY] for each in scores]))
        epoch = max(found["curve"], key=lambda one: found["curve"][one])
        found["flat"] = is_flat(found["curve"])
    _predict(split, run, epoch, out / phase)
    model = load_trained(run, epoch)
    until = STAGE_BEFORE_REFINEMENT if before_refinement else ""
    row = Row(model.run["model"], "", aligned=model.run["dataset_mode"] == "aligned")
    length = Slices.of(split.source.dataroot).epoch(row)
    seen = images_seen(run, model.stages, int(model.run["batch_size"]), length, until)
    found["machine"] = machine(split.on.device, model.run["amp"])
    _write(out, phase, split, {"epoch": epoch, "training": seen, **found})


def _epochs(run: Path) -> list[str]:
    """The checkpoints of a run, the last one as `latest`."""
    return [*sorted((path.stem for path in run.glob("*.pt") if path.stem.isdecimal()), key=int), LATEST]


def is_flat(curve: Mapping[str, float]) -> bool:
    """Whether training longer would hardly help: a checkpoint well before the last is almost as good as the best.

    Args: curve: score on validation people by epoch, in order.
    """
    scores = list(curve.values())
    early = scores[: int(EARLY * len(scores))]
    return bool(early) and max(scores) - max(early) <= FLAT


def _volumes(split: Measured) -> list[SubjectSlices]:
    return [read_subject(split.source, positions, with_truth=True) for positions in split.positions.values()]


def _predict(split: Measured, run: Path, epoch: str, folder: Path) -> None:
    """Write the predictions of a checkpoint."""
    model = load_trained(run, epoch, split.on.device)
    for volume in _volumes(split):
        keep(prediction_path(folder, volume.subject), synthesise(model, volume, grid_of(model), split.on))


def _write(out: Path, phase: str, split: Measured, found: dict[str, Any]) -> None:
    """Write `PHASE.json`, whose presence says that the row is tested on this split."""
    measured = split.row(out / phase)
    write_json(out / f"{phase}.json", {"date": now(), "machine": machine(split.on.device), **found, **measured})


if __name__ == "__main__":
    run_cli(main, "work.py")
