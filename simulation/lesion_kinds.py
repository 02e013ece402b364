"""Kinds of lesions: tissues, sizes and edges."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One tissue of a lesion: up to `extent` radii, in place of the tissues `replaces`, with an edge of `edge_mm`."""

    tissue: str
    extent: float
    replaces: tuple[str, ...]
    edge_mm: float


@dataclass(frozen=True)
class Kind:
    """Range of the semi-axes in mm (None: real shapes, with a soft edge of their own), and layers, innermost first."""

    radius_mm: tuple[float, float] | None
    layers: tuple[Layer, ...]


# Typical sizes in radiology (docs/facts.md section 7) [M]: gliomas of 2 to 4 cm with oedema that spares the cortex,
# infarcts of a small branch's territory. Edges [I].
KINDS = {
    "wmh": Kind(None, (Layer("wmh", 1.0, ("wm",), 0.0),)),
    "tumour": Kind(
        (9.0, 18.0), (Layer("tumour", 1.0, ("gm", "wm", "dgm", "csf"), 1.5), Layer("oedema", 1.6, ("wm",), 4.0))
    ),
    "infarct": Kind((7.0, 16.0), (Layer("infarct", 1.0, ("gm", "wm", "dgm"), 2.0),)),
}
