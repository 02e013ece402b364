"""Small made-up NIfTI volumes, for the tests of what `preprocessing_images.py` does with whole folders."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

SHAPE = (36, 40, 12)
SPACING = (1.0, 1.0, 4.0)
SUBJECTS = 3


def write_volumes(root: Path, *, flat: str | None = None) -> list[str]:
    """Three ellipsoids in each of A and B. Returns the command line that names them.

    Args: flat: this one, e.g. `a1`, has a good header and no contrast, so only slicing finds out that it is bad.
    """
    rng = np.random.default_rng(0)
    x, y, z = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    head = ((x - 18) / 14) ** 2 + ((y - 20) / 16) ** 2 + ((z - 6) / 5) ** 2 < 1
    for domain in ("A", "B"):
        (root / domain).mkdir(parents=True)
        for number in range(SUBJECTS):
            name = f"{domain.lower()}{number}"
            inside = 100 + 50 * np.sin(x / 4 + number) + rng.normal(0, 5, SHAPE)
            volume = np.full(SHAPE, 7) if name == flat else np.where(head, inside, 0)
            image = nibabel.Nifti1Image(volume.astype(np.float32), np.diag([*SPACING, 1.0]))
            nibabel.save(image, root / domain / f"{name}.nii.gz")
    return ["--input_A", str(root / "A"), "--input_B", str(root / "B")]
