"""The pictures of the shipped heads in docs/simulator.md: a contact sheet, and their surfaces, which show no faces.

python -m scripts.heads_figures --out docs/simulator
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.anatomy import Anatomy
from simulation.deformation import draw_shape
from simulation.geometry import Pose, ScanGeometry
from simulation.heads import PEOPLE, load_person
from simulation.presets import find_preset
from simulation.subject import Scanner, draw_head
from util.errors import run_cli
from util.schema import CommandLine

MATRIX = 224
ACROSS = 3  # people in a row
LEVELS_MM = {"head_02": -38.0, "head_05": 45.0, "head_08": -20.0, "head_12": 30.0, "colin27": 5.0}  # others: 12
USUAL_MM = 12.0
MARGIN = 8  # pixels around the head
LIGHT = np.array([-0.35, 0.35, 1.0])  # from the left, above and in front

Image = NDArray[np.float32]


def main(argv: Sequence[str]) -> None:
    """Read the command line and draw."""
    parser = CommandLine(prog="heads_figures", description=__doc__)
    parser.add_argument("--out", required=True, help="folder for the pictures")
    options = parser.parse_args(argv)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    sheet, surfaces = {}, {}
    for name in PEOPLE:
        anatomy = load_person(name)
        sheet[name] = scanned(anatomy, LEVELS_MM.get(name, USUAL_MM))
        surfaces[name] = (surface(anatomy, "front"), surface(anatomy, "side"))
    draw(sheet, ("low field", "truth", "high field"), out / "heads.png", dpi=75)
    draw(surfaces, ("", ""), out / "no_face.png", dpi=55)


def scanned(anatomy: Anatomy, level_mm: float) -> tuple[Image, Image, Image]:
    """One slice (Y, X) of the person's own shape in the task `same-contrast`: low field, truth, high field."""
    preset = find_preset("same-contrast")
    head = replace(draw_head(0, 0), shape=draw_shape(np.random.default_rng(0), 0.0))
    assert anatomy.to_template is not None
    height = (level_mm - anatomy.to_template[2, 3]) / anatomy.to_template[2, 2] - anatomy.centre_mm[2]
    pose = Pose(np.zeros(3), np.zeros(3))
    images = []
    for protocol in (preset.low, preset.high):
        z_mm = height + protocol.thickness_mm * np.arange(-1, 2)
        geometry = ScanGeometry(pose, MATRIX, protocol.thickness_mm, z_mm, (0.0, 0.0))
        scanner = Scanner(head, geometry, anatomy)
        images.append(scanner.image(protocol, np.random.default_rng(0))[0][1])
        if protocol is preset.low:
            images.append(scanner.with_slices_of(preset.high).ideal(preset.high)[1])
            mask = scanner.labels()[0][1]
    rows, columns = (np.flatnonzero(mask.any(axis))[[0, -1]] + [-MARGIN, MARGIN + 1] for axis in (1, 0))
    cut = tuple(slice(max(int(low), 0), int(high)) for low, high in (rows, columns))
    return images[0][cut], images[1][cut], images[2][cut]


def surface(anatomy: Anatomy, view: str) -> Image:
    """The head's outside (Z, X or Y) seen from the front or from its right side, shaded by its slope."""
    head = ndimage.gaussian_filter(anatomy.fractions.sum(0), 0.8)
    towards = head[:, ::-1].transpose(1, 2, 0)[:, :, ::-1] if view == "front" else head[::-1].transpose(0, 2, 1)
    hit = towards > 0.5
    first = hit.argmax(0)
    inner = np.take_along_axis(towards, first[None], 0)[0]
    outer = np.take_along_axis(towards, np.maximum(first - 1, 0)[None], 0)[0]
    depth = np.where(hit.any(0), first - (inner - 0.5) / np.maximum(inner - outer, 1e-3), np.nan)
    down, across = np.gradient(depth)
    shade = (LIGHT[2] + LIGHT[0] * across + LIGHT[1] * down) / np.sqrt(1 + down**2 + across**2)
    return np.nan_to_num(np.clip(shade / np.linalg.norm(LIGHT), 0, 1)).astype(np.float32)


def draw(panels: Mapping[str, tuple[Image, ...]], titles: Sequence[str], path: Path, dpi: int) -> None:
    """A row of panels for every person, `ACROSS` people side by side."""
    per_person, rows = len(titles), -(-len(panels) // ACROSS)
    figure, axes = plt.subplots(rows, ACROSS * per_person, figsize=(1.55 * ACROSS * per_person, 1.95 * rows))
    figure.set_facecolor("black")
    for axis in axes.ravel():
        axis.axis("off")
    for number, (name, images) in enumerate(panels.items()):
        for k, (image, title) in enumerate(zip(images, titles, strict=True)):
            axis = axes[number // ACROSS, number % ACROSS * per_person + k]
            axis.imshow(image[::-1], cmap="gray", vmin=0, vmax=float(np.percentile(image, 99.5)))
            axis.set_title(f"{name}  {title}" if k == 0 else title, color="white", fontsize=8)
    figure.subplots_adjust(0.002, 0.002, 0.998, 0.97, 0.02, 0.1)
    figure.savefig(path, dpi=dpi)
    plt.close(figure)


if __name__ == "__main__":
    run_cli(main, "heads_figures")
