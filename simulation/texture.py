"""Variation inside tissues: proton density, T1 and T2 differ from place to place, over millimetres and centimetres.

It belongs to the person, not to the scan: the same in both fields and in the truth. Signals follow it by their
sequence's physics, to first order: S(1 + u) = S + u dS/du, with slopes by central differences of `Sequence.signal`.

Four maps in template coordinates vary the tissues:

- `water`: composition. A step of 1 is that from white to grey matter: T1 and proton density change by the ratio these
  two have at the field, so the same tissue has less T1 contrast at 64 mT than at 3 T.
- `t2`: log T2 and log T2*, partly correlated with `water`.
- `white`, `cortex`: differences between structures that all people share, as Gaussians and a front-to-back slope.

Strengths are set against real volumes: docs/simulator.md, "Texture". Sources: docs/facts.md section 1.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import fft

from simulation.anatomy import HEAD_CENTRE_MM
from simulation.deformation import SmoothField, draw_field
from simulation.sequences import Sequence
from simulation.tissue import Tissue, tissues_at

Array = NDArray[np.float32]
Points = NDArray[np.float64]

MAPS = ("water", "t2", "white", "cortex")
RANDOM = MAPS[:2]  # drawn for every person; the others are the same in all
SMOOTH_MM = 25.0  # spacing of the smooth part's control points; what is finer comes from the tile
TILE = 108  # voxels a side of the fine part, which repeats itself beyond
TILE_MM = 1.0
# Standard deviation of log T2 in white matter within an octave of wavelengths around each of these, in three dimensions
# [set against real volumes]. The smooth part's is that of its control points.
WAVELENGTHS_MM = (2.0, 4.0, 8.0, 16.0, 32.0)
OCTAVE_STD = (0.022, 0.028, 0.025, 0.023, 0.023)
SMOOTH_STD = 0.022
WATER_PER_T2 = 2.2  # of `water`, in steps, relative to log T2: T1 at 3 T then varies by 1.2 times as much as T2
CORRELATION = 0.5  # of `t2` with `water`: more water lengthens both T1 and T2 [I]
# Strength of the random maps relative to white matter, 1 if not named. Fluids hardly vary; muscle and fat are streaked
# by septa and fascicles [I].
STRENGTH = {"csf": 0.2, "gm": 1.2, "fat": 2.0, "soft": 3.0}
SLOPE_STEP = 0.02  # of the finite differences
STRUCTURES = {"wm": "white", "gm": "cortex"}
T1_PER_T2 = {"white": 0.5, "cortex": 1.0}  # log T1 relative to log T2 in the maps of structures [I]
# Front-to-back slope of log T2 per 100 mm, positive if longer in front. Cortex: frontal 76, occipital 68 ms at 3 T [V];
# white matter: longer in the occipital lobe [M].
SLOPE_PER_100_MM = {"white": -0.04, "cortex": 0.07}
# x, y, z in mm from the embedded head's centre (mirrored to both sides), radius (Gaussian's std) in mm, change of
# log T2. Cortex: heavily myelinated areas, T1 and T2 shorter. White: corticospinal tract longer, corpus callosum
# shorter [M].
BUMPS = {
    "white": (
        (25.0, 0.0, 0.0, 8.0, 0.07), (24.0, -5.0, 18.0, 9.0, 0.05), (32.0, -45.0, 0.0, 10.0, 0.04),
        (6.0, 45.0, -4.0, 8.0, -0.06), (7.0, -20.0, 2.0, 8.0, -0.05),
    ),
    "cortex": (
        (38.0, -5.0, 42.0, 14.0, -0.06), (10.0, -68.0, -8.0, 16.0, -0.07), (50.0, -3.0, -4.0, 12.0, -0.05),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Texture:
    """One person's random maps: the smooth field of `RANDOM` and white noise (2, TILE, TILE, TILE), in (z, y, x).

    `strength` multiplies all maps, those that people share too; 0: tissues without texture.
    """

    smooth: SmoothField
    noise: Array
    strength: float = 1.0

    def tile(self, thickness_mm: float) -> Array:
        """The fine part (2, TILE, TILE, TILE), averaged over slices of this thickness along z; periodic."""
        k = np.fft.fftfreq(TILE, TILE_MM).astype(np.float32)
        kz, ky, kx = k[:, None, None], k[None, :, None], k[None, None, : TILE // 2 + 1]
        radius = np.sqrt(kz**2 + ky**2 + kx**2)
        radius[0, 0, 0] = 1  # any number, as the mean is removed below
        # Per octave the variance is ln 2 times 4 pi k^3 times the density of the spectrum.
        octave = np.interp(np.log(1 / radius), np.log(WAVELENGTHS_MM), OCTAVE_STD).astype(np.float32)
        octave *= radius > 1 / (WAVELENGTHS_MM[-1] * math.sqrt(2))
        octave[0, 0, 0] = 0
        weight = octave / np.sqrt(4 * math.pi * math.log(2) * (radius * TILE_MM) ** 3) * np.sinc(kz * thickness_mm)
        spectrum = fft.rfftn(self.noise, axes=(1, 2, 3)) * weight.astype(np.float32)
        return np.asarray(fft.irfftn(spectrum, s=self.noise.shape[1:], axes=(1, 2, 3)), np.float32)

    def smooth_at(self, head_mm: Points, template_mm: Points) -> NDArray[np.float64]:
        """The maps (4, ...) in the order of `MAPS` without their fine part.

        `head_mm`, `template_mm` (3, ...): the same points, from the head's centre and in the embedded head.
        """
        from_centre = template_mm - HEAD_CENTRE_MM.reshape(3, *[1] * (template_mm.ndim - 1))
        y = np.clip(from_centre[1] / 100, -1, 1)
        shared = [SLOPE_PER_100_MM[name] * y + _bumps(name, from_centre) for name in MAPS[2:]]
        return self.strength * np.stack([*_mixed(self.smooth.at(head_mm)), *shared])

    def fine_sampler(self, thickness_mm: float) -> Callable[[Array], Array]:
        """A function from points (3, n, Y, X), mm from the head's centre, to the random maps' fine part (2, ...)."""
        wrapped = np.pad(
            np.float32(self.strength) * _mixed(self.tile(thickness_mm)), [(0, 0), *[(0, 1)] * 3], mode="wrap"
        )
        tile = torch.from_numpy(np.ascontiguousarray(wrapped.transpose(1, 2, 3, 0))).permute(3, 0, 1, 2)[None]

        def sample(head_mm: Array) -> Array:
            at = torch.from_numpy(head_mm * np.float32(1 / (TILE * TILE_MM)))
            at = (2 * (at - at.floor()) - 1).permute(1, 2, 3, 0)[None]
            sampled = F.grid_sample(tile, at, mode="bilinear", padding_mode="border", align_corners=True)
            return np.asarray(sampled[0].numpy())

        return sample


def draw_texture(rng: np.random.Generator) -> Texture:
    """One person's texture."""
    smooth = draw_field(rng, len(RANDOM), SMOOTH_MM, SMOOTH_STD)
    return Texture(smooth, rng.standard_normal((len(RANDOM), TILE, TILE, TILE), np.float32))


