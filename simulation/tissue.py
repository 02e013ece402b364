"""Relaxation times and proton density of tissues and of lesions at any field strength.

Tables and references: docs/facts.md section 1. Grades: V read in the source, V2 quoted by a second source, C computed,
I inferred, M from memory.
Measured values are interpolated linearly in log B0. The Rooney power law is not used below 0.3 T: extrapolated to 64 mT
it makes T1 of WM about 25 % too short and doubles the T1 contrast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulation.anatomy import FURTHER, LESIONS, TISSUES
from util.errors import UserError


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms and proton density relative to CSF.

    `flow`: share of the spins that leave the slice between one pulse and the next, see `sequences.py`.
    """

    t1_ms: float
    t2_ms: float
    t2star_ms: float
    pd: float
    flow: float = 0.0


FIELDS_T = (0.064, 0.3, 1.5, 3.0, 7.0)
LOWEST_T = 0.05  # measured values there differ from those at 0.064 T by less than their spread

# T1 in ms at FIELDS_T.
# wm, gm: 0.064 T Deoni 2022 phantom specification and O'Reilly & Webb 2022 [V2]; 0.3 T between Rooney's law and the
#   Nishimura table (368-450 / 545-578) [V2]; 1.5, 3, 7 T centre of Wright 2008, Wansapura 1999, Stanisz 2005 [V, V2].
# csf: 0.064 T 3400-3700 [V2]; elsewhere 1/0.231 s, Rooney 2007 [V2].
# fat: 0.064 T between O'Reilly & Webb's 130 [M] and 180 [V2]; then the Nishimura table [V2]; 7 T [M].
# soft (muscle, skin): 1.5 T BrainWeb 900 [V2]; 3 T below Stanisz 1412 [M]; the others a power law through these [I].
# bone: no measured values; irrelevant, since its T2 leaves no signal [M].
# dgm (pallidum): 3 T between Wright 2008's putamen and caudate (1332, 1395) [V] and white matter, for its myelin [I];
#   1.5 and 7 T in the same proportion to Wright's putamen (1084, 1644) [I]; below, as a mean of wm and gm [I].
# blood: Rooney 2007 up to 1.5 T [V2]; 3 T between 1664 in vitro (Lu 2004) and 1852 in vivo [V]; 7 T 2171, 2010 [V].
_T1_MS = {
    "csf": (3700, 4300, 4300, 4300, 4300),
    "gm": (330, 550, 1050, 1450, 1880),
    "wm": (265, 400, 660, 840, 1150),
    "fat": (150, 200, 260, 300, 350),
    "bone": (200, 200, 250, 300, 350),
    "soft": (230, 450, 900, 1300, 1800),
    "dgm": (300, 470, 900, 1100, 1360),
    "blood": (516, 873, 1510, 1750, 2100),
}
# T2 in ms. wm, gm: 64 mT weak (85-100 / 100-115) [V2, M]; 0.3 T lowfieldsim [V2]; 1.5, 3 T between Cox & Gowland 2010
#   (mean of frontal and occipital cortex) [V] and Stanisz 2005 [M], which gives the contrast of clinical T2w scans
#   (docs/simulator.md); 7 T Cox & Gowland [V]. csf: free water, O'Reilly & Webb ~1584 [M], 7 T [M]; BrainWeb's 329 ms
#   avoided.
# fat 85, muscle 47: lowfieldsim, field independent [V2]; fat at 7 T [M]. bone: sub-millisecond [M].
# dgm (pallidum): 3 T 1/25.8 s (Gelman 1999) [V]. Elsewhere the iron's part of R2 is linear in B0: grey matter's R2 plus
#   (25.8 - 14.4) / 3 per second and tesla, 14.4 being Gelman's frontal cortex [C].
# blood: between arteries and veins, 1.5 T 200, falling with B0 [M]; little depends on it, as most of it flows away.
_T2_MS = {
    "csf": (1600, 1600, 1600, 1600, 1000),
    "gm": (105, 100, 90, 85, 47),
    "wm": (95, 92, 76, 70, 47),
    "fat": (85, 85, 85, 85, 60),
    "bone": (0.5, 0.5, 0.5, 0.5, 0.5),
    "soft": (47, 47, 47, 47, 40),
    "dgm": (102, 90, 60, 38.8, 21),
    "blood": (250, 250, 200, 100, 40),
}
# T2* in ms. gm: 90 exp(-0.142 B0), wm: 64 exp(-0.132 B0), Pohmann 2016 [V2; the 64 mT end is extrapolated, I]; csf
#   "made up, not too relevant" in that same code [V2]; fat and muscle BrainWeb at 1.5 T [V2], taken as constant [I].
# dgm (pallidum): 3 T 1/(25.8 + 12.0) s (Gelman 1999) [V]. Elsewhere grey matter's R2* plus the iron's part of R2 above
#   and of R2', (12.0 - 3.4) / 3 per second and tesla [C]. blood: half its T2 [I].
_T2STAR_MS = {
    "csf": (100, 100, 100, 100, 100),
    "gm": (89, 86, 73, 59, 33),
    "wm": (63, 62, 53, 43, 25),
    "fat": (58, 58, 58, 58, 45),
    "bone": (0.4, 0.4, 0.4, 0.4, 0.4),
    "soft": (30, 30, 30, 30, 25),
    "dgm": (86, 73, 42, 26.5, 13),
    "blood": (125, 125, 100, 50, 20),
}
_BY_FIELD: dict[str, Mapping[str, Sequence[float]]] = {"t1_ms": _T1_MS, "t2_ms": _T2_MS, "t2star_ms": _T2STAR_MS}
# Proton density: water content .70 / .82 / 1.0 [V2]; fat and muscle BrainWeb 1.0 [V2]; bone 0-0.1 [M]; pallidum between
# wm and gm, blood 0.85 [I].
_PD = {"csf": 1.0, "gm": 0.82, "wm": 0.70, "fat": 1.0, "bone": 0.05, "soft": 1.0, "dgm": 0.76, "blood": 0.85}
# Share of blood that leaves a slice between pulses: nearly all of it in arteries and sinuses, less at their walls [I].
_FLOW = {"blood": 0.9}

