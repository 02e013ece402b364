"""The test of a trained run: synthesis compared with truth and with real slices, SGP, LSC, and all output files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import track

from data.folder.slice_folder import SliceFolder
from evaluation import baselines, level_error, paired, people, restoration, slice_scores, unpaired, verdict
from evaluation.encoder import Encoder
from evaluation.findings import Findings, Rows
from evaluation.folders import TestData
from evaluation.page.sprites import placing, script_name, write_sprites
from evaluation.page.viewer import Listing
from evaluation.paired import PairedTable
from evaluation.people import people_in, put_people
from evaluation.pictures import trust_levels, write_pictures, write_trust_pictures
from evaluation.predict import Device, MirrorAverage, NetworkGrid, embed, synthesise
from evaluation.protocols import Protocol, definitions_of
from evaluation.provenance import Provenance
from evaluation.record import Record, Scores
from evaluation.subjects import SubjectSlices, part_of, positions_by_subject, read_subject
from evaluation.trust import scores as trust_scores
from evaluation.trust.maps import Trust
from evaluation.unpaired import UnpairedTable
from evaluation.verdict import put_verdict
from evaluation.volumes import TRUST_VOLUME, why_incomplete, write_volume
from models.base_model import BaseModel
from models.lsc_model import LSC
from util.problems import as_rows
from util.processes import ALONE, Processes
from util.spread import evenly_spaced

if TYPE_CHECKING:
    from evaluation.metrics.inception import FIDInception
    from evaluation.metrics.lpips import LPIPS

LSC_SLICES = 64  # evenly spaced high-field slices for the score of LSC
DEFINITIONS = {
    name: text
    for part in (verdict, paired, people, unpaired, level_error, restoration, slice_scores)
    for name, text in part.DEFINITIONS.items()
}


@dataclass(frozen=True)
class Evaluation:
    """One test: model, data, and folder of the results. `run` carries it out."""

    model: BaseModel
    grid: NetworkGrid
    data: TestData
    on: Device
    encoder: Encoder | None
    results: Path
    provenance: Provenance
    seed: int
    with_baselines: bool = True
    average_mirrored: bool = False
    inception: FIDInception | None = None
    lpips: LPIPS | None = None
    protocol: Protocol | None = None
    trust: Trust | None = None

    def run(self, processes: Processes = ALONE) -> tuple[Record, PairedTable, Listing | None] | None:
        """Compute all measures and write images and volumes, but not the report.

        Each of `processes` tests its part of the subjects, one at a time; the first one then summarises all of them.
        Returns: in the first process the measures, and the slices to list if there are any; None in the others.
        """
        with ThreadPoolExecutor(processes.processors) as pool:
            fitted = self._fit_baselines(pool, processes)
            parts = processes.collected(processes.together(partial(self._part, processes, fitted, pool)))
            if not parts:
                return None
            found = self._merge(parts)
            return *self._summarise(found, pool), self._listing(found)

    def _listing(self, found: Findings) -> Listing | None:
        """What the report's browser shows; None for a model that synthesises nothing."""
        if not self.model.can_synthesise:
            return None
        scores = found.slices["fake_B"]
        kinds = [
            "real_A",
            "fake_B",
            *(["truth", "error"] if self.data.has_truth else []),
            *["trust"] * bool(self.trust),
        ]
        files = {subject: script_name(self._number(subject)) for subject in scores}
        return Listing(scores, people_in(self.data.source, scores), files, kinds)

    @property
    def definitions(self) -> dict[str, str]:
        """The definitions of everything that this test measures."""
        trust = trust_scores.DEFINITIONS if self.trust is not None else {}
        return DEFINITIONS | trust | (definitions_of(self.protocol) if self.protocol is not None else {})

    def _number(self, subject: str) -> int:
        """A subject's number in the names of the browser's files, the same in every process."""
        return list(self.data.subjects).index(subject) + 1

    def facts(self, tested: str) -> dict[str, str]:
        """Run, model and data for the head of the report; `tested` names the run and its epoch."""
        run, data = self.model.run, self.data
        network = f", {run['netG']}" if "netG" in run else ""
        left_out = f"; {len(data.skipped)} bad files were left out, see metrics.json" if data.skipped else ""
        return {
            "run": tested + ", mirror average" * self.average_mirrored,
            "model": f"{self.model.title or run['model']}{network}, seed {run['seed']}",
            "data": f"{data.source.folder}: {data.n_slices} slices of {len(data.subjects)} subjects{left_out}",
            **self.provenance.facts(),
        }

    def _fit_baselines(self, pool: Executor, processes: Processes) -> baselines.Fitted | None:
        """What the baselines learn from training slices; without those of the source domain, from the test's own."""
        data = self.data
        if data.train_target is None or not (self.model.can_synthesise and self.with_baselines and data.has_truth):
            return None
        source = data.source if data.train_source is None else data.train_source
        return baselines.fit(source, data.train_target, pool, processes)

    def _part(self, processes: Processes, fitted: baselines.Fitted | None, pool: Executor) -> Findings:
        """The findings for this process' subjects."""
        found = Findings()
        if self.model.can_synthesise:
            for name in ("images", "volumes"):
                (self.results / name).mkdir(parents=True, exist_ok=True)
            sets = UnpairedTable(self.inception, found.sets)
            self._synthesis(found, sets, processes, fitted, pool)
            for real in self._subjects(self.data.target, processes):
                embedding = self._embedding(real.visible, real.mask)
                sets.add("real_B", real.subject, real.visible, real.mask, embedding)
                if self.protocol is not None:
                    found.protocol.setdefault("real_B", {})[real.subject] = self.protocol.real(real.visible)
        if self._why_no_levels() is None:
            for side, folder in (("low", self.data.source), ("high", self.data.target)):
                for volume in self._subjects(folder, processes):
                    found.levels[side][volume.subject] = self._levelled_slices(volume, folder)
        return found

    def _synthesis(
        self,
        found: Findings,
        sets: UnpairedTable,
        processes: Processes,
        fitted: baselines.Fitted | None,
        pool: Executor,
    ) -> None:
        """Synthesise, write and score fake_B and the baselines, subject by subject."""
        model = MirrorAverage(self.model) if self.average_mirrored else self.model
        jobs = part_of(self.data.subjects, processes).values()
        tracked = track(jobs, description="synthesis and measures", transient=True, disable=not processes.first)
        for positions in processes.until_failure(tracked):
            volume = read_subject(self.data.source, positions, with_truth=self.data.has_truth)
            fake_B = synthesise(model, volume, self.grid, self.on)
            write_pictures(self.results / "images", volume, fake_B, pool)
            self._write_volume(found, volume, fake_B)
            self._write_slices(found, volume, fake_B)
            rows = {"fake_B": fake_B}
            if volume.truth is not None and self.with_baselines:
                rows |= baselines.synthesise(volume, fitted, pool)
            _score(found.scores, volume, rows, pool, self.lpips)
            if self.protocol is not None:
                kept = pool.map(partial(self.protocol.part, volume=volume), rows.values())
                for row, part in zip(rows, kept, strict=True):
                    found.protocol.setdefault(row, {})[volume.subject] = part
            if self.data.target is not None:
                for row, slices in (("fake_B", fake_B), ("identity", volume.visible)):
                    embedding = self._embedding(slices, volume.mask)
                    sets.add(row, volume.subject, slices, volume.mask, embedding)

    def _write_slices(self, found: Findings, volume: SubjectSlices, fake_B: np.ndarray) -> None:
        """Score a subject's slices, and write what the report's browser shows of it."""
        scores = slice_scores.score_slices(volume, fake_B)
        found.slices["fake_B"][volume.subject] = scores
        kinds = {"real_A": volume.visible, "fake_B": fake_B}
        if volume.truth is not None:
            kinds["truth"] = volume.truth
        if self.trust is not None:
            kinds["trust"] = trust_levels(self._write_trust(found, self.trust, volume, fake_B, scores))
        place = placing(self.data.entries.get(volume.subject), simulated=volume.level_mm is not None)
        write_sprites(self.results, self._number(volume.subject), volume, kinds, scores, place)

    def _write_trust(
        self, found: Findings, trust: Trust, volume: SubjectSlices, fake_B: np.ndarray, scores: slice_scores.SliceScores
    ) -> np.ndarray:
        """Write and score a subject's trust map; returns its expected errors."""
        made = trust.map_of(self.model, volume, fake_B, self.grid, self.on)
        found.trust["fake_B"][volume.subject] = trust.score(volume, fake_B, made, scores)
        write_trust_pictures(self.results / "images", volume.stems, made.error)
        entry = self.data.entries.get(volume.subject)
        if entry is not None and why_incomplete(entry, volume) is None:
            more = {"what": trust_scores.DEFINITIONS["trust"], "weights": trust.source}
            write_volume(
                self.results / "volumes", entry, volume, made.error, self.provenance, more=more, **TRUST_VOLUME
            )
        return made.error

    def _write_volume(self, found: Findings, volume: SubjectSlices, fake_B: np.ndarray) -> None:
        """Write a subject's volume, if its geometry is known and no slice is missing."""
        entry = self.data.entries.get(volume.subject)
        why = None if entry is None else why_incomplete(entry, volume)
        if why is not None:
            found.incomplete["fake_B"][volume.subject] = why
        elif entry is not None:
            write_volume(self.results / "volumes", entry, volume, fake_B, self.provenance)
            found.n_volumes += 1

    @staticmethod
    def _subjects(folder: SliceFolder | None, processes: Processes) -> Iterator[SubjectSlices]:
        """This process' part of a folder's subjects, read one at a time."""
        if folder is not None:
            for positions in processes.until_failure(part_of(positions_by_subject(folder), processes).values()):
                yield read_subject(folder, positions)

    def _merge(self, parts: Sequence[Findings]) -> Findings:
        """The findings of all processes, with the subjects in the order of a single process."""
        source = positions_by_subject(self.data.source)
        target = {} if self.data.target is None else positions_by_subject(self.data.target)
        return Findings.merged(parts, lambda row: target if row in ("real_B", "high") else source)

    def _summarise(self, found: Findings, pool: Executor) -> tuple[Record, PairedTable]:
        """All sections of metrics.json from the findings."""
        record, table = Record(), PairedTable(found.scores)
        self.provenance.put_into(record)
        record.put("n_slices", value=self.data.n_slices)
        record.put("n_subjects", value=len(self.data.subjects))
        record.put("skipped", value=as_rows(self.data.skipped))
        if self.model.can_synthesise:
            record.put("average_mirrored", value=self.average_mirrored)
            left_out = found.incomplete["fake_B"]
            if found.n_volumes or left_out:
                record.put("n_volumes", value=found.n_volumes)
            else:
                why = "no manifest.json with the geometry of the slices; preprocessing_images.py writes it"
                record.null("n_volumes", why=why)
            rows = [{"subject": name, "reason": reason} for name, reason in left_out.items()]
            record.put("volumes_left_out", value=rows)
            self._paired(record, table)
            self._unpaired(record, UnpairedTable(self.inception, found.sets))
            if self.protocol is not None:
                self.protocol.summarise(record, found.protocol)
        else:
            for section in ("paired", "by_person", "unpaired", "n_volumes"):
                record.null(section, why="this model has no generator, so there is nothing to compare")
        put_verdict(record)
        if self.trust is not None:
            persons = people_in(self.data.source, self.data.subjects)
            self.trust.summarise(record, self.model, found.trust["fake_B"], persons, self._why_no_truth())
        self._sgp(record, found.levels)
        self._lsc(record, self.model.lsc, pool)
        return record, table

    def _embedding(self, slices: np.ndarray, masks: np.ndarray) -> np.ndarray | None:
        if self.encoder is None:
            return None
        return embed(self.encoder.sgp, slices, masks, self.data.target_domain, self.encoder.grid, self.on)

    def _paired(self, record: Record, table: PairedTable) -> None:
        if why := self._why_no_truth():
            for section in ("paired", "by_person"):
                record.null(section, why=why)
            return
        persons = people_in(self.data.source, self.data.subjects)
        table.summarise(record, persons)
        put_people(record, table.rows, persons)
        for row in baselines.BASELINES:
            if row not in table.rows:
                why = "no training slices of the target domain" if self.with_baselines else "--no_baselines was given"
                record.null("paired", row, leaves=paired.MEASURES, why=why)

    def _why_no_truth(self) -> str:
        """The reason why nothing can be compared with the truth; empty if it can."""
        return "" if self.data.has_truth else f"no truth: there is no folder {self.data.source.folder.name}_truth"

    def _unpaired(self, record: Record, sets: UnpairedTable) -> None:
        if self.data.target is None:
            split, domain = self.data.source.split, self.data.target_domain
            record.null("unpaired", why=f"no real slices to compare with: there is no folder {split}{domain}")
        else:
            folders = (self.data.source, self.data.target)
            sources, targets = (people_in(folder, positions_by_subject(folder)) for folder in folders)
            sets.summarise(record, {"fake_B": sources, "identity": sources, "real_B": targets}, seed=self.seed)

    def _why_no_levels(self) -> str | None:
        """The reason why the section `sgp` cannot be computed, or None."""
        low, high = self.data.source, self.data.target
        if self.model.sgp is None:
            return "this model has no SGP part"
        if high is None:
            return f"no high-field test slices: there is no folder {low.split}B"
        if low.level_mm is None or high.level_mm is None:
            return "the slices' true levels are known for simulated heads only"
        return None

    def _sgp(self, record: Record, levels: Rows[level_error.LevelledSlices]) -> None:
        """Section `sgp`: level errors of matches between test subjects."""
        why = self._why_no_levels()
        if why is not None:
            record.null("sgp", why=why)
        else:
            sides = (list(subjects.values()) for subjects in levels.values())
            level_error.summarise(record, level_error.level_errors(*sides, seed=self.seed))

    def _levelled_slices(self, volume: SubjectSlices, folder: SliceFolder | None) -> level_error.LevelledSlices:
        assert folder is not None
        assert self.model.sgp is not None
        embedding = embed(self.model.sgp, volume.image, volume.mask, folder.domain, self.grid, self.on)
        return level_error.levelled(volume, embedding)

    def _lsc(self, record: Record, lsc: LSC | None, pool: Executor) -> None:
        """Section `lsc`: restoration of high-field slices, those of test subjects and those of training."""
        if lsc is None:
            record.null("lsc", why="this model has no LSC part")
            return
        if self.data.target is None:
            record.null("lsc", why=f"no high-field test slices: there is no folder {self.data.source.split}B")
            return
        scores = {}
        for name, folder in (("test", self.data.target), ("train", self.data.train_target)):
            if folder is not None:
                positions = evenly_spaced(len(folder), LSC_SLICES)
                inputs, heads = zip(
                    *(self.grid.tensor(folder.image(i)[None], folder.mask(i)[None]) for i in positions), strict=True
                )
                solve = restoration.untrained_solver(lsc.options) if name == "test" else None
                scores[name] = restoration.Restoration(lsc, inputs, heads, self.on, seed=self.seed, solve=solve)
        restoration.summarise(record, scores["test"], scores.get("train"), pool)


def _score(
    scores: Rows[Scores], volume: SubjectSlices, rows: dict[str, np.ndarray], pool: Executor, lpips: LPIPS | None
) -> None:
    """Score all rows of one subject if its truth is known."""
    if volume.truth is None or volume.truth_mask is None:
        return
    found = pool.map(partial(paired.score, truth=volume.truth, mask=volume.truth_mask), rows.values())
    for row, values in zip(rows, found, strict=True):
        distances = None if lpips is None else lpips.slices(rows[row], volume.truth)
        values["lpips"] = None if distances is None else float(distances.mean())
        scores.setdefault(row, {})[volume.subject] = values
