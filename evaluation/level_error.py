"""Errors of anatomical level in matching slices: SGP and five methods without learning.

See docs/method.md section 6.4. Every low-field slice of a subject is matched to a slice of another subject's high-field
volume, for all such pairs of subjects. The error is |level_mm(a) - level_mm(matched b)| with the simulator's true
template level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from data.alignment import aligned_levels, looks_of
from evaluation.record import Record
from evaluation.subjects import SubjectSlices

Floats = NDArray[np.float32]

ROWS = ("sgp", "same_p", "same_index", "random", "thumbnail", "aligned")

DEFINITIONS = {
    "level_error_mm": "mm; |level of a low-field slice - level of the high-field slice it is matched to|, over all "
    "slices and all pairs of different test subjects",
    "same_p": "match by relative level p, the slice's place between the first and the last slice with foreground",
    "same_index": "match by slice index",
    "random": "match drawn at random",
    "thumbnail": "match by correlation of 24 x 24 thumbnails",
    "aligned": "match by level on the axis that --align_levels would lay the test volumes on; a subject's own two "
    "volumes are not compared",
}


@dataclass(frozen=True)
class LevelledSlices:
    """S slices of one subject: the features used for matching, and the true level.

    embedding: (S, D) unit length. thumbnail: (S, 576) unit length, mean 0. p, level_mm: (S,). index: (S,) int.
    """

    subject: str
    embedding: Floats
    thumbnail: Floats
    p: Floats
    index: NDArray[np.int64]
    level_mm: Floats


def thumbnails(images: Floats) -> Floats:
    """Slices (S, H, W) as flattened 24 x 24 block means (S, 576), each with mean 0 and length 1."""
    return looks_of(torch.from_numpy(images)[:, None]).numpy()


def levelled(volume: SubjectSlices, embedding: Floats) -> LevelledSlices:
    """The features and levels of one subject's slices. Raises ValueError if the true levels are unknown."""
    if volume.level_mm is None:
        raise ValueError(f"subject {volume.subject}: levels unknown")
    return LevelledSlices(
        subject=volume.subject,
        embedding=embedding,
        thumbnail=thumbnails(volume.visible),
        p=volume.p,
        index=volume.index,
        level_mm=volume.level_mm,
    )


def levels_on_one_axis(*fields: Sequence[LevelledSlices]) -> list[list[Floats]]:
    """For each volume of both fields, the levels of its slices as `aligned_levels` finds them, in [0, 1].

    A subject's volumes of the two fields are not compared with each other, for no training knows such pairs.
    """
    subjects = {name: number for number, name in enumerate(dict.fromkeys(x.subject for x in chain(*fields)))}
    low, high = (
        (
            np.concatenate([x.thumbnail for x in field]),
            np.concatenate([x.p for x in field]),
            np.repeat([subjects[x.subject] for x in field], [len(x.p) for x in field]),
        )
        for field in fields
    )
    looks, p, volume = zip(low, high, strict=True)
    found = aligned_levels(looks, p, volume, same_people=True)
    return [
        np.split(levels, np.cumsum([len(x.p) for x in field])[:-1]) for levels, field in zip(found, fields, strict=True)
    ]


def matches(
    a: LevelledSlices, b: LevelledSlices, aligned: tuple[Floats, Floats], rng: np.random.Generator
) -> dict[str, NDArray[np.intp]]:
    """For each method, the position in b that it matches to each slice of a, (S_a,). aligned: levels of both."""
    return {
        "sgp": np.argmax(a.embedding @ b.embedding.T, axis=1),
        "same_p": np.argmin(np.abs(a.p[:, None] - b.p), axis=1),
        "same_index": np.argmin(np.abs(a.index[:, None] - b.index), axis=1),
        "random": rng.integers(len(b.p), size=len(a.p)),
        "thumbnail": np.argmax(a.thumbnail @ b.thumbnail.T, axis=1),
        "aligned": np.argmin(np.abs(aligned[0][:, None] - aligned[1]), axis=1),
    }


def level_errors(
    low: Sequence[LevelledSlices], high: Sequence[LevelledSlices], *, seed: int
) -> dict[str, Floats] | None:
    """Errors in mm by method, one per low-field slice and other subject; None with fewer than two subjects."""
    rng = np.random.default_rng(seed)
    errors: dict[str, list[Floats]] = {row: [] for row in ROWS}
    of_low, of_high = levels_on_one_axis(low, high)
    for a, of_a in zip(low, of_low, strict=True):
        for b, of_b in zip(high, of_high, strict=True):
            if a.subject != b.subject:
                for row, position in matches(a, b, (of_a, of_b), rng).items():
                    errors[row].append(np.abs(a.level_mm - b.level_mm[position]))
    if not errors["sgp"]:
        return None
    return {row: np.concatenate(parts) for row, parts in errors.items()}


def summarise(record: Record, errors: dict[str, Floats] | None) -> None:
    """Write `sgp` into the record: median and 95th percentile of each method's errors."""
    if errors is None:
        record.null("sgp", why="fewer than two test subjects, so no slice can be matched to another head")
        return
    record.put("sgp", "n_matches", value=len(errors["sgp"]))
    for row, values in errors.items():
        record.put("sgp", "level_error_mm", row, "median", value=float(np.median(values)))
        record.put("sgp", "level_error_mm", row, "p95", value=float(np.percentile(values, 95)))
