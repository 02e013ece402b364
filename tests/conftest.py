"""Shared fixtures: a tiny phantom data folder, and options small enough for a laptop's second."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import data.cache.slice_cache
from data.folder.slice_folder import SliceFolder
from data.folder.slices import read_image, slice_name, write_image, write_mask
from models import MODELS

SIDE = 32
SMALL_SGP = [
    "--sgp_input=32",
    "--sgp_patch=8",
    "--sgp_width=32",
    "--sgp_depth=1",
    "--sgp_heads=2",
    "--sgp_embedding=16",
]
PTA = ("pta_hybrid", "pta_cyclegan", "pta_unet")
SMALL_LSC = ["--lsc_blocks=8", "--lsc_features=2"]
SMALL_HYBRID = ["--hybrid_width=24", "--hybrid_depth=2", "--hybrid_heads=2", "--hybrid_mlp=32", "--hybrid_patch=8"]
SMALL_NETWORKS = [*SMALL_HYBRID, "--hybrid_features=4", "--netD=pixel", "--ndf=4"]
QUICK_GENERATOR = "unet_32"  # a training with it takes a third of the time that one with the hybrid takes


def phantom_slice(level: float, domain: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A head-like ellipse whose ventricle and width follow the level; A is noisy and flat, B clean and contrasty."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    radius = np.sqrt((x / (0.5 + 0.35 * np.sin(np.pi * (0.15 + 0.7 * level)))) ** 2 + (y / 0.85) ** 2)
    mask = radius < 1
    ventricle = ((x / (0.1 + 0.3 * level)) ** 2 + ((y - 0.4 + 0.8 * level) / 0.25) ** 2) < 1
    image = (
        np.where(mask, 0.45, 0.0) + np.where(mask & ventricle, 0.4, 0.0) - np.where(mask & (radius > 0.85), 0.3, 0.0)
    )
    if domain == "A":
        image = 0.6 * image + 0.15 * mask + rng.normal(0, 0.06, image.shape)
    return np.clip(image, 0, 1).astype(np.float32), mask


def write_phantom(
    root: Path, *, subjects: int = 2, slices: int = 6, splits: tuple[str, ...] = ("train", "val", "test")
) -> Path:
    """A data folder laid out as dataset/README.md says, without manifest."""
    rng = np.random.default_rng(0)
    for split in splits:
        for domain in ("A", "B"):
            folder = root / f"{split}{domain}"
            folder.mkdir(parents=True)
            (root / f"{split}{domain}_mask").mkdir()
            for subject in range(subjects):
                for index in range(slices + (domain == "B")):
                    level = (index + 0.5) / (slices + (domain == "B"))
                    image, mask = phantom_slice(level, domain, rng)
                    name = slice_name(f"{split}{domain}{subject}", index)
                    write_image(folder / name, image, 8)
                    write_mask(root / f"{split}{domain}_mask" / name, mask)
    return root


def write_truths(root: Path) -> Path:
    """Beside every slice of A its truth, which is the slice with more contrast and no noise to speak of."""
    for folder in (root / "trainA", root / "valA", root / "testA"):
        truth = folder.with_name(f"{folder.name}_truth")
        truth.mkdir()
        for path in folder.glob("*.png"):
            write_image(truth / path.name, np.clip(read_image(path) * 1.5 - 0.1, 0, 1), 8)
    return root


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    """Two subjects of 6 (A) or 7 (B) slices in every split and domain, 32 x 32 pixels."""
    return write_phantom(tmp_path / "phantom")


def train_arguments(dataroot: Path, out: Path, model: str, *extra: str) -> list[str]:
    """Command line of a run that takes a second, without its report and the options that would do nothing with `extra`.

    `--html` brings the report back. Only `pta_hybrid` and `pta_cyclegan` have their own generator.
    """
    common = [
        f"--dataroot={dataroot}",
        f"--checkpoints_dir={out}",
        f"--model={model}",
        "--load_size=32",
        "--gpu_ids=-1",
        "--no_html",
    ]
    given = {flag.partition("=")[0]: flag.partition("=")[2] for flag in extra}
    length = ["--n_epochs=1", "--n_epochs_decay=1", "--amp=off"]
    if int(given.get(f"--{model}_batch_size", 4)) < 16:  # a pretext task's own least size, above the default
        length.append("--batch_size=4")
    small: list[str] = []
    if model in ("sgp", *PTA):
        small += [*SMALL_SGP, *([] if "--sgp_weights" in given else ["--sgp_steps=3", "--sgp_batch_size=4"])]
    if model in ("lsc", *PTA):
        small += [*SMALL_LSC, *([] if "--lsc_weights" in given else ["--lsc_steps=3", "--lsc_batch_size=4"])]
    fields = {field.name: field for field in dataclasses.fields(MODELS[model].Options)}
    if "netG" in fields and model not in ("pta_hybrid", "pta_cyclegan") and "--netG" not in given:
        extra = (*extra, f"--netG={QUICK_GENERATOR}")
        given["--netG"] = QUICK_GENERATOR
    small += [flag for flag in SMALL_NETWORKS if flag[2:].partition("=")[0] in fields]
    if "netG" in fields and given.get("--netG", fields["netG"].default) != "hybrid":
        small = [*(flag for flag in small if not flag.startswith("--hybrid")), "--ngf=4"]
    return [*common, *length, *small, *extra]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders that were packed, one after the other."""
    packed: list[str] = []
    real = data.cache.slice_cache.pack_folder

    def noted(folder: SliceFolder, part: Path) -> tuple:
        packed.append(folder.folder.name)
        return real(folder, part)

    monkeypatch.setattr("data.cache.slice_cache.pack_folder", noted)
    return packed