# Lesions (docs/facts.md section 1.5).
# A lesion is white matter with this fraction of free water in fast exchange: relaxation rates and proton density mix
# linearly between wm and csf [I]. One number then gives T1, T2, T2* and PD at every field, never beyond those of CSF.
# Chosen to give T1 / T2 at 3 T (wm 840 / 70 ms) in the typical ranges [M]; at other fields only the mixing applies [I].
# wmh: 1240 / 113 ms, range 1100-1400 / 100-150 [M].
# tumour: glioma, solid, no contrast agent: 1320 / 123 ms, range 1200-1700 / 110-180 [M].
# oedema: vasogenic: 1510 / 148 ms, range 1300-1700 / 130-250 [M].
# infarct: chronic, a cavity with some gliosis, so close to CSF: 3050 / 502 ms [I].
_FREE_WATER = {"wmh": 0.40, "tumour": 0.45, "oedema": 0.55, "infarct": 0.90}

# Relative half-widths of the variation between subjects: T1 +-10 % at 64 mT, +-15-20 % advised across methods [I]; CSF
# is water and hardly varies.
JITTER = {"t1_ms": 0.10, "t2_ms": 0.06, "t2star_ms": 0.06, "pd": 0.03}
CSF_JITTER_SCALE = 0.3
DGM_JITTER_SCALE = 1.5  # iron varies with age and from person to person [I]


def _at(values: Sequence[float], b0_t: float) -> float:
    return float(np.interp(math.log(b0_t), [math.log(b) for b in FIELDS_T], values))


def tissues_at(
    b0_t: float, jitter: dict[str, dict[str, float]] | None = None, names: Sequence[str] = TISSUES
) -> dict[str, Tissue]:
    """Parameters of the tissues `names`, which may include further ones and lesions, at `b0_t` tesla.

    `jitter[tissue][parameter]` are factors around 1. Lesions inherit those of wm and csf, times their own if given.

    Raises:
        UserError: an unknown tissue, or a field strength outside the range of measured values.
    """
    for name in names:
        if name not in TISSUES + FURTHER + LESIONS:
            raise UserError(f"tissue '{name}': unknown, choose from {', '.join(TISSUES + FURTHER + LESIONS)}")
    if not LOWEST_T <= b0_t <= FIELDS_T[-1]:
        raise UserError(f"field strength {b0_t} T: relaxation times are known from 0.05 to 7 T")
    found: dict[str, Tissue] = {}
    for name in dict.fromkeys((*TISSUES, *names)):
        if name in _FREE_WATER:
            values = _mixed(found["wm"], found["csf"], _FREE_WATER[name])
        else:
            values = {key: _at(table[name], b0_t) for key, table in _BY_FIELD.items()} | {"pd": _PD[name]}
        factors = (jitter or {}).get(name, {})
        varied = {key: value * factors.get(key, 1.0) for key, value in values.items()}
        found[name] = Tissue(**varied, flow=_FLOW.get(name, 0.0))
    return {name: found[name] for name in names}


def _mixed(tissue: Tissue, water: Tissue, free: float) -> dict[str, float]:
    """Parameters of a tissue with a fraction `free` of free water: relaxation rates and proton density mix linearly."""
    times = {key: 1 / ((1 - free) / getattr(tissue, key) + free / getattr(water, key)) for key in _BY_FIELD}
    return times | {"pd": (1 - free) * tissue.pd + free * water.pd}


def draw_jitter(rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """One subject's factors, uniform within `JITTER` and the same at every field strength."""
    drawn: dict[str, dict[str, float]] = {}
    for name in TISSUES + FURTHER:
        scale = {"csf": CSF_JITTER_SCALE, "dgm": DGM_JITTER_SCALE}.get(name, 1.0)
        drawn[name] = {key: 1 + scale * width * float(rng.uniform(-1, 1)) for key, width in JITTER.items()}
    return drawn
