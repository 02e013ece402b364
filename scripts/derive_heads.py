"""Derive the shipped heads, maps of tissue fractions without faces (run once; the results are in `simulation/maps`).

    python -m scripts.derive_heads --heads FOLDER --colin FOLDER --out simulation/maps

`--heads` holds the label maps head_01.nii.gz to head_16.nii.gz (SynthSeg's training_seg_*.nii.gz: whole heads, 1 mm,
FreeSurfer's and CHARM's numbers), `--colin` Colin27's ch2.nii.gz and ch2bet.nii.gz. See NOTICE for both.

1. Every head is registered to Colin27 (`head_registration.py`). Where a source has lost a part of the brain, another
   head's is put there (`head_mending.py`). The head is turned, not scaled, into the template's axes.
2. Hard labels become fractions: the smoothed indicators of all classes are interpolated in every voxel of 1 mm, and a
   class has a fraction by its lead over the strongest other one, over the width of one voxel. So borders are sharp and
   smooth, and voxels on them are mixed as in a scan.
3. Face and ears go; skin and fat follow the new surface (`head_surface.py`). The map ends below the cerebellum.
4. Fractions are rounded to quarters and packed.

The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.geometry import to_ras
from scripts.colin27 import colin_fractions, colin_without_face
from scripts.head_classes import ALL_TISSUES, BRAIN, INSIDE_SKULL, MIXTURES, NAMES, NUMBER, NUMBERS, WHITE
from scripts.head_mending import lost_part, mend
from scripts.head_registration import level_errors, register, rigid_part
from scripts.head_surface import FAT_MM, Skin, fat_between, fat_thickness, largest, surface_depth
from simulation.anatomy import HEAD_CENTRE_MM, PACKED_STEPS, HeadFile, save_head
from util.errors import UserError, run_cli

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]
Matrix = NDArray[np.float64]

DONORS = 3  # heads with the most similar room in the skull, of which the one that fits best mends another
AROUND_BRAIN = 24  # CSF
CORD = 512  # not in the template's brain
THIN = ("vessel", "optic_nerve", "eye_muscle")  # little smoothed, or they would vanish
SMOOTH_VOXELS, SMOOTH_THIN = 0.7, 0.45
STRUCTURES = (3, 42, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 16, 17, 53, 18, 54, 28, 60, 4, 43)  # for the level error
BELOW_CEREBELLUM_MM = 9.0
MARGIN_MM = 4
ORBIT_MM = 11.0  # fat this close to eyes, their muscles and optic nerves fills the orbits
ORBIT_DEPTH_MM = 22.0  # behind the middle of the eyes, where the orbits taper
DENTATE_MM = (2.4, 4.2)  # depth in the cerebellum's white matter
DENTATE_REACH_MM = 11.0
RAMP = 1.75  # fraction per unit of a smoothed indicator's lead: the slope of a box over an edge so smoothed [C]
FIRST_MM, BOX, TOP_MM = (-110, -150), (221, 271), 125  # working box along the template's axes
LENS_MM = (4.5, 2.2, 4.5)  # semi-axes
SCLERA_MM = 0.9
LARGEST_TABLE = 256
TEMPLATE_STEPS = 24
WHOLE_PLANES, WHOLE_SHARE = 10, 0.9  # a plane is whole if it has this share of the area so many planes above


@dataclass
class Source:
    """A label map in RAS with its affine, and what is derived from it on the way."""

    classes: NDArray[np.uint8]
    affine: Matrix
    centroids: dict[str, Matrix]
    to_template: Matrix
    cerebellum_mm: Matrix  # (3, N), its surface in the source's mm
    lost: Mask  # CSF where the source scan has lost the brain


@dataclass(frozen=True)
class Layers:
    """Volumes (X, Y, Z) of a head: depth in mm under the new surface; share of fat in flesh; where the old head is not;
    share of dark wall and lens in the eyes. And the thickness of the skin.
    """

    depth: Volume
    skin_mm: float
    fatty: Volume
    outside: Mask
    eye_wall: Volume


def main(argv: Sequence[str]) -> None:
    """Read the command line and write all heads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, required=True, help="folder of head_01.nii.gz to head_16.nii.gz")
    parser.add_argument("--colin", type=Path, required=True, help="folder of ch2.nii.gz and ch2bet.nii.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--only", help="write this map alone; all are read and registered nonetheless")
    options = parser.parse_args(argv)
    files = sorted(options.heads.glob("head_*.nii.gz"))
    needed = [options.colin / name for name in ("ch2.nii.gz", "ch2bet.nii.gz")]
    missing = [path for path in needed if not path.is_file()]
    if missing or not files:
        raise UserError(f"no such file: {missing[0] if missing else options.heads / 'head_*.nii.gz'}")
    options.out.mkdir(parents=True, exist_ok=True)
    colin, affine = colin_fractions(*needed)
    fixed = np.rint(colin * TEMPLATE_STEPS) / np.float32(TEMPLATE_STEPS)  # the last bits of floats must not matter
    brain = np.stack([fixed[1] + fixed[2], fixed[2]])
    sources = {path.name.split(".")[0]: read(path, brain, affine) for path in files}
    errors = level_errors({name: source.centroids for name, source in sources.items()})
    for name, source in sources.items():
        if source.lost.any():
            mend_source(name, sources)
    nuclei: list[tuple[NDArray[np.uint8], Matrix]] = []
    for number, (name, source) in enumerate(sources.items()):
        classes, placed, frame = turned(source)
        nuclei.append((classes, source.to_template @ np.linalg.inv(frame) @ placed))
        if options.only not in (None, name):
            continue
        fractions = shipped(source, classes, placed, frame, np.random.default_rng(number))
        save(options.out / f"{name}.npz", fractions, placed, source.to_template @ np.linalg.inv(frame), errors[name][0])
        print(f"{name}: level error {errors[name][0]:.1f} mm, in space {errors[name][1]:.1f} mm", flush=True)
    if options.only in (None, "colin27"):
        fractions, placed = colin_without_face(colin, affine, nuclei)
        save(options.out / "colin27.npz", fractions, placed, np.eye(4), 0.0)


