"""The trust map of a subject: its expected error, put together from all that is known without a truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.people import People
from evaluation.predict import Device, NetworkGrid
from evaluation.record import Record
from evaluation.slice_scores import SliceScores, enough_head
from evaluation.subjects import SubjectSlices
from evaluation.trust.appearance import find_appearance
from evaluation.trust.calibration import FITTED, Calibration, expected
from evaluation.trust.patches import Patches, patches_of
from evaluation.trust.scores import SLICE_TRUST, TrustScores, put_scores, score_trust, values_of
from evaluation.trust.signals import InputNoise, find_signals, signals_of
from models.base_model import BaseModel
from util.errors import UserError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Trust:
    """How `--trust` makes maps for one model.

    noise: that of the slices tested. source: a sentence that says where the weights come from. own: whether they were
    fitted to this checkpoint. seed: of the noise added.
    """

    calibration: Calibration
    noise: InputNoise
    source: str
    own: bool
    seed: int

    def map_of(
        self, model: BaseModel, volume: SubjectSlices, fake_B: Floats, grid: NetworkGrid, on: Device
    ) -> TrustMap:
        """One subject's map; fake_B is (S, H, W) in [0, 1]."""
        features = features_of(model, volume, fake_B, grid, on, self.noise, self.seed)
        signals = signals_of(model)
        fit = self.calibration.fit_of("trust", signals)
        if fit is None:
            raise UserError(f"no weights for {' and '.join(signals)}: {self.source}; calibrate again")
        error = np.where(volume.mask, np.sqrt(expected(features, fit)), 0).astype(np.float32)
        return TrustMap(error, features, signals)

    def score(self, volume: SubjectSlices, fake_B: Floats, found: TrustMap, slices: SliceScores) -> TrustScores:
        """Add slice_trust to the scores of the slices, and score the map where the truth is known."""
        slices.values[SLICE_TRUST] = slice_trust(found.error, volume)
        patches = patches_of(volume, fake_B, found.features)
        values = {} if patches is None else values_of(patches, self.calibration, found.signals)
        return score_trust(patches, values, slices)

    def summarise(
        self, record: Record, model: BaseModel, found: Mapping[str, TrustScores], people: People, why_no_truth: str
    ) -> None:
        """Write the section `trust`. why_no_truth: empty if the truth is known."""
        signals = signals_of(model)
        record.put("trust", "signals", value=list(signals))
        record.put("trust", "calibration", "source", value=self.source)
        record.put("trust", "calibration", "of_this_checkpoint", value=self.own)
        record.put("trust", "calibration", "people", value=list(self.calibration.people))
        record.put("trust", "calibration", "n_subjects", value=self.calibration.n_subjects)
        record.put("trust", "calibration", "date", value=self.calibration.date)
        record.put("trust", "noise", "deviation", value=self.noise.deviation)
        record.put("trust", "noise", "band", value=self.noise.band)
        why = {"all": why_no_truth} if why_no_truth else self._why_not(signals, people)
        put_scores(record, found, people, why)

    def _why_not(self, signals: Sequence[str], people: People) -> dict[str, str]:
        """The reason for every row that has no score."""
        lacking = {"cycle": "this model has no G_BA", "sgp": "this model has no SGP part"}
        why = {name: text for name, text in lacking.items() if name not in signals}
        both = sorted(set(people.values()) & set(self.calibration.people))
        if both:
            why |= dict.fromkeys(FITTED, f"the weights were fitted to people of this test: {', '.join(both)}")
        return why


@dataclass(frozen=True)
class TrustMap:
    """error: expected error (S, H, W), 0 outside the head. features: what it was made from, of the same shape."""

    error: Floats
    features: Mapping[str, Floats]
    signals: Sequence[str]


def features_of(
    model: BaseModel, volume: SubjectSlices, fake_B: Floats, grid: NetworkGrid, on: Device, noise: InputNoise, seed: int
) -> dict[str, Floats]:
    """Everything that weights may be given to, (S, H, W) each."""
    signals = find_signals(model, volume, fake_B, grid, on, noise, seed)
    return {**signals, **find_appearance(fake_B, volume.mask)}


def slice_trust(error: Floats, volume: SubjectSlices) -> list[float | None]:
    """Expected PSNR of every slice in dB; None where a slice holds too little head."""
    enough = enough_head(volume.mask)
    means = [
        float(np.mean(plane[inside].astype(np.float64) ** 2)) if some else 0.0
        for plane, inside, some in zip(error, volume.mask, enough, strict=True)
    ]
    return [float(-10 * np.log10(mean)) if mean > 0 else None for mean in means]


def subject_patches(
    model: BaseModel, volume: SubjectSlices, fake_B: Floats, grid: NetworkGrid, on: Device, noise: InputNoise, seed: int
) -> Patches | None:
    """What the weights are fitted to: one subject's patches."""
    return patches_of(volume, fake_B, features_of(model, volume, fake_B, grid, on, noise, seed))
