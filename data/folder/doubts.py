"""What is probably a mistake in slice folders, though it may be right: one sentence each, with the numbers.

Only names and a few slices are read: slices of usual brightness are seen at once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.folder.manifest import DOMAINS, SPLITS
from data.folder.slice_folder import find_folder
from data.folder.slices import SLICE_SUFFIXES, read_native
from util.errors import UserError, warn
from util.spread import evenly_spaced

DIM = 1 / 8  # of the range; slices that stay below use less than 13 of 16 bits
MOST_NAMES = 100_000  # entries of a folder that are looked at
MOST_SLICES = 200  # and slices that are decoded, if all are dim


def doubts(dataroot: Path, splits: Sequence[str] = SPLITS) -> list[str]:
    """Sentences on files that are ignored for their suffix, and on folders whose slices use little of their range."""
    folders = [find_folder(dataroot, split, domain) for split in splits for domain in DOMAINS]
    return [said for folder in folders if folder is not None for said in _folder_doubts(folder)]


def warn_of_doubts(dataroot: Path, splits: Sequence[str] = SPLITS) -> None:
    """Print the sentences of `doubts` as warnings."""
    for doubt in doubts(dataroot, splits):
        warn(doubt)


def _folder_doubts(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_NAMES) if not entry.name.startswith("."))
    except OSError:
        return  # told elsewhere
    suffixes = [Path(name).suffix.lower() for name in names]
    slices = [name for name, suffix in zip(names, suffixes, strict=True) if suffix in SLICE_SUFFIXES]
    others = Counter(suffix or "no suffix" for suffix in suffixes if suffix not in SLICE_SUFFIXES)
    if others:
        counted = ", ".join(f"{n} of {suffix}" for suffix, n in others.most_common())
        yield f"{folder}: ignored {counted}, beside {len(slices)} slices; only {' and '.join(SLICE_SUFFIXES)} are read"
    if said := _dim([folder / name for name in slices]):
        yield f"{folder}: {said}"


def _dim(paths: Sequence[Path]) -> str:
    """A sentence if all slices stay below `DIM` of their range; empty as soon as one does not."""
    chosen = [paths[i] for i in evenly_spaced(len(paths), MOST_SLICES)]
    middle = len(chosen) // 2  # slices in the middle of a folder are rarely empty
    brightest, full, n = 0.0, 1.0, 0
    for path in [*chosen[middle:], *chosen[:middle]]:
        try:
            pixels = read_native(path)
        except UserError:
            continue  # told elsewhere
        n, top = n + 1, _range(pixels)
        if pixels.max() >= DIM * top:
            return ""
        if pixels.max() / top >= brightest / full:
            brightest, full = float(pixels.max()), top
    if not n or brightest == 0:
        return ""
    factor = full / (4095 if full == 65535 and brightest > 1023 else brightest)
    return (
        f"the highest value of {n} slices is {brightest:g}, {100 * brightest / full:.2g} % of {full:g}, so they use "
        f"little of the range; multiply all slices of this domain, of every split, by one factor (such as {factor:.4g})"
    )


def _range(pixels: NDArray) -> float:
    """The value that is shown as 1."""
    return 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
