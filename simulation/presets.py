"""Scanner and sequence of each domain of a simulated benchmark; sources in docs/facts.md section 2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from simulation.extent import CROPPED, UPPER_IN_HALF, WHOLE, Coverage
from simulation.sequences import MPRAGE, FastSpinEcho, Sequence, SpinEcho, SpoiledGRE
from util.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """One scan: field strength, sequence, and properties of the scanner.

    `resolution_mm`: acquired in-plane voxel size, zero-filled to the pixel grid; `phase_mm`: the same along phase
    encoding (anterior-posterior), if coarser.
    `thickness_mm`: full width at half maximum of the slice profile; `gap_mm`: gap between slices.
    `partial_fourier`: fraction of the phase-encoding lines that is measured, from 0.5; the rest is zero.
    `coils`: receivers, combined by root sum of squares; 0 for a single one of uniform sensitivity.
    `snr_wm`: white matter's signal over the standard deviation of one noise channel, in the acquired voxel.
    `bias_std`: standard deviation of the log receive field.
    `transmit_drop`: relative drop of the flip angle from the centre to the edge of the head (0 to 1); `receive_drop`:
    the same for the sensitivity, in addition to the random field of `bias_std`.
    `bandwidth_hz`: readout bandwidth per acquired voxel, which determines the fat shift; None: no shift.
    `enlargement`: how much larger the in-plane voxel is than the real protocol's, see `Preset.on_grid`.
    """

    name: str
    b0_t: float
    sequence: Sequence
    resolution_mm: float
    thickness_mm: float
    snr_wm: float
    bias_std: float
    phase_mm: float | None = None
    gap_mm: float = 0.0
    partial_fourier: float = 1.0
    coils: int = 0
    transmit_drop: float = 0.0
    receive_drop: float = 0.0
    bandwidth_hz: float | None = None
    enlargement: float = 1.0

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Sides of the acquired voxel: along the readout, along phase encoding, and the thickness."""
        return self.resolution_mm, self.phase_mm or self.resolution_mm, self.thickness_mm

    def enlarged(self, factor: float, least_mm: float) -> Protocol:
        """The same scan with fewer points and lines: in-plane voxel sides times `factor`, at least `least_mm`.

        SNR is proportional to the voxel's volume and to the square root of the number of measured points (docs/facts.md
        section 2.2), so it rises with the square root of the in-plane area. The time between points stays, and with it
        the shift of fat in mm.
        """
        old_read, old_phase, _ = self.voxel_mm
        read, phase = (max(factor * side, least_mm) for side in (old_read, old_phase))
        return replace(
            self,
            resolution_mm=read,
            phase_mm=phase if self.phase_mm else None,
            snr_wm=self.snr_wm * math.sqrt(read * phase / (old_read * old_phase)),
            bandwidth_hz=self.bandwidth_hz and self.bandwidth_hz * (read / old_read),
            enlargement=self.enlargement * factor,
        )


@dataclass(frozen=True)
class Preset:
    """An unpaired task: low field (domain A) to high field (domain B), and which part of the head each covers."""

    name: str
    low: Protocol
    high: Protocol
    low_coverage: Coverage = CROPPED
    high_coverage: Coverage = CROPPED

    def on_grid(self, pixel_mm: float) -> Preset:
        """The task as it is scanned for slices of `pixel_mm` a pixel; done twice, it changes nothing more.

        Where pixels are larger than B's voxels, both fields' voxels grow in plane by the same factor, so B's are a
        pixel wide and A's stay coarser than B's by the ratio of the protocols.
        """
        factor = max(1.0, pixel_mm / self.high.resolution_mm)
        low, high = (protocol.enlarged(factor, pixel_mm) for protocol in (self.low, self.high))
        return replace(self, low=low, high=high)