def mend_source(name: str, sources: Mapping[str, Source]) -> None:
    """Give a head that has lost a part of its brain that part of the head that fits best.

    The insides of the skulls are registered, not the brains: those differ where one lacks a part.
    """
    source = sources[name]
    own = inside_skull(source)
    others = {key: inside_skull(other) for key, other in sources.items() if key != name}
    alike = sorted(others, key=lambda key: abs(float(np.log(others[key].sum() / own.sum()))))[:DONORS]
    donors: list[tuple[NDArray[np.uint8], Matrix]] = []
    for key in alike:
        to_own = register(others[key], sources[key].affine, own, source.affine)
        donors.append((sources[key].classes, np.asarray(np.linalg.inv(to_own @ sources[key].affine), np.float64)))
    brain = np.array([NUMBER[part] for part in BRAIN], np.uint8)
    source.classes, donor = mend(source.classes, source.lost, source.affine, donors, brain)
    print(f"{name}: {source.lost.sum() / 1000:.0f} ml of CSF where the brain is missing, filled from {alike[donor]}")


def inside_skull(source: Source) -> Volume:
    """Brain and fluid, (1, X, Y, Z) in {0, 1}."""
    return np.isin(source.classes, [NUMBER[part] for part in INSIDE_SKULL])[None].astype(np.float32)


def save(path: Path, fractions: Volume, affine: Matrix, to_template: Matrix, level_error_mm: float) -> None:
    """Pack fractions (8, X, Y, Z) and write them."""
    codes, table = quantised(fractions)
    low = whole_from(np.asarray(table[codes].any(-1)))
    placed = affine.copy()
    placed[2, 3] += low
    save_head(path, HeadFile(codes[low:], table, placed, to_template, HEAD_CENTRE_MM, level_error_mm))


def whole_from(head: Mask) -> int:
    """The lowest plane of a head (Z, Y, X) that the source's field of view does not cut off at the back."""
    area = head.sum((1, 2))
    return int(np.flatnonzero(area[:-WHOLE_PLANES] >= WHOLE_SHARE * area[WHOLE_PLANES:])[0])


