"""Equal terms: every training sees the same number of images, those of its pretext stages included.

An image is an item of a batch: a slice of A and a slice of B, of which some stages use only the second. SGP and LSC
take a part of what a row may see. A row that trains only one of them, or none, sees as many more images in its own
stages: the adversarial stage and the refinement are lengthened by the same factor, in whole epochs.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.fidelity.budgets import Budget
from benchmarks.fidelity.rows import Row
from data.batch import SHUFFLED
from data.folder.slice_folder import SliceFolder
from models.stage import Stage
from options.train_options import RunOptions, parse, schemas
from training.log.loss_log import LOSS_LOG_NAME

NO_REPORT = ("--no_html", "--save_latest_freq", "1000")
STAGE_BEFORE_REFINEMENT = "gan"
CHECKPOINTS = 4  # of a row whose best one is chosen on validation people
NO_CHECKPOINTS = 1_000_000  # epochs between those of other rows, whose last state is tested


@dataclass(frozen=True)
class Slices:
    """Numbers of training slices."""

    A: int
    B: int

    def epoch(self, row: Row) -> int:
        """Images in an epoch of a row's dataset: the larger domain's slices, or those of A with their truth."""
        return self.A if row.aligned else max(self.A, self.B)

    @classmethod
    def of(cls, dataroot: Path) -> Slices:
        return cls(*(len(SliceFolder(dataroot, "train", domain)) for domain in "AB"))


def train_options(row: Row, budget: Budget, seed: int, slices: Slices) -> list[str]:
    """The options of train.py for a row, but for the folders."""
    unpaired = max(slices.A, slices.B)
    fixed = ["--preset", budget.preset, "--model", row.model, "--netG", row.netG, "--seed", str(seed)]
    dataset_mode = "aligned" if row.aligned else "unaligned_mask"  # equal terms: masks are open to all models
    fixed += ["--dataset_mode", dataset_mode, *_known_to(row.model, dataset_mode, budget.options)]
    fixed += [*(budget.widths or {}).get(row.netG, ()), *budget.of_models.get(row.model, ()), *row.options, *NO_REPORT]
    refined = _known_to(row.model, dataset_mode, ("--n_epochs_refine", "1"))  # of a length that is not known yet
    run = parse([*fixed, *refined, "--dataroot", "-"])
    if getattr(run.network, "trains_sgp", False):
        fixed += budget.sgp
        run = parse([*fixed, *refined, "--dataroot", "-"])
    own, options = budget.lengths.total, run.network
    for name, epochs in (("sgp", budget.lengths.sgp), ("lsc", budget.lengths.lsc)):
        if getattr(options, f"trains_{name}", False):
            own -= epochs
            batch = max(run.train.batch_size, getattr(options, f"{name}_batch_size"))
            fixed += [f"--{name}_steps", str(max(1, round(epochs * unpaired / batch)))]
    gan = own = round(own * unpaired / slices.epoch(row))
    if hasattr(options, "n_epochs_refine"):
        gan = max(1, round(own * budget.lengths.gan / (budget.lengths.gan + budget.lengths.refine)))
        fixed += ["--n_epochs_refine", str(own - gan)]
    steady = round(budget.steady * gan)
    fixed += ["--n_epochs", str(steady), "--n_epochs_decay", str(gan - steady)]
    return [*fixed, "--save_epoch_freq", str(max(1, gan // CHECKPOINTS) if row.by_validation else NO_CHECKPOINTS)]


def _known_to(model: str, dataset_mode: str, words: Sequence[str]) -> list[str]:
    """The options among `words`, each with its value, that a model has: one without a noise model goes without."""
    known = {f"--{field.name}" for schema in schemas(model, dataset_mode) for field in fields(schema)}
    kept: list[str] = []
    taken = True
    for word in words:
        taken = word in known if word.startswith("--") else taken
        kept += [word] * taken
    return kept


def before_refinement(run: RunOptions) -> int:
    """The epoch, as checkpoints are named, at which the refinement begins."""
    return run.network.n_epochs + run.network.n_epochs_decay


def images_seen(
    run_dir: Path, stages: Sequence[Stage], batch_size: int, epoch_images: int, until: str = ""
) -> dict[str, Any]:
    """What a training saw and how long it took, as its log says.

    Args:
        epoch_images: images in an epoch; its last batch may be smaller.
        until: the last stage that counts, by name; empty: all.
    Returns: `images` by stage, and `wall_s`, seconds of training.
    """
    with (run_dir / LOSS_LOG_NAME).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    images: dict[str, int] = {}
    seconds = 0.0
    for stage in stages:
        logged = [row for row in rows if row["stage"] == stage.name]
        if logged:
            steps, size = int(logged[-1]["step"]), max(batch_size, stage.least_batch)
            epochs, rest = divmod(steps, -(-epoch_images // size))
            shuffled = stage.sampling == SHUFFLED  # SGP's batches are drawn by level, and all of one size
            images[stage.name] = epochs * epoch_images + rest * size if shuffled else steps * size
            seconds = float(logged[-1]["seconds"])
        if stage.name == until:
            break
    return {"images": images, "wall_s": seconds}
