"""What is measured of every single slice of the synthesis, to find the slices to look at first."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.image import affine_fit
from evaluation.metrics.structure import RIM, air_of
from evaluation.subjects import SubjectSlices
from util.errors import printable
from util.files import replace_text

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

LEAST_HEAD = 0.05  # of the head in the volume's fullest slice: a slice with less of it has no score
DEFINITIONS = {
    "slice_psnr": "dB; psnr_fit of one slice, after the best fit of its whole volume; null without a truth, and where "
    f"a slice holds less than {LEAST_HEAD:.0%} of the head of its volume's fullest slice (slices.csv)",
    "slice_jump": "root mean square difference between a slice and the mean of its two neighbours inside the head, in "
    "the synthesis, as a multiple of the same in the input; null at the ends of a volume, beside missing slices, and "
    "where a slice holds too little head (slices.csv)",
    "slice_air": "mean intensity of a slice's air as a part of the mean in its volume's head, in the synthesis; air "
    f"begins {RIM:.0%} of the longer side beyond the head mask (slices.csv)",
}
MEASURES = tuple(DEFINITIONS)


@dataclass(frozen=True)
class SliceScores:
    """One subject's slices in the order of the volume: file stems, numbers in the volume, and a list per measure."""

    stems: list[str]
    index: list[int]
    values: dict[str, list[float | None]] = field(default_factory=dict)


def score_slices(volume: SubjectSlices, fake_B: Floats) -> SliceScores:
    """Score every slice of a subject; fake_B is (S, H, W) in [0, 1]."""
    head = volume.truth_mask if volume.truth_mask is not None else volume.mask
    enough = enough_head(head)
    values = {
        "slice_psnr": _psnr(fake_B, volume.truth, head, enough),
        "slice_jump": _jump(fake_B, volume.visible, volume.index, head, enough),
        "slice_air": _air(fake_B, head),
    }
    return SliceScores(list(volume.stems), [int(i) for i in volume.index], values)


def enough_head(head: Mask) -> NDArray[np.bool_]:
    """(S,) whether a slice shows enough of the head to be scored."""
    sizes = head.sum((1, 2))
    return sizes >= max(1.0, LEAST_HEAD * sizes.max())


def _psnr(fake_B: Floats, truth: Floats | None, head: Mask, enough: NDArray[np.bool_]) -> list[float | None]:
    if truth is None or not head.any():
        return [None] * len(fake_B)
    scale, offset = affine_fit(fake_B, truth, head)
    errors = [
        float(np.mean((scale * fake[inside].astype(np.float64) + offset - true[inside]) ** 2)) if some else 0.0
        for fake, true, inside, some in zip(fake_B, truth, head, enough, strict=True)
    ]
    return [float(-10 * np.log10(error)) if error > 0 else None for error in errors]


def _jump(
    fake_B: Floats, real_A: Floats, index: NDArray[np.int64], head: Mask, enough: NDArray[np.bool_]
) -> list[float | None]:
    found: list[float | None] = [None] * len(fake_B)
    for i in range(1, len(fake_B) - 1):
        inside = head[i - 1] & head[i] & head[i + 1]
        if not enough[i] or index[i + 1] - index[i - 1] != 2 or not inside.any():
            continue
        apart = [
            float(np.sqrt(np.mean((x[i] - (x[i - 1] + x[i + 1]) / 2)[inside].astype(np.float64) ** 2)))
            for x in (fake_B, real_A)
        ]
        found[i] = apart[0] / apart[1] if apart[1] > 0 else None
    return found


def _air(fake_B: Floats, head: Mask) -> list[float | None]:
    mean = float(fake_B[head].astype(np.float64).mean()) if head.any() else 0.0
    air = air_of(head)
    return [
        float(fake[outside].astype(np.float64).mean()) / mean if outside.any() and mean > 0 else None
        for fake, outside in zip(fake_B, air, strict=True)
    ]


@dataclass(frozen=True)
class RankedSlice:
    """A slice by its subject and its position there, with its score."""

    subject: str
    position: int
    score: float


RANKED_BY = (("slice_psnr", 1), ("slice_jump", -1))  # the first that is known; the sign: whether low is bad


def ranked(
    slices: Mapping[str, SliceScores], by: Sequence[tuple[str, int]] = RANKED_BY
) -> tuple[str, list[RankedSlice]]:
    """All scored slices, the worst first, and the measure that ranks them: slice_psnr, else slice_jump."""
    for measure, sign in by:
        found = [
            RankedSlice(subject, position, value)
            for subject, scores in slices.items()
            for position, value in enumerate(scores.values.get(measure, []))
            if value is not None
        ]
        if found:
            return measure, sorted(found, key=lambda one: sign * one.score)
    return "", []


def write_slice_table(path: Path, slices: Mapping[str, SliceScores], people: Mapping[str, str]) -> None:
    """`slices.csv`: a line for each slice, with an empty cell for what could not be measured."""
    measures = list(dict.fromkeys([*MEASURES, *(name for scores in slices.values() for name in scores.values)]))
    with replace_text(path) as file:
        writer = csv.writer(file)
        writer.writerow(["subject", "person", "slice", "file", *measures])
        for subject, scores in slices.items():
            columns = [scores.values.get(name, [None] * len(scores.stems)) for name in measures]
            for stem, index, *cells in zip(scores.stems, scores.index, *columns, strict=True):
                names = [printable(name) for name in (subject, people.get(subject, ""))]
                writer.writerow([*names, index, printable(stem), *_cells(cells)])


def _cells(values: Sequence[float | None]) -> list[str]:
    return ["" if value is None else f"{value:.6g}" for value in values]
