"""Classes of a head's label map, and the tissues that each consists of, for `derive_heads.py` and `colin27.py`."""

from __future__ import annotations

from simulation.anatomy import FURTHER, TISSUES

ALL_TISSUES = TISSUES + FURTHER

# Numbers of the label maps by class, left and right together.
NUMBERS: dict[str, tuple[int, ...]] = {
    "csf": (4, 5, 14, 15, 24, 43, 44, 72, 30, 62),
    "gm": (3, 42, 8, 47, 17, 18, 26, 53, 54, 58),
    "wm": (2, 41, 7, 46, 85),
    "bone": (515,),
    "marrow": (516,),
    "soft": (507, 511),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "thalamus": (10, 49),
    "brain_stem": (16, 512),
    "ventral_dc": (28, 60),
    "choroid_plexus": (136, 137, 163, 164),
    "pale_white": (25, 57),
    "vessel": (502, 514),
    "eye": (506,),
    "eye_muscle": (508,),
    "optic_nerve": (530,),
    "mucosa": (509,),
}
# What the classes consist of, the rest to 1 being air. dgm is tissue with the pallidum's iron, so the nuclei have its
# share of iron above cortex (docs/facts.md section 7). `fat` and `dentate` are no labels; they are made below.
MIXTURES: dict[str, dict[str, float]] = {
    "air": {},
    "csf": {"csf": 1},
    "gm": {"gm": 1},
    "wm": {"wm": 1},
    "bone": {"bone": 1},
    "marrow": {"bone": 0.5, "fat": 0.5},
    "soft": {"soft": 1},
    "caudate": {"gm": 0.625, "dgm": 0.375},
    "putamen": {"gm": 0.5, "dgm": 0.5},
    "pallidum": {"dgm": 0.875, "wm": 0.125},
    "thalamus": {"gm": 0.625, "wm": 0.25, "dgm": 0.125},
    "brain_stem": {"gm": 0.25, "wm": 0.75},
    "ventral_dc": {"gm": 0.125, "wm": 0.625, "dgm": 0.25},
    "choroid_plexus": {"csf": 0.625, "gm": 0.375},
    "pale_white": {"wm": 0.75, "csf": 0.25},
    "vessel": {"blood": 1},
    "eye": {"csf": 1},
    "eye_muscle": {"soft": 1},
    "optic_nerve": {"wm": 0.5, "csf": 0.5},
    "mucosa": {"soft": 0.625, "csf": 0.375},
    "dentate": {"gm": 0.375, "dgm": 0.375, "wm": 0.25},
    "fat": {"fat": 1},
}
NAMES = tuple(MIXTURES)
NUMBER = {name: number for number, name in enumerate(NAMES)}
BRAIN = ("gm", "wm", "caudate", "putamen", "pallidum", "thalamus", "brain_stem", "ventral_dc", "pale_white")
WHITE = ("wm", "brain_stem", "ventral_dc", "pallidum", "pale_white")
INSIDE_SKULL = (*BRAIN, "csf", "choroid_plexus", "dentate")