def read(path: Path, template: Volume, template_affine: Matrix) -> Source:
    """One label map, registered to the template's maps of brain and white matter."""
    image = nibabel.Nifti1Image.from_filename(path)
    values, affine = to_ras(image.get_fdata(dtype=np.float32), image.affine)
    labels = np.rint(values).astype(np.int16)
    known = {number for numbers in NUMBERS.values() for number in numbers} | {0}
    if unknown := set(np.flatnonzero(np.bincount(labels.ravel())).tolist()) - known:
        raise UserError(f"{path}: unknown labels {sorted(unknown)}")
    table = np.zeros(max(known) + 1, np.uint8)
    for name, numbers in NUMBERS.items():
        table[list(numbers)] = NUMBER[name]
    classes = table[labels]
    of_tissue = [[n for name in names for n in NUMBERS[name] if n != CORD] for names in (BRAIN, WHITE)]
    tissues = np.stack([np.isin(labels, chosen) for chosen in of_tissue]).astype(np.float32)
    to_template = register(tissues, affine, template, template_affine)
    middles = np.array(ndimage.center_of_mass(labels > 0, labels, STRUCTURES))
    native = np.column_stack([middles, np.ones(len(middles))]) @ (to_template @ affine).T
    places = {str(number): place[:3] for number, place in zip(STRUCTURES, native, strict=True)}
    hindbrain = np.isin(labels, (7, 8, 46, 47))
    ends = [np.flatnonzero(hindbrain.any(tuple({0, 1, 2} - {k})))[[0, -1]] for k in range(3)]
    box = tuple(slice(int(a), int(b) + 1) for a, b in ends)
    for side in (7, 46):
        add_dentate(classes[box], labels[box] == side, np.isin(labels[box], (7, 46)))
    surface = np.argwhere(ndimage.binary_opening(hindbrain[box])) + [part.start for part in box]
    cerebellum_mm = affine[:3, :3] @ surface.T + affine[:3, 3:]
    return Source(classes, affine, places, to_template, cerebellum_mm, lost_part(labels == AROUND_BRAIN))


def add_dentate(classes: NDArray[np.uint8], white: Mask, cerebellum: Mask) -> None:
    """A folded sheet in the deep white matter of one cerebellar hemisphere, in place of the nucleus no map has."""
    depth = ndimage.distance_transform_edt(cerebellum)
    core = white & (depth > DENTATE_MM[0])
    if not core.any():
        return
    middle = np.argwhere(core).mean(0)
    near = np.linalg.norm(np.indices(white.shape) - middle.reshape(3, 1, 1, 1), axis=0) < DENTATE_REACH_MM
    classes[core & near & (depth < DENTATE_MM[1])] = NUMBER["dentate"]


# --- turning and mixing ------------------------------------------------------------------------------------------


def turned(source: Source) -> tuple[NDArray[np.uint8], Matrix, Matrix]:
    """Hard classes (X, Y, Z) of 1 mm along the template's axes, their affine, and the map from source mm to these mm.

    The frame agrees with the template at the head's centre. It is cut below the cerebellum.
    """
    frame = rigid_part(source.to_template, HEAD_CENTRE_MM)
    bottom = float((frame[2, :3] @ source.cerebellum_mm + frame[2, 3]).min()) - BELOW_CEREBELLUM_MM
    placed = np.eye(4)
    placed[:3, 3] = [*FIRST_MM, np.floor(bottom)]
    size = (*BOX, int(TOP_MM - placed[2, 3]))
    index = np.linalg.inv(source.affine) @ np.linalg.inv(frame) @ placed
    classes = ndimage.affine_transform(source.classes, index[:3, :3], index[:3, 3], size, order=0)
    head = classes > 0
    ends = [np.flatnonzero(head.any(tuple({0, 1, 2} - {k})))[[0, -1]] for k in range(3)]
    box = [slice(max(int(a) - MARGIN_MM, 0) // 2 * 2, int(b) + MARGIN_MM) for a, b in ends]
    box[2] = slice(0, box[2].stop)
    placed[:3, 3] += [part.start for part in box]
    return np.ascontiguousarray(classes[tuple(box)]), placed, frame


def shipped(
    source: Source, classes: NDArray[np.uint8], placed: Matrix, frame: Matrix, rng: np.random.Generator
) -> Volume:
    """Fractions (8, X, Y, Z) of the shipped map."""
    index = np.linalg.inv(source.affine) @ np.linalg.inv(frame) @ placed
    native, start = cropped(source.classes, index, classes.shape)
    index[:3, 3] -= start
    leads = smoothed_classes(native, index, classes.shape)
    return mixed(leads, layers_of(classes, placed, rng))


def cropped(native: NDArray[np.uint8], index: Matrix, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], Matrix]:
    """The part of the native classes that a turned box of `shape` needs, and its first voxel."""
    corners = np.array(np.meshgrid(*[(0, side) for side in shape], indexing="ij")).reshape(3, -1)
    reached = index[:3, :3] @ corners + index[:3, 3:]
    low = np.clip(np.floor(reached.min(1)) - 3, 0, None).astype(int)
    high = np.ceil(reached.max(1)).astype(int) + 4
    return native[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], low.astype(float)


Boxed = tuple[tuple[slice, ...], Volume]


def smoothed_classes(native: NDArray[np.uint8], index: Matrix, shape: tuple[int, ...]) -> dict[str, Boxed]:
    """The smoothed indicator of every class in the turned box of `shape`, each in its own bounding box there."""
    found: dict[str, Boxed] = {}
    for number, name in enumerate(NAMES):
        mask = native == number
        if not mask.any():
            continue
        ends = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {k})))[[0, -1]] for k in range(3)]
        own = tuple(slice(max(int(a) - 4, 0), int(b) + 5) for a, b in ends)
        sigma = SMOOTH_THIN if name in THIN else SMOOTH_VOXELS
        smooth = ndimage.gaussian_filter(mask[own].astype(np.float32), sigma, truncate=3)
        corners = np.array(np.meshgrid(*[(part.start, part.stop) for part in own], indexing="ij")).reshape(3, -1)
        reached = np.linalg.inv(index[:3, :3]) @ (corners - index[:3, 3:])
        low = np.clip(np.floor(reached.min(1)).astype(int), 0, shape)
        high = np.clip(np.ceil(reached.max(1)).astype(int) + 1, 0, shape)
        if (high <= low).any():
            continue
        offset = index[:3, :3] @ low + index[:3, 3] - [part.start for part in own]
        edge = "nearest" if name == "air" else "constant"
        part = ndimage.affine_transform(smooth, index[:3, :3], offset, tuple(high - low), order=1, mode=edge)
        found[name] = tuple(slice(a, b) for a, b in zip(low, high, strict=True)), part
    return found


