"""A row's measures on one split, from its predictions, which are kept: verification computes the same once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.fidelity.store import LESIONS, Place, split_of
from data.folder.slice_folder import SliceFolder
from evaluation import paired
from evaluation.encoder import Encoder, grid_of
from evaluation.metrics.tissues import (
    LOST_VOXELS,
    Classes,
    classes_of,
    contrast_ranks,
    dice,
    lesion_contrast,
    lesions_invented,
    lesions_lost,
    lesions_of,
    volume_error,
)
from evaluation.people import people_in
from evaluation.predict import Device, embed
from evaluation.segmenter import load_segmenter, segment
from evaluation.subjects import SubjectSlices, positions_by_subject, read_subject
from evaluation.unpaired import IN_EMBEDDING, distances
from models.trained import load_trained
from util.checkpoint import LATEST
from util.errors import UserError

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
    with np.load(path, allow_pickle=False) as content:
        return content["prediction"].astype(np.float32) / np.float32(STEPS)


def prediction_path(folder: Path, subject: str) -> Path:
    """Where a subject's prediction lies."""
    return folder / f"{subject}.npz"


class Measured:
    """The measures of one phase of a task, for any row.

    Raises: UserError: the data, E_eval or the segmenter are not there.
    """

    def __init__(self, place: Place, task: str, phase: str, on: Device) -> None:
        dataroot, split = place.data(task, phase), split_of(phase)
        self.source, self.target = SliceFolder(dataroot, split, "A"), SliceFolder(dataroot, split, "B")
        self.phase, self.on = phase, on
        self.positions = positions_by_subject(self.source)
        self.people = people_in(self.source, self.positions)
        model = load_trained(place.encoder(task), LATEST, on.device)
        assert model.sgp is not None
        self.encoder = Encoder(model.sgp, grid_of(model))
        self.segmenter = load_segmenter(place.segmenter(task))
        self._real: tuple[list[str], Floats] | None = None
        self._classes: dict[str, tuple[Classes, Classes]] = {}

    def row(self, folder: Path) -> dict[str, Any]:
        """All measures of the predictions in `folder`; of heads with lesions only those that tell what is lost.

        Returns: `subjects`: by subject the person and every measure; `sets`: measures of all slices together.
        """
        subjects: dict[str, Any] = {}
        embeddings: list[Floats] = []
        owners: list[str] = []
        for subject, positions in self.positions.items():
            volume = read_subject(self.source, positions, with_truth=True)
            prediction = kept(prediction_path(folder, subject))
            assert volume.truth is not None and volume.truth_mask is not None
            about = {"person": self.people[subject]}
            tissue = self._tissue(volume, prediction)
            if self.phase == LESIONS:
                subjects[subject] = {**about, **tissue}
                continue
            subjects[subject] = {**about, **paired.score(prediction, volume.truth, volume.truth_mask), **tissue}
            embeddings.append(self._embedded(prediction, volume.mask))
            owners += [self.people[subject]] * len(prediction)
        return {"subjects": subjects, "sets": {} if self.phase == LESIONS else self._distance(owners, embeddings)}

    def _tissue(self, volume: SubjectSlices, prediction: Floats) -> dict[str, float | None]:
        """What the segmenter finds in a prediction, beside what it finds in the truth."""
        assert volume.truth is not None and volume.truth_mask is not None
        if volume.subject not in self._classes:
            labels = self.source.sibling("labels")
            if labels is None:
                raise UserError(f"{self.source.folder}: has no labels")
            read = [labels.read(i) for i in self.positions[volume.subject]]
            self._classes[volume.subject] = classes_of(np.stack(read)), segment(self.segmenter, volume.truth)
        true, in_truth = self._classes[volume.subject]
        found = segment(self.segmenter, prediction)
        if self.phase == LESIONS:
            lost, seen = lesions_lost(found, in_truth, true)
            count = len(lesions_of(true, LOST_VOXELS))
            strength, error = lesion_contrast(prediction, volume.truth, true, volume.truth_mask)
            return {
                "lesions_lost": lost / seen if seen else None,
                "lesions_seen": seen,
                "lesions": count,
                "lesion_contrast": strength,
                "lesion_contrast_error": error,
            }
        return {
            "dice": dice(found, true),
            "volume_error": volume_error(found, true),
            "dice_of_truth": dice(in_truth, true),
            "contrast_ranks": contrast_ranks(prediction, volume.truth, true),
            "lesions_invented": lesions_invented(found, in_truth, true),
        }

    def _embedded(self, slices: Floats, masks: NDArray[np.bool_]) -> Floats:
        return embed(self.encoder.sgp, slices, masks, "B", self.encoder.grid, self.on)

    def _distance(self, owners: list[str], embeddings: list[Floats]) -> dict[str, float | None]:
        """kd_slice between the row's slices and real ones of other people, and its spread over draws."""
        sets = {"row": (owners, np.concatenate(embeddings)), "real_B": self._real_slices()}
        found = distances(sets, IN_EMBEDDING[SET_MEASURE], seed=DRAWS_SEED)
        if found is None:
            return {SET_MEASURE: None, f"{SET_MEASURE}_sd": None}
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
