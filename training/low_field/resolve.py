"""Puts numbers in the place of `--lf_noise auto` and of all other `--lf_* auto`, once for a run.

A run that is continued keeps the numbers that it began with, whatever its slices are now: run.json has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.cache.packed_slices import PackedSlices
from data.unaligned_dataset import UnalignedMaskDataset
from data.unaligned_options import UnalignedOptions
from models.physics_options import NO_TONE
from options.train_options import RunOptions
from training.low_field.degradation import Slices, estimate_degradation
from training.low_field.field import STRONGEST, estimate_field
from training.low_field.noise import estimate_noise
from training.run_info import LOW_FIELD, RUN_INFO_NAME
from util.errors import UserError
from util.reading import read_json
from util.schema import AUTO, check
from util.spread import evenly_spaced

MOST_SLICES = 160
MOST_PIXELS = 1 << 23  # of all slices that are looked at
# taken where slices are too small or too few to measure them; usual at 0.05 to 0.064 T (docs/low_field.md)
TYPICAL: dict[str, float | str] = {
    "lf_noise": 0.1, "lf_band": 1.0, "lf_bias": 0.1, "lf_resolution": 0.6, "lf_contrast": 0.8, "lf_tone": NO_TONE,
}  # fmt: skip
OF_BOTH = ("lf_resolution", "lf_contrast", "lf_tone")  # estimated from A and B

Options = TypeVar("Options")


@dataclass(frozen=True)
class LowField:
    """The numbers that stand for `auto`, by option, and the lines that tell where they come from."""

    numbers: Mapping[str, float | str]
    lines: tuple[str, ...] = ()

    def put_into(self, options: Options) -> Options:
        """The model's options with numbers for `auto`."""
        return dataclasses.replace(options, **self.numbers) if self.numbers else options  # type: ignore[type-var]

    def and_more(self, other: LowField) -> LowField:
        """These numbers and those of others, which tell theirs later."""
        return LowField({**self.numbers, **other.numbers}, (*self.lines, *other.lines))

    def recorded(self) -> dict[str, Any]:
        """The entry of run.json; empty if nothing was `auto`."""
        return {LOW_FIELD: dict(self.numbers)} if self.numbers else {}


def with_usual_numbers(options: Options) -> Options:
    """A model's options with a usual number for every `auto`: for timings, which need no data."""
    return LowField({name: TYPICAL[name] for name in _automatic(options)}).put_into(options)


def _automatic(options: object) -> list[str]:
    """The options that are `auto`; those of the physics only if the model makes scans by it."""
    needed = [name for name in TYPICAL if name not in OF_BOTH or getattr(options, "uses_physics", False)]
    return [name for name in needed if getattr(options, name, None) == AUTO]


def low_field(run: RunOptions, dataset: UnalignedMaskDataset) -> LowField:
    """The numbers of the run's `auto` options: those it began with if it is continued, others estimated from its A."""
    wanted = _automatic(run.network)
    begun = _begun_with(run, wanted) if run.train.continue_train else {}
    first = LowField(begun, (f"{_told(begun)}, as the run began",) if begun else ())
    return first.and_more(_estimated(run, first.put_into(run.network), dataset)) if len(begun) < len(wanted) else first


def _estimated(run: RunOptions, options: Any, dataset: UnalignedMaskDataset) -> LowField:
    """Numbers for what is `auto` in a model's options, from slices of A, and of B where they are needed."""
    wanted = _automatic(options)
    images, masks, volumes = some_slices(dataset.A)
    found: dict[str, float | str | None] = dict.fromkeys(wanted)
    if "lf_noise" in wanted or "lf_band" in wanted:
        noise = estimate_noise(images, masks, preprocess=run.data.preprocess, load_size=run.data.load_size)
        if noise is not None:
            found |= {"lf_noise": noise.deviation, "lf_band": noise.band}
    if "lf_bias" in wanted:
        found["lf_bias"] = estimate_field(images, masks, volumes)
    measured, of_both = _rounded(found), [name for name in wanted if name in OF_BOTH]
    usual = {name: TYPICAL[name] for name in wanted if name not in measured and name not in of_both}
    lines = _sources(measured, usual, f"{len(images)} slices of {dataset.A.folder}")
    if of_both:
        known = dataclasses.replace(options, **measured, **usual)
        high = some_slices(dataset.B)
        both = _of_both(known, (images, masks), high[:2], run.data)
        more = {name: value for name, value in _rounded(both).items() if name in of_both}
        others = {name: TYPICAL[name] for name in of_both if name not in more}
        lines += _sources(more, others, f"slices of {dataset.A.folder} and of {dataset.B.folder}")
        measured, usual = measured | more, usual | others
    if run.train.continue_train and wanted == _automatic(run.network):
        lines.append(f"{run.run_dir / RUN_INFO_NAME} does not say which numbers the run began with: estimated anew")
    return LowField(measured | usual, tuple(lines))


def _of_both(known: Any, low: Slices, high: Slices, data: UnalignedOptions) -> dict[str, float | str | None]:
    """The options of OF_BOTH; `known` has the numbers of noise and field. None: not to be measured."""
    found = estimate_degradation(low, high, known.strengths, preprocess=data.preprocess, load_size=data.load_size)
    if found is None:
        return {}
    tone = ",".join(f"{level:g}" for level in found.tone)
    return {"lf_resolution": found.resolution, "lf_contrast": found.contrast, "lf_tone": tone}


def _rounded(found: Mapping[str, float | str | None]) -> dict[str, float | str]:
    """What was found, numbers from 0 to 1 with three digits."""
    return {
        name: value if isinstance(value, str) else round(min(value, 1.0), 3)
        for name, value in found.items()
        if value is not None
    }


def some_slices(folder: PackedSlices) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """Slices of the size that most have, from all over the folder: images and masks (N, H, W), volumes (N,)."""
    sizes, counts = np.unique(folder.shapes, axis=0, return_counts=True)
    size = sizes[counts.argmax()]
    alike = np.flatnonzero((folder.shapes == size).all(1))
    count = max(1, min(MOST_SLICES, MOST_PIXELS // int(size.prod())))
    chosen = alike[evenly_spaced(len(alike), count)]
    images, masks = np.stack([folder.image(int(i)) for i in chosen]), np.stack([folder.mask(int(i)) for i in chosen])
    return images, masks, folder.volume[chosen]


def _begun_with(run: RunOptions, wanted: list[str]) -> dict[str, float | str]:
    """The numbers in run.json for options; none if one of them is not allowed there."""
    try:
        entry = read_json(run.run_dir / RUN_INFO_NAME)[LOW_FIELD]
        numbers = {name: entry[name] for name in wanted if name in entry}
        check(dataclasses.replace(run.network, **numbers))
    except (UserError, LookupError, TypeError):
        return {}
    return {} if AUTO in numbers.values() else numbers


def _sources(measured: Mapping[str, float | str], usual: Mapping[str, float | str], slices: str) -> list[str]:
    """Lines that tell the numbers and where they come from."""
    lines = []
    if measured:
        most = f"; {STRONGEST} is the largest --lf_bias taken" * (measured.get("lf_bias") == STRONGEST)
        lines.append(f"{_told(measured)}, estimated from {slices}{most}")
    if usual:
        lines.append(f"{_told(usual)}, a usual value: the heads in {slices} are too small or too few to measure it")
    return lines


def _told(numbers: Mapping[str, float | str]) -> str:
    return "low field: " + ", ".join(
        f"--{name} {AUTO} is {number if isinstance(number, str) else format(number, 'g')}"
        for name, number in numbers.items()
    )
