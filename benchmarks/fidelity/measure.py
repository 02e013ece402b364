"""A row's measures on one split, from its predictions, which are kept: verification computes the same once more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.folder.slice_folder import SliceFolder
from evaluation import paired
from evaluation.encoder import Encoder
from evaluation.people import people_in
from evaluation.predict import Device, embed
from evaluation.subjects import positions_by_subject, read_subject
from evaluation.unpaired import IN_EMBEDDING, distances

Floats = NDArray[np.float32]

STEPS = 65535  # of the stored intensities between 0 and 1
SET_MEASURE = "kd_slice"
DRAWS_SEED = 0


def keep(path: Path, slices: Floats) -> None:
    """Write a subject's prediction, (S, H, W) in [0, 1], as a compressed file of 16-bit numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(file, prediction=np.round(np.clip(slices, 0, 1) * STEPS).astype(np.uint16))
    part.replace(path)


def kept(path: Path) -> Floats:
    """A stored prediction: (S, H, W) float32 in [0, 1]."""
    with np.load(path) as content:
        return content["prediction"].astype(np.float32) / np.float32(STEPS)


def prediction_path(folder: Path, subject: str) -> Path:
    """Where a subject's prediction lies."""
    return folder / f"{subject}.npz"


class Measured:
    """The measures of one split of a task's data, for any row.

    Args: encoder: E_eval; None: set measures are null.
    """

    def __init__(self, dataroot: Path, split: str, encoder: Encoder | None, on: Device) -> None:
        self.source, self.target = SliceFolder(dataroot, split, "A"), SliceFolder(dataroot, split, "B")
        self.positions = positions_by_subject(self.source)
        self.people = people_in(self.source, self.positions)
        self.encoder, self.on = encoder, on
        self._real: tuple[list[str], Floats] | None = None

    def row(self, folder: Path) -> dict[str, Any]:
        """All measures of the predictions in `folder`.

        Returns: `subjects`: by subject the person and every measure; `sets`: measures of all slices together.
        """
        subjects: dict[str, Any] = {}
        embeddings: list[Floats] = []
        owners: list[str] = []
        for subject, positions in self.positions.items():
            volume = read_subject(self.source, positions, with_truth=True)
            prediction = kept(prediction_path(folder, subject))
            assert volume.truth is not None and volume.truth_mask is not None
            scores = paired.score(prediction, volume.truth, volume.truth_mask)
            subjects[subject] = {"person": self.people[subject], **scores}
            if self.encoder is not None:
                embeddings.append(self._embedded(prediction, volume.mask))
                owners += [self.people[subject]] * len(prediction)
        return {"subjects": subjects, "sets": self._distance(owners, embeddings)}

    def _embedded(self, slices: Floats, masks: NDArray[np.bool_]) -> Floats:
        assert self.encoder is not None
        return embed(self.encoder.sgp, slices, masks, "B", self.encoder.grid, self.on)

    def _distance(self, owners: list[str], embeddings: list[Floats]) -> dict[str, float | None]:
        """kd_slice between the row's slices and real ones of other people, and its spread over draws."""
        nothing: Mapping[str, float | None] = {SET_MEASURE: None, f"{SET_MEASURE}_sd": None}
        if self.encoder is None:
            return dict(nothing)
        sets = {"row": (owners, np.concatenate(embeddings)), "real_B": self._real_slices()}
        found = distances(sets, IN_EMBEDDING[SET_MEASURE], seed=DRAWS_SEED)
        if found is None:
            return dict(nothing)
        values = found["row"]
        return {SET_MEASURE: float(np.mean(values)), f"{SET_MEASURE}_sd": float(np.std(values))}

    def _real_slices(self) -> tuple[list[str], Floats]:
        """Person and embedding of every real high-field slice of the split."""
        if self._real is None:
            positions = positions_by_subject(self.target)
            people = people_in(self.target, positions)
            volumes = [read_subject(self.target, found) for found in positions.values()]
            embedded = np.concatenate([self._embedded(each.visible, each.mask) for each in volumes])
            self._real = [people[each.subject] for each in volumes for _ in each.stems], embedded
        return self._real
