"""`images/`: input and output of each slice, with truth and error if known."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.folder.slices import write_image
from evaluation.subjects import SubjectSlices

Floats = NDArray[np.float32]

BITS = 16
TRUST_RANGE = 0.25  # expected errors of this size or larger have the brightest colour
TRUST_STOPS = ((0, 0, 0), (70, 20, 110), (190, 45, 90), (245, 130, 40), (255, 240, 120))  # evenly spaced colours
ERROR_RANGE = 0.5  # errors of this size or larger have the full colour
KINDS = ("real_A", "fake_B", "truth", "error")


def error_map(prediction: Floats, truth: Floats) -> NDArray[np.uint8]:
    """Signed error as colour: red if too bright, blue if too dark; (..., H, W) to (..., H, W, 3) uint8.

    Black is no error. Above half of ERROR_RANGE the hue changes to yellow or cyan, so that large errors stand out.
    """
    strength = np.clip((prediction - truth) / ERROR_RANGE, -1, 1)
    level, excess = np.clip(2 * np.abs(strength), 0, 1), np.clip(2 * np.abs(strength) - 1, 0, 1)
    bright = strength > 0
    colour = np.stack([np.where(bright, level, 0), excess * 0.85, np.where(bright, 0, level)], axis=-1)
    return np.rint(colour * 255).astype(np.uint8)


def trust_colours() -> NDArray[np.uint8]:
    """Colours (256, 3) of expected errors from 0, black, to TRUST_RANGE, bright yellow."""
    stops = np.asarray(TRUST_STOPS, dtype=np.float64)
    place = np.linspace(0, len(stops) - 1, 256)
    return np.rint(np.stack([np.interp(place, range(len(stops)), c) for c in stops.T], 1)).astype(np.uint8)


def trust_levels(error: Floats) -> Floats:
    """Expected errors as parts of TRUST_RANGE, in [0, 1]."""
    return np.clip(error / np.float32(TRUST_RANGE), 0, 1)


def write_trust_pictures(folder: Path, stems: Sequence[str], error: Floats) -> None:
    """Write `STEM_trust.png` of every slice; error is (S, H, W), the expected error."""
    colours = trust_colours()[np.rint(trust_levels(error) * 255).astype(np.uint8)]
    for stem, picture in zip(stems, colours, strict=True):
        Image.fromarray(picture).save(folder / picture_name(stem, "trust"), compress_level=1)


def picture_name(stem: str, kind: str) -> str:
    """File name of one picture, e.g. `sub01_003_fake_B.png`."""
    return f"{stem}_{kind}.png"


def _write_slice(folder: Path, stem: str, pictures: dict[str, Floats]) -> None:
    for kind, image in pictures.items():
        write_image(folder / picture_name(stem, kind), np.clip(image, 0, 1), BITS)
    if "truth" in pictures:
        colours = Image.fromarray(error_map(pictures["fake_B"], pictures["truth"]))
        colours.save(folder / picture_name(stem, "error"), compress_level=1)


def write_pictures(folder: Path, volume: SubjectSlices, fake_B: Floats, pool: Executor) -> None:
    """Write one subject's pictures; `fake_B` is (S, H, W) in [0, 1]. real_A is the model's input."""
    jobs = []
    for i, stem in enumerate(volume.stems):
        pictures = {"real_A": volume.visible[i], "fake_B": fake_B[i]}
        if volume.truth is not None:
            pictures["truth"] = volume.truth[i]
        jobs.append(pool.submit(_write_slice, folder, stem, pictures))
    for job in jobs:
        job.result()
