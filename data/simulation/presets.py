"""Which scanner and sequence each domain of a simulated benchmark has."""

from __future__ import annotations

from dataclasses import dataclass

from data.simulation.sequences import MPRAGE, Sequence, SpinEcho
from util.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """One scan: field, sequence, and what the scanner does to the image.

    `resolution_mm`: acquired in-plane voxel, zero-filled to the pixel grid (None: the pixel grid itself).
    `snr_wm`: white matter's signal over the standard deviation of one noise channel. `bias_std`: log receive field.
    """

    name: str
    b0_t: float
    sequence: Sequence
    resolution_mm: float | None
    thickness_mm: float
    snr_wm: float
    bias_std: float


@dataclass(frozen=True)
class Preset:
    """An unpaired task: low field (domain A) to high field (domain B)."""

    name: str
    low: Protocol
    high: Protocol


# Hyperfine-like: 1.6 x 1.6 x 5 mm FSE [V2, Leiden paired set], TR/TE 2000/200 [M]. A train of some 400 ms refocused
# well under 180 degrees has the contrast of TE ~130 [I]: CSF, GM and WM then stand to each other as in the published
# 0.055 T FSE slices, which a plain TE of 200 overdoes. SNR as at the low end of the 10 to 17 of these (post-processed)
# slices [I]; receive roll-off [I].
LOW_T2W = Protocol("0.064T T2w", 0.064, SpinEcho(2000, 130, train_ms=400), 1.6, 5.0, snr_wm=11.0, bias_std=0.10)
# Clinical 3 T T2w TSE, TR/TE 4000/90 [M], 15 echoes 10 ms apart [I].
HIGH_T2W = Protocol("3T T2w", 3.0, SpinEcho(4000, 90, train_ms=150), None, 5.0, snr_wm=40.0, bias_std=0.12)
# HCP-like MPRAGE 2400/2.14, TI 1000, flip 8 [M], echo spacing 7.6 ms and 176 echoes a train [M].
HIGH_T1W = Protocol("3T T1w", 3.0, MPRAGE(2400, 1000, 2.14, 8.0, 7.6, 176), None, 5.0, snr_wm=40.0, bias_std=0.12)

PRESETS = {
    preset.name: preset for preset in (Preset("same-contrast", LOW_T2W, HIGH_T2W), Preset("paper", LOW_T2W, HIGH_T1W))
}


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UserError: no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"--simulate {name}: unknown preset, choose from {', '.join(PRESETS)}")
    return PRESETS[name]
