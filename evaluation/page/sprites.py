"""`browser/0001.js`: one subject's slices as the report's browser loads them, a sheet of pictures for each kind.

A page opened from a disk may not read other files, but it may run scripts beside it. So each subject's pictures are a
script that hands them over. They have 8 bits and no loss; `images/` holds 16 bits.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.folder.manifest import VolumeEntry
from evaluation.pictures import picture_name
from evaluation.slice_scores import SliceScores
from evaluation.subjects import SubjectSlices
from preprocessing.geometry import SourceGeometry, ras_geometry, spacing_mm
from util.files import replace_text
from util.html_page import json_in_script, link, shown

FOLDER = "browser"  # in the results folder
MOST_SIDE = 16000  # pixels of a sheet that every browser can read
PLANES = {0: "sagittal", 1: "coronal", 2: "axial"}  # by the slice axis in RAS
SIDES = {  # left, right, top, bottom of a slice by its axis (data/folder/slices.py), then first and last slice
    0: ("P", "A", "S", "I", "L", "R"),
    1: ("L", "R", "S", "I", "P", "A"),
    2: ("L", "R", "A", "P", "I", "S"),
}


@dataclass(frozen=True)
class Placing:
    """How a subject's slices lie in the body.

    plane: sagittal, coronal or axial. sides: letters as in `SIDES`; both empty if nothing tells.
    spacing_mm: width and height of a pixel, and the distance of neighbouring slice numbers; None if unknown.
    """

    plane: str = ""
    sides: tuple[str, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None


def placing(entry: VolumeEntry | None, simulated: bool) -> Placing:
    """What the manifest says. A NIfTI header whose two codes are 0 does not say where left is."""
    if entry is None:
        return Placing()
    known = simulated or entry.sform_code > 0 or entry.qform_code > 0
    x, y, z = (entry.shape[0], entry.shape[1], entry.shape[2])
    _, affine = ras_geometry(SourceGeometry((x, y, z), np.asarray(entry.affine)))
    sides_mm = spacing_mm(affine)
    across, up = (sides_mm[axis] for axis in range(3) if axis != entry.slice_axis)
    if entry.grid is not None:
        across = up = entry.grid.pixel_mm
    spacing = (float(across), float(up), float(sides_mm[entry.slice_axis]))
    if not known:
        return Placing(spacing_mm=spacing)
    return Placing(PLANES[entry.slice_axis], SIDES[entry.slice_axis], spacing)


def script_name(number: int) -> str:
    """The file of subject `number`, counted from 1; no name of a subject is in it."""
    return f"{FOLDER}/{number:04d}.js"


def write_sprites(
    results: Path, number: int, volume: SubjectSlices, kinds: Mapping[str, NDArray], scores: SliceScores, place: Placing
) -> None:
    """Write one subject's file.

    Args:
        kinds: name -> (S, H, W) float in [0, 1].
        scores: of the same slices.
    """
    across = columns(*volume.image.shape)
    content: dict[str, Any] = {
        "width": volume.image.shape[2],
        "height": volume.image.shape[1],
        "across": across,
        "index": scores.index,
        "stems": [shown(stem) for stem in scores.stems],
        "files": [link(f"images/{picture_name(stem, 'fake_B')}") for stem in scores.stems],
        "scores": {name: [_rounded(value) for value in values] for name, values in scores.values.items()},
        "plane": place.plane,
        "sides": list(place.sides),
        "spacing": place.spacing_mm and list(place.spacing_mm),
        "sheets": {kind: data_address(sheet(images, across)) for kind, images in kinds.items()},
    }
    path = results / script_name(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_text(path) as file:
        file.write(f"ptaSlices({json_in_script(content)});\n")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def columns(n: int, height: int, width: int) -> int:
    """Slices side by side in a sheet of n: it is about square, and within MOST_SIDE as long as it can be."""
    square = round((n * height / width) ** 0.5)
    return int(min(max(1, square), max(1, MOST_SIDE // width), n))


def sheet(images: NDArray, across: int) -> NDArray[np.uint8]:
    """Images (S, H, W) in [0, 1] side by side, row by row: (rows H, across W) uint8."""
    n, height, width = images.shape
    rows = -(-n // across)
    whole = np.zeros((rows * across, height, width), np.uint8)
    whole[:n] = np.rint(np.clip(images, 0, 1) * 255)
    return whole.reshape(rows, across, height, width).swapaxes(1, 2).reshape(rows * height, across * width)


def data_address(pixels: NDArray[np.uint8]) -> str:
    """A grey or colour picture as a `data:` address. A page may read its pixels, unlike those of another file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=4)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