def _mixed(independent: NDArray) -> NDArray:
    """`water` and `t2` (2, ...) from two independent fields of equal strength."""
    own = math.sqrt(1 - CORRELATION**2)
    return np.stack([WATER_PER_T2 * independent[0], CORRELATION * independent[0] + own * independent[1]])


def _bumps(name: str, head_mm: Points) -> NDArray[np.float64]:
    total = np.zeros(head_mm.shape[1:])
    for x, y, z, radius, change in BUMPS[name]:
        squared = (np.abs(head_mm[0]) - x) ** 2 + (head_mm[1] - y) ** 2 + (head_mm[2] - z) ** 2
        total += change * np.exp(-squared / (2 * radius**2))
    return total


@cache
def responses(
    sequence: Sequence, b0_t: float, name: str, b1: tuple[float, ...] = (1.0,)
) -> Mapping[str, NDArray[np.float64]]:
    """Slope (n,) of a tissue's signed signal with every map that varies it, at transmit factors `b1` (n,).

    Computed for the usual tissue, not for each person's own, which changes a slope by a tenth of itself at most.
    """
    usual, factors, found = tissues_at(b0_t, names=(name,))[name], np.array(b1), {}
    for key, changes in _directions(b0_t, name).items():
        more, less = (sequence.signal(_changed(usual, changes, sign * SLOPE_STEP), factors) for sign in (1, -1))
        found[key] = (more - less) / (2 * SLOPE_STEP)
    return found


def _directions(b0_t: float, name: str) -> dict[str, Mapping[str, float]]:
    """Change of the logarithm of each parameter of a tissue per unit of each map."""
    usual, strength = tissues_at(b0_t), STRENGTH.get(name, 1.0)
    grey, white = usual["gm"], usual["wm"]
    step = {key: strength * math.log(getattr(grey, key) / getattr(white, key)) for key in ("t1_ms", "pd")}
    found: dict[str, Mapping[str, float]] = {"water": step, "t2": {"t2_ms": strength, "t2star_ms": strength}}
    if shared := STRUCTURES.get(name):
        found[shared] = {"t2_ms": 1.0, "t2star_ms": 1.0, "t1_ms": T1_PER_T2[shared]}
    return found


def _changed(tissue: Tissue, changes: Mapping[str, float], amount: float) -> Tissue:
    factors = {f.name: math.exp(amount * changes.get(f.name, 0.0)) for f in fields(Tissue)}
    return replace(tissue, **{key: getattr(tissue, key) * factor for key, factor in factors.items()})
