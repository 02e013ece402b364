"""Unpaired measures: the set of synthesised slices compared with real high-field slices (docs/method.md section 6.3).

All distances compare equal numbers of slices of different people: a random half of the people with high-field slices is
the reference, and every row contributes as many slices of other people. For the row `real_B` this gives the distance
between real sets, which a perfect synthesis would reach. The result is the mean of several draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.metrics.features import frechet_distance, halve_people, kernel_distance
from evaluation.metrics.image import MS_SSIM_SIDE, ms_ssim_slices
from evaluation.metrics.texture import DIMENSIONS, gaussian_kernel_distance, texture
from evaluation.people import People
from evaluation.record import Record

if TYPE_CHECKING:
    from evaluation.metrics.inception import FIDInception

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

ROWS = ("fake_B", "real_B", "identity")
MEASURES = (
    "kd_texture",
    "kd_texture_sd",
    "kid",
    "kid_sd",
    "fid",
    "is",
    "ms_ssim_neighbours",
    "fd_slice",
    "kd_slice",
    "kd_slice_sd",
)
DRAWS, FID_DRAWS = 10, 3  # each of FID takes seconds where sets have thousands of slices
LEAST_SLICES = 8  # per set, for a kernel distance
LEAST_FOR_FD_SLICE = 1024  # slices per set; with fewer, the covariance is too biased to report
LEAST_FOR_FID = 2  # slices per set, for a covariance
TEXTURE_SLICES = 1000  # slices per set and draw, at most
KID_SUBSET = 1000  # slices per set and draw, at most, as in torch-fidelity
LEAST_FOR_IS = 20  # slices, two in each of its ten splits: one alone always scores 1
NO_INCEPTION = "no Inception weights; give --inception_weights"
NO_ENCODER = "no evaluation encoder; give --eval_encoder, the run folder of an SGP trained with another seed"
EMBEDDING_GAMMA = 1.0  # kernel's gamma for embeddings of unit length
IMAGES_AT_ONCE = 16

EQUAL = "equal numbers of slices of different people, mean of {} draws; real_B is real against real"
DEFINITIONS = {
    "kd_texture": "unbiased squared kernel distance (Gaussian kernel) between textures of slices: how strong detail of "
    f"each size and edges are within the foreground; at most {TEXTURE_SLICES} slices per set; {EQUAL.format(DRAWS)}",
    "kd_texture_sd": "standard deviation of kd_texture over its draws",
    "kid": "kernel inception distance (2048 features, unbiased, cubic kernel, at most "
    f"{KID_SUBSET} slices per set); {EQUAL.format(DRAWS)}",
    "kid_sd": "standard deviation of kid over its draws",
    "fid": f"Frechet inception distance (2048 features); {EQUAL.format(FID_DRAWS)}; biased upwards below some thousand "
    f"slices, so compare it with real_B; null under {LEAST_FOR_FID} slices per set",
    "is": f"Inception score (torchmetrics, 10 splits) of all slices of the row; null under {LEAST_FOR_IS} slices",
    "kd_slice": "unbiased squared kernel distance (cubic kernel, as KID) between embeddings of slices by E_eval, an "
    f"SGP encoder of another seed; {EQUAL.format(DRAWS)}; not KID: E_eval was trained to tell anatomy, not realism, "
    "and noisy slices may score like real ones",
    "kd_slice_sd": "standard deviation of kd_slice over its draws",
    "fd_slice": "Frechet distance between the same embeddings, not FID; null under "
    f"{LEAST_FOR_FD_SLICE} slices per set",
    "ms_ssim_neighbours": "mean MS-SSIM between neighbouring slices of a subject within the row: diversity, not "
    "fidelity; compare it with real_B",
}


@dataclass(frozen=True)
class SubjectSet:
    """Features of one subject's slices (S, H, W).

    embedding: (S, D), None without encoder. texture: (S, 26), see `texture`. inception: features of successive batches,
    empty without that network. neighbours: MS-SSIM of each slice and the next one.
    """

    n_slices: int
    embedding: Floats | None
    texture: NDArray[np.floating]
    inception: list[torch.Tensor]
    neighbours: list[float]

    @classmethod
    def of(cls, slices: Floats, masks: Mask, embedding: Floats | None, network: FIDInception | None) -> SubjectSet:
        batches = () if network is None else torch.from_numpy(slices)[:, None].split(IMAGES_AT_ONCE)
        inception = [] if network is None else [network(batch).cpu() for batch in batches]
        scores = ms_ssim_slices(slices[1:], slices[:-1]) if len(slices) > 1 else None
        neighbours = [] if scores is None else scores.tolist()
        return cls(len(slices), embedding, texture(slices, masks), inception, neighbours)


@dataclass(frozen=True)
class SliceSet:
    """All slices of a row, subject after subject."""

    parts: Mapping[str, SubjectSet]

    def owners(self, people: People) -> list[str]:
        """The person of each slice."""
        return [people[subject] for subject, part in self.parts.items() for _ in range(part.n_slices)]

    @property
    def embeddings(self) -> list[Floats]:
        return [part.embedding for part in self.parts.values() if part.embedding is not None]

    @property
    def textures(self) -> NDArray[np.floating]:
        parts = [part.texture for part in self.parts.values()]
        return np.concatenate(parts) if parts else np.empty((0, DIMENSIONS))

    @property
    def inception(self) -> list[torch.Tensor]:
        return [features for part in self.parts.values() for features in part.inception]

    @property
    def neighbours(self) -> list[float]:
        return [score for part in self.parts.values() for score in part.neighbours]


@dataclass(frozen=True)
class Distance:
    """A distance of two sets of equal size, (N, D) each, and the slices that it needs per set and takes at most."""

    measure: Callable[[NDArray[np.floating], NDArray[np.floating]], float]
    least: int = LEAST_SLICES
    most: int | None = None
    draws: int = DRAWS

    @property
    def why_null(self) -> str:
        return f"fewer than two people with high-field test slices, or fewer than {self.least} slices per set"


def distances(
    sets: Mapping[str, tuple[list[str], NDArray[np.floating]]], distance: Distance, *, seed: int
) -> dict[str, list[float]] | None:
    """Distances of every row to real slices of other people, one a draw, see the module's docstring.

    Args:
        sets: row -> (person of each slice, embeddings (N, D)); `real_B` is the real set.
    Returns: row -> distances; None with fewer than two people with high-field slices or too few slices.
    """
    rng = np.random.default_rng(seed)
    owners, real = sets["real_B"]
    found: dict[str, list[float]] = {row: [] for row in sets}
    for _ in range(distance.draws):
        reference, _others = halve_people(owners, rng=rng)
        inside = np.isin(owners, list(reference))
        outside = {row: np.flatnonzero(~np.isin(names, list(reference))) for row, (names, _) in sets.items()}
        count = min(int(inside.sum()), *(len(positions) for positions in outside.values()), distance.most or len(real))
        if count < distance.least:
            return None
        target = real[rng.choice(np.flatnonzero(inside), count, replace=False)]
        for row, positions in outside.items():
            found[row].append(distance.measure(sets[row][1][rng.choice(positions, count, replace=False)], target))
    return found


IN_EMBEDDING = {
    "kd_slice": Distance(lambda x, y: kernel_distance(x, y, gamma=EMBEDDING_GAMMA)),
    "fd_slice": Distance(frechet_distance, least=LEAST_FOR_FD_SLICE),
}
OF_TEXTURE = Distance(gaussian_kernel_distance, most=TEXTURE_SLICES)
IN_INCEPTION = {
    "kid": Distance(kernel_distance, most=KID_SUBSET),
    "fid": Distance(frechet_distance, least=LEAST_FOR_FID, draws=FID_DRAWS),
}
WITH_SPREAD = ("kd_texture", "kid", "kd_slice")


class UnpairedTable:
    """Features of the slices of the rows fake_B, real_B and identity, and the unpaired measures."""

    def __init__(self, network: FIDInception | None, rows: dict[str, dict[str, SubjectSet]] | None = None) -> None:
        self.rows: dict[str, dict[str, SubjectSet]] = {row: {} for row in ROWS} if rows is None else rows
        self.network = network

    @property
    def sets(self) -> dict[str, SliceSet]:
        return {row: SliceSet(parts) for row, parts in self.rows.items()}

    def add(self, row: str, subject: str, slices: Floats, masks: Mask, embedding: Floats | None) -> None:
        """Add a subject's slices (S, H, W) in [0, 1], their foreground and embeddings (S, D), None without encoder."""
        self.rows[row][subject] = SubjectSet.of(slices, masks, embedding, self.network)

    def summarise(self, record: Record, people: Mapping[str, People], *, seed: int) -> None:
        """Write `unpaired` into the record. `people`: for every row the person of each subject."""
        sets, owners = self.sets, {row: slices.owners(people[row]) for row, slices in self.sets.items()}
        textures = _comparable({row: (owners[row], one.textures) for row, one in sets.items()})
        self._put_distances(record, "kd_texture", OF_TEXTURE, distances(textures, OF_TEXTURE, seed=seed))
        embedded = {row: _joined(one.embeddings) for row, one in sets.items()}
        self._distances(record, IN_EMBEDDING, owners, embedded, NO_ENCODER, seed)
        inception = {row: _joined([part.numpy() for part in one.inception]) for row, one in sets.items()}
        self._distances(record, IN_INCEPTION, owners, inception, NO_INCEPTION, seed)
        for row, slices in sets.items():
            self._inception_score(record, row, slices.inception, seed)
            if slices.neighbours:
                record.put("unpaired", row, "ms_ssim_neighbours", value=float(np.mean(slices.neighbours)))
            else:
                why = f"MS-SSIM needs neighbouring slices of at least {MS_SSIM_SIDE} px per side"
                record.null("unpaired", row, "ms_ssim_neighbours", why=why)

    @staticmethod
    def _distances(
        record: Record,
        kinds: Mapping[str, Distance],
        owners: Mapping[str, list[str]],
        features: Mapping[str, Floats | None],
        why_none: str,
        seed: int,
    ) -> None:
        """Distances between the rows' features (N, D); None: there is no network for them."""
        known = {row: (owners[row], part) for row, part in features.items() if part is not None}
        for name, distance in kinds.items():
            missing = len(known) < len(features)
            values = None if missing else distances(known, distance, seed=seed)
            UnpairedTable._put_distances(record, name, distance, values, why_none if missing else None)

    @staticmethod
    def _put_distances(
        record: Record, name: str, distance: Distance, values: dict[str, list[float]] | None, why: str | None = None
    ) -> None:
        """Mean and spread over the draws of every row; null if there are no `values`: `why`, else what is too few."""
        leaves = {name: np.mean} | ({f"{name}_sd": np.std} if name in WITH_SPREAD else {})
        for row in ROWS:
            for leaf, summary in leaves.items():
                if values is None:
                    record.null("unpaired", row, leaf, why=why or distance.why_null)
                else:
                    record.put("unpaired", row, leaf, value=float(summary(values[row])))

    def _inception_score(self, record: Record, row: str, parts: list[torch.Tensor], seed: int) -> None:
        if self.network is None:
            record.null("unpaired", row, "is", why=NO_INCEPTION)
        elif (count := sum(map(len, parts))) < LEAST_FOR_IS:
            record.null("unpaired", row, "is", why=f"{count} slices, need at least {LEAST_FOR_IS}")
        else:
            from evaluation.metrics.inception import inception_score  # late: it takes a second and is rarely needed

            logits = self.network.logits(torch.cat(parts))
            record.put("unpaired", row, "is", value=inception_score(logits, seed=seed))


def _joined(parts: list[Floats]) -> Floats | None:
    return np.concatenate(parts) if parts else None


def _comparable(
    sets: Mapping[str, tuple[list[str], NDArray[np.floating]]],
) -> dict[str, tuple[list[str], NDArray[np.floating]]]:
    """Owners and textures without slices that have none, in units of the real slices' mean and deviation."""
    known = {row: np.isfinite(textures).all(1) for row, (_, textures) in sets.items()}
    real = sets["real_B"][1][known["real_B"]]
    mean, deviation = (real.mean(0), np.maximum(real.std(0), 1e-6)) if len(real) else (0.0, 1.0)
    return {
        row: (np.asarray(owners)[known[row]].tolist(), (textures[known[row]] - mean) / deviation)
        for row, (owners, textures) in sets.items()
    }
