"""Sample images of a run: `web/images/*.png`, listed in `web/samples.json`, and the labelled grid for the dashboard.

A run of days would fill a disk with them, so each stage keeps KEPT samples, spread evenly over its steps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.log.loss_log import until
from util.files import replace_text

MAX_SAMPLES = 4  # images of a batch shown per label
KEPT, NEWEST = 100, 10  # samples that a stage keeps, and those of them that stay however close together
FILE_NAME = re.compile(r".+_epoch\d{3,}_step\d{7,}_.*\.png")
PADDING = 2  # pixels between two images
LABEL_HEIGHT = 18  # pixels of a label in the dashboard's grid


@dataclass(frozen=True)
class Sample:
    """The pictures of one step.

    files: the path of each label's picture, relative to the web folder. size: width and height of all of them; empty if
    unknown.
    """

    stage: str
    epoch: int
    step: int
    files: dict[str, str]
    size: Sequence[int] = ()


def column(images: Tensor) -> np.ndarray:
    """The first images of a batch, stacked vertically.

    Args:    images: (N, 1, H, W), intensity in [-1, 1]; values outside are clipped.
    Returns: (n (H + PADDING) + PADDING, W + 2 PADDING) uint8 with n = min(N, MAX_SAMPLES); (H, W) if n = 1.
    """
    from torchvision.utils import make_grid  # imported here: it is as slow as torch, and errors of the user come first

    shown = images[:MAX_SAMPLES].detach().float().cpu()
    grid = make_grid(shown, nrow=1, padding=PADDING, normalize=True, value_range=(-1, 1))
    return (grid[0] * 255).round().byte().numpy()


def labelled_grid(columns: Mapping[str, np.ndarray], n_columns: int) -> np.ndarray:
    """Columns side by side, each under its label, in bands of `n_columns`.

    Args:    columns: label -> (H, W) uint8, from `column`.
    Returns: (3, H', W') uint8.
    """
    labels = list(columns)
    width = max(image.shape[1] for image in columns.values())
    height = max(image.shape[0] for image in columns.values()) + LABEL_HEIGHT
    across = min(n_columns, len(labels))
    canvas = Image.new("L", (across * width, -(-len(labels) // across) * height), 0)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for number, label in enumerate(labels):
        left, top = number % across * width, number // across * height
        draw.text((left + width // 2, top + LABEL_HEIGHT // 2), label, fill=255, font=font, anchor="mm")
        canvas.paste(Image.fromarray(columns[label]), (left, top + LABEL_HEIGHT))
    return np.broadcast_to(np.asarray(canvas), (3, canvas.height, canvas.width)).copy()


def one_too_many(steps: Sequence[int]) -> int | None:
    """Which of a stage's samples to drop: the one whose neighbours are closest; None while there are few enough.

    The first and the newest stay. Repeated for every new sample, this leaves them evenly spread, as by thinning out all
    of them again and again.
    """
    if len(steps) <= KEPT:
        return None
    return min(range(1, len(steps) - NEWEST), key=lambda i: (steps[i + 1] - steps[i - 1], i))


class SampleImages:
    """The pictures of the report; `samples` lists them, oldest first."""

    def __init__(self, web_dir: Path) -> None:
        self._web_dir = web_dir
        self._known = True  # whether the list is that of the folder
        self._dropped: list[str] | None = None  # files that are listed no longer; None: they must be looked for
        self.samples: list[Sample] = []

    @property
    def _index(self) -> Path:
        return self._web_dir / "samples.json"

    def resume(self, stage: str, step: int) -> None:
        """Continue the pictures of an earlier run from `step` of `stage`. A missing or damaged list counts as empty."""
        try:
            found = [Sample(**fields) for fields in json.loads(self._index.read_text(encoding="utf-8"))]
            self.samples = until(found, lambda sample: (sample.stage, sample.step), stage, step)
        except (OSError, ValueError, TypeError):
            self._known = False

    def save(self, stage: str, epoch: int, step: int, columns: Mapping[str, np.ndarray]) -> None:
        """Write one PNG per label and add them to the list. Raises OSError."""
        (self._web_dir / "images").mkdir(parents=True, exist_ok=True)
        files = {}
        for label, image in columns.items():
            name = f"{stage}_epoch{epoch:03d}_step{step:07d}_{label}.png"
            files[label] = "images/" + re.sub(r"[^A-Za-z0-9_.-]", "-", name)
            Image.fromarray(image).save(self._web_dir / files[label])
        self.samples = [s for s in self.samples if (s.stage, s.step) != (stage, step)]
        sizes = {image.shape[1::-1] for image in columns.values()}
        self.samples.append(Sample(stage, epoch, step, files, sizes.pop() if len(sizes) == 1 else ()))
        self._thin_out(stage)
        with replace_text(self._index) as file:
            json.dump([asdict(sample) for sample in self.samples], file, indent=1)

    def _thin_out(self, stage: str) -> None:
        while True:
            of_stage = [sample for sample in self.samples if sample.stage == stage]
            number = one_too_many([sample.step for sample in of_stage])
            if number is None:
                return
            self.samples.remove(of_stage[number])
            if self._dropped is not None:
                self._dropped += of_stage[number].files.values()

    def tidy(self) -> None:
        """Remove files that the list no longer names, once no page shows them; the first time, an earlier run's too."""
        if self._dropped is None:
            found = (self._web_dir / "images").glob("*.png") if self._known else ()
            self._dropped = [f"images/{path.name}" for path in found if FILE_NAME.fullmatch(path.name)]
        listed = {file for sample in self.samples for file in sample.files.values()}
        for file in self._dropped:
            if file not in listed:
                with suppress(OSError):  # it takes room on the disk, nothing else
                    (self._web_dir / file).unlink()
        self._dropped = []
