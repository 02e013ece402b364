"""The bytes of NIfTI files, good ones and others, for the tests of reading them."""

from __future__ import annotations

import nibabel
import numpy as np
from numpy.typing import NDArray

SHAPE = (20, 24, 6)
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def head() -> NDArray[np.float32]:
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return (((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1) * (800 + 400 * x * y)).astype(np.float32)


def encoded(volume: NDArray | None = None, **fields: object) -> bytes:
    """The bytes of a .nii file whose header fields are overwritten, whatever sense that makes."""
    header = nibabel.Nifti1Header()
    image = nibabel.Nifti1Image(head() if volume is None else volume, AFFINE, header)
    content = bytearray(image.to_bytes())
    raw = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        raw[name] = value
    content[:348] = raw.binaryblock
    return bytes(content)


def with_nan() -> NDArray[np.float32]:
    volume = head()
    volume[3, 3, 3] = np.nan
    return volume
