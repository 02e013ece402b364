"""Unpaired measures: the set of synthesised slices compared with real high-field slices (docs/method.md section 6.3).

Distances compare equal numbers of slices of different subjects: a random half of the high-field subjects is the
reference, and every row contributes as many slices of other subjects. For the row `real_B` this gives the distance
between real sets, which a perfect synthesis would reach. The result is the mean of several draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.metrics.features import LEAST_FOR_FRECHET, frechet_distance, halve_subjects, kernel_distance
from evaluation.metrics.image import MS_SSIM_SIDE, ms_ssim_slices
from evaluation.record import Record

if TYPE_CHECKING:
    from evaluation.metrics.inception import FIDInception

Floats = NDArray[np.float32]
Distance = Callable[[Floats, Floats], float | None]

ROWS = ("fake_B", "real_B", "identity")
MEASURES = ("kd_slice", "fd_slice", "fid", "is", "ms_ssim_neighbours")
DRAWS = 10
LEAST_SLICES = 8  # per set, for a kernel distance
LEAST_FOR_FID = 2  # slices per set, for a covariance
LEAST_FOR_IS = 20  # slices, two in each of its ten splits: one alone always scores 1
NO_ENCODER = "no evaluation encoder; give --eval_encoder, the run folder of an SGP trained with another seed"
EMBEDDING_GAMMA = 1.0  # kernel's gamma for embeddings of unit length
IMAGES_AT_ONCE = 16

DEFINITIONS = {
    "kd_slice": "unbiased squared kernel distance (cubic kernel, as KID) between embeddings of slices by E_eval, an "
    f"SGP encoder of another seed; equal numbers of slices of different subjects, mean of {DRAWS} draws; real_B is "
    "real against real; not KID, which uses Inception",
    "fd_slice": f"Frechet distance between the same embeddings, not FID; null under {LEAST_FOR_FRECHET} slices per set",
    "fid": "Frechet inception distance (2048 features, torchmetrics) of all slices; real_B: one half of the subjects "
    f"against the other; biased upwards below some thousand slices; null under {LEAST_FOR_FID} slices per set",
    "is": f"Inception score (torchmetrics, 10 splits) of all slices of the row; null under {LEAST_FOR_IS} slices",
    "ms_ssim_neighbours": "mean MS-SSIM between neighbouring slices of a subject within the row: diversity, not "
    "fidelity; compare it with real_B",
}


@dataclass(frozen=True)
class SubjectSet:
    """Features of one subject's slices (S, H, W).

    embedding: (S, D), None without encoder. inception: features of successive batches, empty without that network.
    neighbours: MS-SSIM of each slice and the next one.
    """

    n_slices: int
    embedding: Floats | None
    inception: list[torch.Tensor]
    neighbours: list[float]

    @classmethod
    def of(cls, slices: Floats, embedding: Floats | None, network: FIDInception | None) -> SubjectSet:
        batches = () if network is None else torch.from_numpy(slices)[:, None].split(IMAGES_AT_ONCE)
        inception = [] if network is None else [network(batch).cpu() for batch in batches]
        scores = ms_ssim_slices(slices[1:], slices[:-1]) if len(slices) > 1 else None
        return cls(len(slices), embedding, inception, [] if scores is None else scores.tolist())


@dataclass(frozen=True)
class SliceSet:
    """All slices of a row, subject after subject."""

    parts: Mapping[str, SubjectSet]

    @property
    def subjects(self) -> list[str]:
        return [subject for subject, part in self.parts.items() for _ in range(part.n_slices)]

    @property
    def embeddings(self) -> list[Floats]:
        return [part.embedding for part in self.parts.values() if part.embedding is not None]

    @property
    def inception(self) -> list[torch.Tensor]:
        return [features for part in self.parts.values() for features in part.inception]

    @property
    def neighbours(self) -> list[float]:
        return [score for part in self.parts.values() for score in part.neighbours]


def distances(sets: Mapping[str, tuple[list[str], Floats]], measure: Distance, *, seed: int) -> dict[str, float] | None:
    """Mean distance of every row to real slices of other subjects, see the module's docstring.

    Args:
        sets: row -> (subject of each slice, embeddings (N, D)); `real_B` is the real set.
        measure: distance of two embedding sets of equal size; if it returns None, the result is None.
    Returns: row -> distance; None with fewer than two high-field subjects or too few slices.
    """
    rng = np.random.default_rng(seed)
    subjects, real = sets["real_B"]
    totals = dict.fromkeys(sets, 0.0)
    for _ in range(DRAWS):
        reference, _others = halve_subjects(subjects, rng=rng)
        inside = np.isin(subjects, list(reference))
        outside = {row: np.flatnonzero(~np.isin(names, list(reference))) for row, (names, _) in sets.items()}
        count = min(int(inside.sum()), *(len(positions) for positions in outside.values()))
        if count < LEAST_SLICES:
            return None
        target = real[rng.choice(np.flatnonzero(inside), count, replace=False)]
        for row, positions in outside.items():
            value = measure(sets[row][1][rng.choice(positions, count, replace=False)], target)
            if value is None:
                return None
            totals[row] += value / DRAWS
    return totals


class UnpairedTable:
    """Features of the slices of the rows fake_B, real_B and identity, and the unpaired measures."""

    def __init__(self, network: FIDInception | None, rows: dict[str, dict[str, SubjectSet]] | None = None) -> None:
        self.rows: dict[str, dict[str, SubjectSet]] = {row: {} for row in ROWS} if rows is None else rows
        self.network = network

    @property
    def sets(self) -> dict[str, SliceSet]:
        return {row: SliceSet(parts) for row, parts in self.rows.items()}

    def add(self, row: str, subject: str, slices: Floats, embedding: Floats | None) -> None:
        """Add one subject's slices (S, H, W) in [0, 1] and their embeddings (S, D), None without encoder."""
        self.rows[row][subject] = SubjectSet.of(slices, embedding, self.network)

    def summarise(self, record: Record, *, seed: int) -> None:
        """Write `unpaired` into the record."""
        self._embedding_distances(record, seed)
        self._inception_measures(record, seed)
        for row, slices in self.sets.items():
            if slices.neighbours:
                record.put("unpaired", row, "ms_ssim_neighbours", value=float(np.mean(slices.neighbours)))
            else:
                why = f"MS-SSIM needs neighbouring slices of at least {MS_SSIM_SIDE} px per side"
                record.null("unpaired", row, "ms_ssim_neighbours", why=why)

    def _embedding_distances(self, record: Record, seed: int) -> None:
        measures: dict[str, tuple[Distance, str]] = {
            "kd_slice": (
                lambda x, y: kernel_distance(x, y, gamma=EMBEDDING_GAMMA),
                f"fewer than two high-field test subjects, or fewer than {LEAST_SLICES} slices per set",
            ),
            "fd_slice": (
                frechet_distance,
                f"fewer than two high-field test subjects, or fewer than {LEAST_FOR_FRECHET} slices per set",
            ),
        }
        for name, (measure, why) in measures.items():
            values, slices = None, self.sets
            embedded = all(one.embeddings for one in slices.values())
            if embedded:
                sets = {row: (one.subjects, np.concatenate(one.embeddings)) for row, one in slices.items()}
                values = distances(sets, measure, seed=seed)
            for row in ROWS:
                if values is None:
                    record.null("unpaired", row, name, why=why if embedded else NO_ENCODER)
                else:
                    record.put("unpaired", row, name, value=values[row])

    def _inception_measures(self, record: Record, seed: int) -> None:
        if self.network is None:
            for row in ROWS:
                for name in ("fid", "is"):
                    record.null("unpaired", row, name, why="no Inception weights; give --inception_weights")
            return
        features = {row: torch.cat(one.inception) for row, one in self.sets.items()}
        for row in ROWS:
            self._inception_score(record, row, features[row], seed)
        for row in ("fake_B", "identity"):
            self._fid(record, row, features["real_B"], features[row])
        names = self.sets["real_B"].subjects
        half, _ = halve_subjects(names, rng=np.random.default_rng(seed))
        inside = torch.from_numpy(np.isin(names, list(half)))
        self._fid(record, "real_B", features["real_B"][inside], features["real_B"][~inside])

    def _inception_score(self, record: Record, row: str, features: torch.Tensor, seed: int) -> None:
        from evaluation.metrics.inception import inception_score  # late: it takes a second and is rarely needed

        if len(features) < LEAST_FOR_IS:
            record.null("unpaired", row, "is", why=f"{len(features)} slices, need at least {LEAST_FOR_IS}")
        else:
            assert self.network is not None
            record.put("unpaired", row, "is", value=inception_score(self.network.logits(features), seed=seed))

    @staticmethod
    def _fid(record: Record, row: str, real: torch.Tensor, fake: torch.Tensor) -> None:
        """FID of a row; for `real_B`, of the two halves of its subjects."""
        from evaluation.metrics.inception import fid  # late, as above

        if min(len(real), len(fake)) < LEAST_FOR_FID:
            sets = f"the sets have {len(real)} and {len(fake)} slices, need at least {LEAST_FOR_FID} each"
            halves = "; real_B is one half of the high-field test subjects against the other"
            record.null("unpaired", row, "fid", why=sets + halves * (row == "real_B"))
        else:
            record.put("unpaired", row, "fid", value=fid(real, fake))
