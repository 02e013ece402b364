"""`images/`: input and output of each slice, with truth and error if known."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.folder.slices import write_image
from evaluation.subjects import SubjectSlices

Floats = NDArray[np.float32]

BITS = 16
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
