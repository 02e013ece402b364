"""Small made-up heads in a data folder with truth, for the tests of what `test.py` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.folder.manifest import Manifest, SliceEntry, VolumeEntry, write_manifest
from data.folder.slices import slice_name, write_image, write_mask

SHAPE = (44, 40)  # pixels
N_SLICES = 5


def head(seed: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """A smooth ellipse whose inside depends on the level in [0, 1]: image (H, W) in [0, 1] and its mask."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    wobble = 0.1 * np.sin(seed)
    mask = ((x - 20) / 15) ** 2 + ((y - 22) / 18) ** 2 < 1
    inside = 0.5 + 0.3 * np.sin(x / 5 + 6 * level) * np.cos(y / (6 + wobble)) + 0.1 * level
    return (inside * mask).astype(np.float32), mask


def write_domain(root: Path, split: str, domain: str, subjects: list[str], *, truth: bool = False) -> list[VolumeEntry]:
    """Slices, masks and truths of one folder; A is dimmed and noisy. Level 40 mm from the first to the last slice."""
    entries = []
    kinds = ["", "_mask", *(["_truth", "_truth_mask"] if truth else [])]
    for kind in kinds:
        (root / f"{split}{domain}{kind}").mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        rng = np.random.default_rng(ord(subject[-1]))
        levels = np.linspace(0.1, 0.9, N_SLICES)
        for index, level in enumerate(levels, start=2):
            clean, mask = head(ord(subject[-1]), level)
            shown = np.clip(0.6 * clean + rng.normal(0, 0.05, SHAPE), 0, 1) if domain == "A" else clean
            name = slice_name(subject, index)
            write_image(root / f"{split}{domain}" / name, shown.astype(np.float32), 16)
            write_mask(root / f"{split}{domain}_mask" / name, mask)
            if truth:
                write_image(root / f"{split}{domain}_truth" / name, clean, 16)
                write_mask(root / f"{split}{domain}_truth_mask" / name, mask)
        slices = [
            SliceEntry(index, slice_name(subject, index), float(level), 50 * float(level))
            for index, level in enumerate(levels, start=2)
        ]
        affine = np.diag([-1.0, 1.0, 5.0, 1.0]).tolist()
        entries.append(
            VolumeEntry(
                subject=subject,
                split=split,
                domain=domain,
                source=f"{subject}.nii.gz",
                shape=[SHAPE[1], SHAPE[0], N_SLICES + 4],
                affine=affine,
                spacing_mm=[1, 1, 5],
                slice_axis=2,
                window=[0, 1],
                slices=slices,
                sform=affine,
                sform_code=1,
            )
        )
    return entries


def write_heads(root: Path) -> Path:
    """Three test subjects in both domains, with truth; two other training subjects of B; a manifest."""
    names = ["sub-1", "sub-2", "sub-3"]
    entries = write_domain(root, "test", "A", names, truth=True) + write_domain(root, "test", "B", names)
    entries += write_domain(root, "train", "B", ["sub-8", "sub-9"])
    write_manifest(root, Manifest("simulated", entries))
    return root
