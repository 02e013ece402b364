"""Size and place of slices: whether those of A and of B, or of a run and of a test, show heads in the same way.

Where a manifest knows millimetres, axis, field of view and distance of slices are compared; and always the size and the
aspect of heads as a network sees them. A difference is told, in one sentence with its numbers, and not refused: scans
of infants are smaller, and a domain may be cropped on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from data.cache.packed_slices import PackedSlices
from data.folder.manifest import DOMAINS, Placement, read_placements
from data.transforms import to_network
from data.unaligned_dataset import UnalignedMaskDataset
from util.errors import UserError, warn
from util.reading import read_json
from util.runs import RUN_INFO_NAME
from util.spread import evenly_spaced

PLANES = {0: "sagittal", 1: "coronal", 2: "axial"}
SAME_FOV = 0.01  # relative difference of fields of view that is not told,
SAME_DISTANCE = 0.2  # of distances between slices,
SAME_SIZE = 0.10  # of the heads' median size: people differ, medians of few people do too,
SAME_ASPECT = 0.06  # and of their median aspect
HEADS = 48  # slices of a domain whose heads are measured,
MIDDLE = 0.15  # whose relative level is within this much of 0.5
TAILS = 0.01  # share of a head's pixels that is ignored at each end: ears, nose, specks


@dataclass(frozen=True)
class SliceScale:
    """Medians over the volumes of one split and domain.

    slice_axis: 0 sagittal, 1 coronal, 2 axial. fov_mm: the longer side of a slice. apart_mm: distance of neighbouring
    slices, or the thickness that they were averaged over, if that is more. pixel_mm: side of the slice files' pixels;
    None in runs of earlier versions. thickness_mm: what thinner slices were averaged over; None if they were not.
    apart_range_mm: the least and the largest distance of slices, where volumes differ; None in earlier runs.
    """

    slice_axis: int
    fov_mm: float
    apart_mm: float
    pixel_mm: float | None = None
    thickness_mm: float | None = None
    apart_range_mm: tuple[float, float] | None = None

    @property
    def distance(self) -> str:
        """The distance of slices in mm for a sentence, with its range if there is one."""
        if self.apart_range_mm is None:
            return f"{self.apart_mm:.3g}"
        return " to ".join(f"{end:.3g}" for end in self.apart_range_mm)

    def __str__(self) -> str:
        return f"{PLANES[self.slice_axis]} slices of {self.fov_mm:.4g} mm, {self.distance} mm apart"


def scales(volumes: Sequence[Placement], split: str) -> dict[str, SliceScale]:
    """The scale of each domain whose volumes in `split` are known in mm; others are left out."""
    found = {}
    for domain in DOMAINS:
        here = [volume for volume in volumes if (volume.split, volume.domain) == (split, domain)]
        known = [(volume, volume.grid) for volume in here if volume.grid is not None]
        if known and len(known) == len(here):
            axes = Counter(volume.slice_axis for volume, _ in known)
            apart = [max(v.spacing_mm[v.slice_axis], v.thickness_mm or 0) for v, _ in known]
            found[domain] = SliceScale(
                max(axes, key=lambda axis: (axes[axis], axis)),
                median(grid.pixel_mm * max(grid.size) for _, grid in known),
                median(apart),
                median(grid.pixel_mm for _, grid in known),
                median(averaged) if (averaged := [v.thickness_mm for v, _ in known if v.thickness_mm]) else None,
                (min(apart), max(apart)) if min(apart) < max(apart) else None,
            )
    return found


def as_json(known: Mapping[str, SliceScale]) -> dict[str, Any]:
    """Scales for run.json; `trained_scales` reads them."""
    return {domain: asdict(scale) for domain, scale in known.items()}


def trained_scales(run_dir: Path) -> dict[str, SliceScale]:
    """The scales of the slices that a run was trained with, as its last start told; empty where run.json has none."""
    try:
        content = read_json(run_dir / RUN_INFO_NAME)
        newest = next(start for start in [*reversed(content.get("resumed", [])), content] if "slices" in start)
        return msgspec.convert(newest["slices"], dict[str, SliceScale])
    except (UserError, StopIteration, AttributeError, TypeError, msgspec.ValidationError):
        return {}  # a run folder of an earlier version, or only the weights of one


LIKE = "--like TRAINING_DATA of preprocessing_images.py slices volumes as the training had them"


def check_like_training(run_dir: Path, dataroot: Path, split: str, domain: str, advice: str = LIKE) -> None:
    """Warn if the slices to be tested have another scale than those of the same domain that the run learned from.

    Raises: UserError: they lie in another plane, of which the networks know nothing.
    """
    trained, tested = trained_scales(run_dir).get(domain), scales(read_placements(dataroot), split).get(domain)
    if trained is None or tested is None:
        return
    found = differences(trained, tested, (f"the training of {run_dir.name}", f"{split}{domain}"))
    if trained.slice_axis != tested.slice_axis:
        raise UserError(f"--dataroot {dataroot}: {'; '.join(found)}; {advice}")
    if found:
        warn(f"--dataroot {dataroot}: {'; '.join(found)}; {advice}")


def differences(one: SliceScale, other: SliceScale, names: tuple[str, str]) -> list[str]:
    """What differs between two scales, without a full stop; `names` are those of the two."""
    found = []
    if one.slice_axis != other.slice_axis:
        found.append(f"slices are {PLANES[one.slice_axis]} in {names[0]} and {PLANES[other.slice_axis]} in {names[1]}")
    if _apart(one.fov_mm, other.fov_mm) > SAME_FOV:
        found.append(f"slices show {one.fov_mm:.4g} mm in {names[0]} and {other.fov_mm:.4g} mm in {names[1]}")
    if _apart(_nearest(one, other.apart_mm), _nearest(other, one.apart_mm)) > SAME_DISTANCE:
        found.append(f"slices are {one.distance} mm apart in {names[0]} and {other.distance} mm in {names[1]}")
    return found


def _nearest(scale: SliceScale, wanted_mm: float) -> float:
    """The distance of slices in the scale's range that is nearest to the wanted one."""
    low, high = scale.apart_range_mm or (scale.apart_mm, scale.apart_mm)
    return min(max(wanted_mm, low), high)