# Hyperfine Swoop as in LISA: 1.6 x 1.6 x 5 mm FSE [V2, Leiden paired set], TR/TE 2000/200 [M]. A train of 400 ms with
# refocusing well below 180 degrees has the contrast of TE ~130 [I], which is used here: the ratios of CSF, GM and WM
# then match the published 0.055 T FSE slices, whereas a TE of 200 exaggerates them. SNR at the low end of the 10 to 17
# of these (post-processed) slices [I]; receive roll-off [I].
LOW_T2W = Protocol("0.064T-T2w", 0.064, FastSpinEcho(2000, 130, 40, 10), 1.6, 5.0, snr_wm=11.0, bias_std=0.10)
# The same scanner: TR/TE/TI 1500/6/300 and 4000/190/1400 [M], trains [I]; 1.7 x 1.7 x 5 mm FLAIR [V2].
LOW_T1W = Protocol(
    "0.064T-T1w", 0.064, FastSpinEcho(1500, 6, 16, 6, 120, ti_ms=300), 1.6, 5.0, snr_wm=11.0, bias_std=0.10
)
LOW_FLAIR = Protocol(
    "0.064T-FLAIR", 0.064, FastSpinEcho(4000, 190, 40, 10, 120, ti_ms=1400), 1.7, 5.0, snr_wm=9.0, bias_std=0.10
)
# M4Raw, 0.3 T, four coils: 18 slices of 5 mm every 6 mm, 240 mm field of view, 195 of 256 phase lines; T2w FSE
# 5500/128, 15 echoes 16 ms apart, refocusing 160 degrees, one average, 31.25 kHz over 256 points [V]. SNR calibrated
# to the published repetitions. T1w 500/18.4 [M]. FLAIR 7500/93.6 [M] with TI 2290, which nulls CSF at 0.3 T; a TI of
# 1655 [M] would leave 0.19 of its magnetisation.
M4RAW_T2W = Protocol(
    "0.3T-T2w", 0.3, FastSpinEcho(5500, 128, 15, 16, 160), 240 / 256, 5.0, snr_wm=7.8, bias_std=0.10,
    phase_mm=240 / 195, gap_mm=1.0, coils=4, bandwidth_hz=31_250 / 256,
)  # fmt: skip
M4RAW_T1W = replace(M4RAW_T2W, name="0.3T-T1w", sequence=SpinEcho(500, 18.4), snr_wm=8.0)
M4RAW_FLAIR = replace(
    M4RAW_T2W, name="0.3T-FLAIR", sequence=FastSpinEcho(7500, 93.6, 15, 15.6, 160, ti_ms=2290), snr_wm=7.0
)
# The permanent magnet of Liu et al. 2021, 0.055 T: 3D GRE TR/TE 52/13, flip 40, slices of 10 mm [M]; the FSE as at
# 0.064 T. Voxel sizes from the fall-off of the published slices' spectra, assuming pixels of 1 mm, and SNR from the air
# in these (post-processed) slices [C].
LIU_T2W = replace(LOW_T2W, name="0.055T-T2w", b0_t=0.055, resolution_mm=2.0, thickness_mm=10.0, snr_wm=14.0)
LIU_T1W = Protocol("0.055T-T1w", 0.055, SpoiledGRE(52, 13, 40), 1.3, 10.0, snr_wm=26.0, bias_std=0.10)
# Clinical, as in fastMRI: T2w TSE 4000/90 [M], 15 echoes 10 ms apart [I]; T1w SE 500/14 [M]; FLAIR 9000/110 [M] with
# the TI that nulls CSF [C]. Voxels of 1 mm in plane [I]: clinical ones are 0.5 to 1 mm.
CLINICAL_T2W = Protocol("1.5T-T2w", 1.5, FastSpinEcho(4000, 90, 15, 10), 1.0, 5.0, snr_wm=25.0, bias_std=0.10)
CLINICAL_T1W = replace(CLINICAL_T2W, name="1.5T-T1w", sequence=SpinEcho(500, 14))
CLINICAL_FLAIR = replace(CLINICAL_T2W, name="1.5T-FLAIR", sequence=FastSpinEcho(9000, 110, 22, 10, 150, ti_ms=2480))
HIGH_T2W = Protocol("3T-T2w", 3.0, FastSpinEcho(4000, 90, 15, 10), 1.0, 5.0, snr_wm=40.0, bias_std=0.12)
# The same with a gap of 30 % of the thickness, at the upper end of clinical ones [I].
HIGH_T2W_GAP = replace(HIGH_T2W, name="3T-T2w-gap", gap_mm=1.5)
# The same with voxels of 0.7 mm, as in fastMRI and HCP [M], measured as often: 0.7 times the SNR [C].
HIGH_T2W_FINE = replace(HIGH_T2W, name="3T-T2w-fine", resolution_mm=0.7, snr_wm=28.0)
# HCP-like MPRAGE 2400/2.14, TI 1000, flip 8 [M], echo spacing 7.6 ms and 176 echoes per train [M].
HIGH_T1W = Protocol("3T-T1w", 3.0, MPRAGE(2400, 1000, 2.14, 8.0, 7.6, 176), 1.0, 5.0, snr_wm=40.0, bias_std=0.12)
# The same with thin slices, and at 7 T: TR 2500, TI 1100, TE 3, flip 7 [M], 160 echoes 7 ms apart [I], 0.7 mm in plane
# [M]. Transmit field 42 % lower at the edge [V, Vaughan 2001]; half of that for the receivers, which surround the head
# [I]; SNR 2.3 times that at 3 T (linear in B0, the cautious exponent of docs/facts.md section 2.2), times 0.7 for the
# smaller voxel [C].
THIN_T1W = replace(HIGH_T1W, name="3T-T1w-thin", thickness_mm=2.0, snr_wm=20.0)
ULTRA_T1W = Protocol(
    "7T-T1w", 7.0, MPRAGE(2500, 1100, 3.0, 7.0, 7.0, 160), 0.7, 2.0, snr_wm=32.0, bias_std=0.15,
    transmit_drop=0.42, receive_drop=0.21,
)  # fmt: skip

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        LIU_T2W, LIU_T1W, LOW_T2W, LOW_T1W, LOW_FLAIR, M4RAW_T2W, M4RAW_T1W, M4RAW_FLAIR, CLINICAL_T2W, CLINICAL_T1W,
        CLINICAL_FLAIR, HIGH_T2W, HIGH_T2W_GAP, HIGH_T2W_FINE, HIGH_T1W, THIN_T1W, ULTRA_T1W,
    )
}  # fmt: skip
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("same-contrast", LOW_T2W, HIGH_T2W),
        Preset("paper", LOW_T2W, HIGH_T1W),
        Preset("coverage", LOW_T2W, HIGH_T2W_GAP, WHOLE, UPPER_IN_HALF),
        Preset("m4raw-to-3T", M4RAW_T2W, HIGH_T2W_FINE),
        Preset("3T-to-7T", THIN_T1W, ULTRA_T1W),
    )
}