def mixed(classes: dict[str, Boxed], layers: Layers) -> Volume:
    """Fractions (8, X, Y, Z): every class by its lead over the strongest other one, then skin, fat and eyes."""
    shape = layers.depth.shape
    first, second = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for box, part in classes.values():
        np.maximum(second[box], np.minimum(first[box], part), out=second[box])
        np.maximum(first[box], part, out=first[box])
    total = np.full(shape, 1e-6, np.float32)
    for name, (box, part) in classes.items():
        other = np.where(part == first[box], second[box], first[box])
        classes[name] = box, np.where(part > 0, np.clip(0.5 + RAMP / 2 * (part - other), 0, 1), 0).astype(np.float32)
        total[box] += classes[name][1]
    core = np.clip(0.5 + layers.depth - layers.skin_mm - FAT_MM, 0, 1)
    fractions = np.zeros((len(ALL_TISSUES), *shape), np.float32)

    def add(box: tuple[slice, ...], part: Volume, mixture: Mapping[str, float]) -> None:
        for tissue, share in mixture.items():
            fractions[ALL_TISSUES.index(tissue)][box] += np.float32(share) * part

    for name, (box, part) in classes.items():
        share = part / total[box] * core[box]
        if name == "air":
            share = np.where(layers.outside[box], share, 0)
        if name in ("soft", "air"):
            fatty = layers.fatty[box]
            add(box, share * fatty, MIXTURES["fat"])
            add(box, share * (1 - fatty), MIXTURES["soft"])
        elif name == "eye":
            dark = layers.eye_wall[box]
            add(box, share * dark, MIXTURES["soft"])
            add(box, share * (1 - dark), MIXTURES["eye"])
        else:
            add(box, share, MIXTURES[name])
    everywhere = (slice(None),) * 3
    skin = np.clip(0.5 + layers.depth, 0, 1) - np.clip(0.5 + layers.depth - layers.skin_mm, 0, 1)
    add(everywhere, skin, MIXTURES["soft"])
    add(everywhere, np.clip(0.5 + layers.depth - layers.skin_mm, 0, 1) - core, MIXTURES["fat"])
    return fractions


