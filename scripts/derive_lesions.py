"""Derive simulation/lesion_shapes.npz from masks of real white-matter lesions in MNI space.

python -m scripts.derive_lesions FOLDER

FOLDER holds `ms_lesions_mni_NN.nii.gz`: one patient each, 1 mm, from "A novel public MR image dataset of multiple
sclerosis patients with lesion segmentations based on multi-rater consensus", Lesjak et al., Neuroinformatics 2018,
CC-BY (see NOTICE). Every connected lesion of at least 6 voxels is kept as it is, with the place of its anchor relative
to the embedded head's centre and the anchor's distance from the embedded head's lateral ventricles. The embedded head
lies in MNI space too. The same masks give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulation.anatomy import HEAD_CENTRE_MM, load_anatomy
from simulation.hyperintensities import SHAPES, ventricle_distance
from util.errors import UserError, run_cli
from util.schema import CommandLine

LEAST_VOXELS = 6  # smaller ones are mostly edges of the raters' outlines
TOUCHING = np.ones((3, 3, 3))  # voxels that share a corner belong to one lesion


def main(argv: Sequence[str]) -> None:
    """Read the command line and write the file."""
    parser = CommandLine(prog="derive_lesions", description=__doc__)
    parser.add_argument("folder", help="folder of the masks")
    parser.add_argument("--out", default=str(SHAPES), help=f"[default: {SHAPES.name} of the simulator]")
    options = parser.parse_args(argv)
    files = sorted(Path(options.folder).glob("ms_lesions_mni_*.nii.gz"))
    if not files:
        raise UserError(f"{options.folder}: no ms_lesions_mni_*.nii.gz there")
    lesions = [lesion for file in files for lesion in lesions_of(file)]
    lesions.sort(key=lambda lesion: (-lesion[0].sum(), *lesion[2]))
    save(Path(options.out), lesions)
    print(f"{len(lesions)} lesions of {len(files)} patients, {Path(options.out).stat().st_size / 1e3:.0f} kB")


Lesion = tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64], float]  # voxels, anchor, place, distance


def lesions_of(file: Path) -> list[Lesion]:
    """Every lesion of one patient: voxels, anchor in them, its place from the head's centre, distance to ventricles."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_filename(file))
    if not np.allclose(image.header.get_zooms(), 1):
        raise UserError(f"{file}: voxels of {image.header.get_zooms()} mm, need 1 mm")
    labels, _ = ndimage.label(np.asarray(image.dataobj) > 0, TOUCHING)
    distance, affine = ventricle_distance(load_anatomy())
    found: list[Lesion] = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == number
        if inside.sum() < LEAST_VOXELS:
            continue
        voxels = np.argwhere(inside)
        anchor = voxels[np.linalg.norm(voxels - voxels.mean(0), axis=1).argmin()]
        mm = image.affine[:3, :3] @ (anchor + [part.start for part in box]) + image.affine[:3, 3]
        index = np.rint(np.linalg.inv(affine)[:3] @ [*mm, 1]).astype(int)
        index = np.clip(index, 0, np.array(distance.shape) - 1)
        found.append((inside, anchor, mm - HEAD_CENTRE_MM, float(distance[tuple(index)])))
    return found


def save(path: Path, lesions: Sequence[Lesion]) -> None:
    """Write the shapes as bits, and a row of each table for every shape."""
    np.savez_compressed(
        path,
        bits=np.packbits(np.concatenate([inside.ravel() for inside, *_ in lesions])),
        sizes=np.array([inside.shape for inside, *_ in lesions], np.uint8),
        anchors=np.array([anchor for _, anchor, *_ in lesions], np.uint8),
        places_mm=np.array([place for *_, place, _ in lesions], np.float32),
        distances_mm=np.array([distance for *_, distance in lesions], np.float32),
    )


if __name__ == "__main__":
    run_cli(main, "derive_lesions")