def _apart(one: float, other: float) -> float:
    """The larger relative to the smaller, less 1."""
    return max(one, other) / min(one, other) - 1


def unlike_domains(dataset: UnalignedMaskDataset, volumes: Sequence[Placement]) -> str:
    """A sentence on how A's and B's training slices differ in scale and shape; empty if they do not."""
    known, found = {} if dataset.paired else scales(volumes, "train"), list[str]()
    if len(known) == len(DOMAINS):
        found += differences(known["A"], known["B"], ("A", "B"))
    source, target = dataset.folders
    packs = {source.domain: source, target.domain: target}
    sizes = {domain: head_size(dataset, packs[domain]) for domain in DOMAINS}
    if all(all(size) for size in sizes.values()):
        found += _unlike_heads(sizes)
    stretched = [domain for domain in DOMAINS if (packs[domain].shapes[:, 0] != packs[domain].shapes[:, 1]).any()]
    if stretched and dataset.options.preprocess in ("resize", "resize_and_crop"):
        found.append(
            f"--preprocess {dataset.options.preprocess} stretches slices of {' and '.join(stretched)}, which are not "
            f"square"
        )
    if not found:
        return ""
    return (
        f"A and B differ: {'; '.join(found)}; networks may learn that difference instead of the contrast, and volumes "
        f"put through preprocessing_images.py together share one grid in mm"
    )


def _unlike_heads(sizes: Mapping[str, tuple[float, float]]) -> list[str]:
    (height_A, width_A), (height_B, width_B) = (sizes[domain] for domain in DOMAINS)
    size = _apart((height_A * width_A) ** 0.5, (height_B * width_B) ** 0.5)
    aspect = _apart(height_A / width_A, height_B / width_B)
    if size <= SAME_SIZE and aspect <= SAME_ASPECT:
        return []
    return [
        f"the network sees heads of {height_A:.0f} x {width_A:.0f} pixels (aspect {height_A / width_A:.2f}) in A and "
        f"{height_B:.0f} x {width_B:.0f} ({height_B / width_B:.2f}) in B"
    ]


def head_size(dataset: UnalignedMaskDataset, folder: PackedSlices) -> tuple[float, float]:
    """Median height and width in pixels of the heads in slices near the middle level, as a network sees them.

    (0, 0) without any foreground.
    """
    near = np.flatnonzero(np.abs(folder.p - 0.5) <= MIDDLE)
    if not len(near):
        near = np.arange(len(folder))
    chosen = near[evenly_spaced(len(near), HEADS)]
    o = dataset.options
    sides = []
    for i in chosen.tolist():
        image, mask = folder.image(i), folder.mask(i)
        if mask.any():
            foreground = to_network(image, mask, preprocess=o.preprocess, load_size=o.load_size)[1][0].numpy()
            sides.append((_extent(foreground.sum(1)), _extent(foreground.sum(0))))
    if not sides:
        return 0.0, 0.0
    height, width = np.median(np.array(sides), axis=0)
    return float(height), float(width)


def _extent(counts: NDArray[np.floating]) -> float:
    """The length of what is counted along one axis, in pixels, without its tails."""
    total = np.append(0, np.cumsum(counts, dtype=np.float64))
    if total[-1] == 0:
        return 0.0
    low, high = np.interp([TAILS, 1 - TAILS], total / total[-1], np.arange(len(total)))
    return float(high - low)