def layers_of(classes: NDArray[np.uint8], placed: Matrix, rng: np.random.Generator) -> Layers:
    """The surface and what lies under it; most of it is found at 2 mm, as it is smooth."""
    coarse = classes[::2, ::2, ::2]
    eyes = largest_two(coarse == NUMBER["eye"])
    brain = np.isin(coarse, [NUMBER[name] for name in BRAIN])
    middle = float(np.argwhere(brain)[:, 1].mean())
    old = largest(coarse > 0)
    depth = resized(2 * surface_depth(old, eyes, (-placed[0, 3] / 2, middle), 2.0), classes.shape)
    skin = Skin(float(rng.uniform(1.4, 2.0)), float(rng.uniform(2.4, 5.0)), 0.28)
    thickness = fat_thickness(classes.shape, rng, skin, 2 * float(np.argwhere(eyes)[:, 2].mean()))
    orbit = np.isin(coarse, [NUMBER[name] for name in ("eye", "eye_muscle", "optic_nerve")])
    orbit[:, : int(np.argwhere(eyes)[:, 1].mean() - ORBIT_DEPTH_MM / 2)] = False
    near = resized(ORBIT_MM - 2 * ndimage.distance_transform_edt(~orbit), classes.shape)
    under = np.clip(0.5 + thickness + skin.skin_mm - depth, 0, 1)
    bone = np.isin(classes, [NUMBER[name] for name in ("bone", "marrow")])
    under[ndimage.binary_dilation(bone)] = 0  # galea and pericranium, dark between fat and skull
    fatty = np.maximum(under, np.clip(0.5 + np.minimum(near, depth - 5), 0, 1))
    fatty = np.maximum(fatty, fat_between(classes.shape, rng) * np.clip(0.5 + depth - 5, 0, 1))
    closed = ndimage.binary_closing(np.pad(old, 4, mode="edge"), iterations=3)[4:-4, 4:-4, 4:-4]
    outside = resized((~closed).astype(np.float32), classes.shape) > 0.5
    return Layers(depth, skin.skin_mm, fatty.astype(np.float32), outside, eye_walls(eyes, classes.shape))


def resized(coarse: NDArray, shape: tuple[int, ...]) -> Volume:
    """Values of every second voxel, interpolated in all voxels of `shape`."""
    return ndimage.affine_transform(coarse, np.full(3, 0.5), 0, shape, np.float32, order=1, mode="nearest")


def largest_two(mask: Mask) -> Mask:
    """The two largest components: eyes."""
    label, _ = ndimage.label(mask)
    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    return np.asarray(np.isin(label, np.argsort(sizes)[-2:]) & mask)


def eye_walls(eyes: Mask, shape: tuple[int, ...]) -> Volume:
    """Lens, sclera and cornea of both eyes (X, Y, Z), dark in the fluid; found from their halved mask."""
    walls = np.zeros(shape, np.float32)
    label, count = ndimage.label(eyes)
    offset = np.indices(shape, np.float32, sparse=True)
    for number in range(1, count + 1):
        voxels = np.argwhere(label == number)
        centre = 2 * voxels.mean(0)
        radius = 2 * (len(voxels) * 3 / (4 * np.pi)) ** (1 / 3)
        box = tuple(slice(max(int(c - radius - 5), 0), int(c + radius + 6)) for c in centre)
        x, y, z = (np.take(offset[k], range(box[k].start, min(box[k].stop, shape[k])), k) - centre[k] for k in range(3))
        wall = np.clip(0.5 + np.sqrt(x**2 + y**2 + z**2) - radius + SCLERA_MM, 0, 1)
        to_lens = np.sqrt((x / LENS_MM[0]) ** 2 + ((y - radius + 4.2) / LENS_MM[1]) ** 2 + (z / LENS_MM[2]) ** 2)
        walls[box] = np.maximum(walls[box], np.maximum(wall, np.clip(0.5 + LENS_MM[1] * (1 - to_lens), 0, 1)))
    return walls


# --- packing -----------------------------------------------------------------------------------------------------


def quantised(fractions: Volume) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Codes (Z, Y, X) and the table (codes, 8) of the fractions in units of 1 / `PACKED_STEPS`, by largest remainders.

    Combinations beyond the table's 256 rows are replaced by the nearest row.
    """
    flat = fractions.transpose(3, 2, 1, 0).reshape(-1, len(ALL_TISSUES))
    whole = np.concatenate([flat, np.clip(1 - flat.sum(1, keepdims=True), 0, 1)], 1) * PACKED_STEPS
    steps = np.floor(whole + 1e-4)
    rest = whole - steps
    for _ in range(PACKED_STEPS):
        short = np.flatnonzero(steps.sum(1) < PACKED_STEPS)
        if not len(short):
            break
        pick = rest[short].argmax(1)
        steps[short, pick] += 1
        rest[short, pick] -= 1
    keys = steps.astype(np.int64) @ (PACKED_STEPS + 1) ** np.arange(steps.shape[1])
    unique, first, inverse, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    rows = steps[first]
    order = np.argsort(-count, kind="stable")[:LARGEST_TABLE]
    order = np.sort(order)
    code = np.abs(rows[:, None] - rows[order][None]).sum(2).argmin(1).astype(np.uint8)
    table = rows[order, : len(ALL_TISSUES)].astype(np.uint8)
    assert len(unique) == len(code)
    return code[inverse].reshape(fractions.shape[:0:-1]), table


if __name__ == "__main__":
    run_cli(main, "derive_heads.py")
