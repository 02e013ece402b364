"""The whole test of one trained run: synthesis against truth and against real slices, SGP, LSC, and all files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from evaluation import level_error, opponents, paired, restoration, unpaired
from evaluation.encoder import Encoder
from evaluation.folders import TestData
from evaluation.paired import PairedTable
from evaluation.pictures import write_pictures
from evaluation.predict import Device, Embedder, MirrorAverage, NetworkGrid, Restorer, embed, synthesise
from evaluation.record import Record
from evaluation.subjects import SubjectSlices, positions_by_subject, read_subject
from evaluation.unpaired import UnpairedTable
from evaluation.volumes import write_volume
from models.base_model import BaseModel
from util.metrics.inception import FIDInception
from util.problems import as_rows

LSC_SLICES = 64  # evenly spaced high-field slices on which restoration is scored
DEFINITIONS = {**paired.DEFINITIONS, **unpaired.DEFINITIONS, **level_error.DEFINITIONS, **restoration.DEFINITIONS}


@dataclass(frozen=True)
class Evaluation:
    """One test: what is tested on which data, and where its results go. `run` does it."""

    model: BaseModel
    grid: NetworkGrid
    data: TestData
    on: Device
    encoder: Encoder | None
    results: Path
    seed: int
    with_opponents: bool = True
    average_mirrored: bool = False
    inception: FIDInception | None = None

    def run(self) -> tuple[Record, PairedTable]:
        """Do everything; images and volumes are written on the way, the report is not."""
        record, table = Record(), PairedTable()
        record.put("n_slices", value=self.data.n_slices)
        record.put("n_subjects", value=len(self.data.subjects))
        record.put("skipped", value=as_rows(self.data.skipped))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            if self.model.can_synthesise:
                self._synthesis(record, table, pool)
            else:
                for section in ("paired", "unpaired", "n_volumes"):
                    record.null(section, why="this model has no generator, so there is nothing to compare")
            self._sgp(record, getattr(self.model, "sgp", None))
            self._lsc(record, getattr(self.model, "lsc", None), pool)
        return record, table

    def stems(self) -> dict[str, list[str]]:
        """File-name stems of every subject's slices, in the order of the volume."""
        files = self.data.source.files
        return {subject: [files[i].stem for i in rows] for subject, rows in self.data.subjects.items()}

    def _synthesis(self, record: Record, table: PairedTable, pool: Executor) -> None:
        """fake_B and the opponents, subject by subject, then the sections `paired` and `unpaired`."""
        for name in ("images", "volumes"):
            (self.results / name).mkdir(parents=True, exist_ok=True)
        known = self.data.train_target if self.with_opponents else None
        target = None if known is None else opponents.pooled_quantiles(known)
        sets = None if self.data.target is None else UnpairedTable(self.inception)
        n_volumes = 0
        model = MirrorAverage(self.model) if self.average_mirrored else self.model
        record.put("average_mirrored", value=self.average_mirrored)
        for volume in self._subjects(self.data):
            fake_B = synthesise(model, volume, self.grid, self.on)
            write_pictures(self.results / "images", volume, fake_B, pool)
            if volume.subject in self.data.entries:
                write_volume(self.results / "volumes", self.data.entries[volume.subject], volume, fake_B)
                n_volumes += 1
            rows = {"fake_B": fake_B}
            if volume.truth is not None and self.with_opponents:
                rows |= opponents.synthesise(volume, target, pool)
            _score(table, volume, rows, pool)
            if sets is not None:
                for row, slices in (("fake_B", fake_B), ("identity", volume.visible)):
                    sets.add(row, volume.subject, slices, self._embedding(slices, volume.mask))
        if n_volumes:
            record.put("n_volumes", value=n_volumes)
        else:
            record.null(
                "n_volumes", why="no manifest.json that says where the slices lie; preprocessing_images.py writes it"
            )
        self._paired(record, table)
        self._unpaired(record, sets)

    @staticmethod
    def _subjects(data: TestData) -> Iterable[SubjectSlices]:
        jobs = track(data.subjects.values(), description="synthesis and measures", transient=True)
        return (read_subject(data.source, positions, with_truth=data.has_truth) for positions in jobs)

    def _embedding(self, slices: np.ndarray, masks: np.ndarray) -> np.ndarray | None:
        if self.encoder is None:
            return None
        return embed(self.encoder.sgp, slices, masks, self.data.target_domain, self.encoder.grid, self.on)

    def _paired(self, record: Record, table: PairedTable) -> None:
        folder = self.data.source.folder.name
        if not self.data.has_truth:
            record.null("paired", why=f"no truth: there is no folder {folder}_truth")
            return
        table.summarise(record, seed=self.seed)
        for row in opponents.OPPONENTS:
            if row not in table.rows:
                why = "no training slices of the target domain" if self.with_opponents else "--no_opponents was given"
                record.null("paired", row, leaves=paired.MEASURES, why=why)

    def _unpaired(self, record: Record, sets: UnpairedTable | None) -> None:
        if sets is None or self.data.target is None:
            split, domain = self.data.source.split, self.data.target_domain
            record.null("unpaired", why=f"no real slices to compare with: there is no folder {split}{domain}")
            return
        for positions in positions_by_subject(self.data.target).values():
            real = read_subject(self.data.target, positions)
            sets.add("real_B", real.subject, real.visible, self._embedding(real.visible, real.mask))
        sets.summarise(record, seed=self.seed)

    def _sgp(self, record: Record, sgp: Embedder | None) -> None:
        """Section `sgp`: level error of matches between test subjects."""
        low, high = self.data.source, self.data.target
        if sgp is None:
            record.null("sgp", why="this model has no SGP part")
        elif high is None:
            record.null("sgp", why=f"no high-field test slices: there is no folder {low.split}B")
        elif low.level_mm is None or high.level_mm is None:
            record.null("sgp", why="the slices' true levels are known for simulated heads only")
        else:
            sides = []
            for folder in (low, high):
                volumes = (read_subject(folder, rows) for rows in positions_by_subject(folder).values())
                sides.append([self._levelled(volume, sgp, folder.domain) for volume in volumes])
            level_error.summarise(record, level_error.level_errors(*sides, seed=self.seed))

    def _levelled(self, volume: SubjectSlices, sgp: Embedder, domain: str) -> level_error.LevelledSlices:
        embedding = embed(sgp, volume.image, volume.mask, domain, self.grid, self.on)
        return level_error.levelled(volume, embedding)

    def _lsc(self, record: Record, lsc: Restorer | None, pool: Executor) -> None:
        """Section `lsc`: restoration of high-field slices of test subjects, and of training slices beside it."""
        if lsc is None:
            record.null("lsc", why="this model has no LSC part")
            return
        if self.data.target is None:
            record.null("lsc", why=f"no high-field test slices: there is no folder {self.data.source.split}B")
            return
        scores = {}
        for name, folder in (("test", self.data.target), ("train", self.data.train_target)):
            if folder is not None:
                rows = restoration.evenly_spaced(len(folder), LSC_SLICES)
                inputs, heads = zip(
                    *(self.grid.tensor(folder.image(i)[None], folder.mask(i)[None]) for i in rows), strict=True
                )
                scores[name] = restoration.Restoration(lsc, inputs, heads, self.on, seed=self.seed)
        restoration.summarise(record, scores["test"], scores.get("train"), pool)


def _score(table: PairedTable, volume: SubjectSlices, rows: dict[str, np.ndarray], pool: Executor) -> None:
    """Score all rows of one subject, where its truth is known."""
    if volume.truth is None or volume.truth_mask is None:
        return
    scores = pool.map(partial(paired.score, truth=volume.truth, mask=volume.truth_mask), rows.values())
    for row, values in zip(rows, scores, strict=True):
        table.add(row, volume.subject, values)
