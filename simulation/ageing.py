"""What age does to a simulated brain besides its shape: contrast between tissues, and white-matter hyperintensities.

Sulci and ventricles are those of the person whose head it is (or of `--ventricles`, `--sulci_mm`), so the age is drawn
to fit them: large ventricles make an old subject. Sources: docs/facts.md section 7.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from simulation.anatomy import Anatomy
from simulation.hyperintensities import Hyperintensity, draw_hyperintensity, ventricle_distance
from simulation.limits import OLDEST, YOUNGEST
from util.errors import UserError

VENTRICLES_ML = (
    6.0,
    75.0,
)  # of the youngest and the oldest, as `lateral_ventricles` finds them, without thin horns [I]
SPREAD_YEARS = 10.0  # of the age about the one that the ventricles suggest (standard deviation) [I]
# Relative change of a parameter over 30 years [M]: white matter's T1 and T2 grow, cortex's T1 shrinks, iron collects.
MIDDLE, SPAN = 50.0, 30.0
CHANGE = {
    ("wm", "t1_ms"): 0.02,
    ("wm", "t2_ms"): 0.03,
    ("gm", "t1_ms"): -0.02,
    ("dgm", "t2_ms"): -0.08,
    ("dgm", "t2star_ms"): -0.08,
}
ONSET, DOUBLING_YEARS = 45.0, 8.3  # hyperintensities from that age on, and in how many years their volume doubles [M]
LOAD_ML, LOAD_SPREAD = 0.2, 0.8  # median at the onset, and standard deviation of the logarithm [M]
MOST_ML, MOST_LESIONS = 20.0, 80


def draw_age(rng: np.random.Generator, anatomy: Anatomy) -> float:
    """An age in years that fits the head: by its ventricles, or any if they cannot be found."""
    middle, spread = (YOUNGEST + OLDEST) / 2, float(rng.normal())
    volume = ventricles_ml(anatomy)
    if volume is None:
        return float(np.clip(middle + spread * (OLDEST - YOUNGEST) / 4, YOUNGEST, OLDEST))
    low, high = (math.log(ml) for ml in VENTRICLES_ML)
    part = (math.log(max(volume, 0.1)) - low) / (high - low)
    return float(np.clip(YOUNGEST + part * (OLDEST - YOUNGEST) + spread * SPREAD_YEARS, YOUNGEST, OLDEST))


@lru_cache(maxsize=1)
def ventricles_ml(anatomy: Anatomy) -> float | None:
    """Volume of the lateral ventricles; None if there are none to be found."""
    try:
        distance, affine = ventricle_distance(anatomy)
    except UserError:
        return None
    return float((distance == 0).sum() * abs(np.linalg.det(affine[:3, :3])) / 1e3)


def aged(jitter: dict[str, dict[str, float]], age: float) -> dict[str, dict[str, float]]:
    """A subject's factors on tissue parameters, with those of its age."""
    changed = {name: dict(factors) for name, factors in jitter.items()}
    for (name, key), change in CHANGE.items():
        if name in changed:
            changed[name][key] *= 1 + change * (age - MIDDLE) / SPAN
    return changed


def hyperintensities_of_age(rng: np.random.Generator, anatomy: Anatomy, age: float) -> tuple[Hyperintensity, ...]:
    """Real lesions' shapes up to the volume drawn for this age; none in the young, or in a head without ventricles."""
    spread = float(rng.normal(0, LOAD_SPREAD))
    if age < ONSET or ventricles_ml(anatomy) is None:
        return ()
    load = min(LOAD_ML * 2 ** ((age - ONSET) / DOUBLING_YEARS) * math.exp(spread), MOST_ML)
    drawn: list[Hyperintensity] = []
    while load > 0 and len(drawn) < MOST_LESIONS:
        drawn.append(draw_hyperintensity(rng, anatomy, most_ml=max(load, 0.02)))
        load -= drawn[-1].shape.ml
    return tuple(drawn)