def find_preset(name: str) -> Preset:
    """The preset named `name`.

    Raises:
        UserError: an unknown preset.
    """
    if name not in PRESETS:
        raise UserError(f"--simulate {name}: unknown preset, choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def with_timings(protocol: Protocol, flags: str, **timings: float | None) -> Protocol:
    """The protocol with other timings `tr_ms`, `te_ms`, `ti_ms`, `flip_deg`; None keeps a timing.

    Raises:
        UserError naming `flags`: the sequence does not have the timing, or its value is not allowed.
    """
    sequence: Any = protocol.sequence
    given = _given(timings)
    known = {field.name for field in fields(sequence)}
    for name in given.keys() - known:
        kind = type(sequence).__name__
        raise UserError(f"{flags}: {protocol.name} is a {kind}, which has no {name}; it has {', '.join(sorted(known))}")
    try:
        return _named(protocol, given, sequence=replace(sequence, **given))
    except UserError as error:
        raise UserError(f"{flags}: {error}") from error


def with_acquisition(protocol: Protocol, **settings: float | None) -> Protocol:
    """The protocol with another `thickness_mm`, `partial_fourier` or `snr_wm`; None keeps a setting.

    A new thickness scales the SNR in proportion, as it does the voxel, unless `snr_wm` is given. The gap stays.
    """
    given = _given(settings)
    changed = dict(given)
    if "thickness_mm" in given:
        changed.setdefault("snr_wm", protocol.snr_wm * given["thickness_mm"] / protocol.thickness_mm)
    return _named(protocol, given, **changed)


def _given(settings: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in settings.items() if value is not None}


def _named(protocol: Protocol, given: Mapping[str, float], **changes: Any) -> Protocol:
    """The protocol with `changes`, and with the given settings in its name: `3T-T2w[te=120]`."""
    if not given:
        return protocol
    label = ",".join(f"{name.rsplit('_', 1)[0]}={value:g}" for name, value in given.items())
    return replace(protocol, name=f"{protocol.name}[{label}]", **changes)
