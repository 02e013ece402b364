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
    """Range of the semi-axes in mm, and layers from the inside out."""

    radius_mm: tuple[float, float]
    layers: tuple[Layer, ...]


# Typical sizes in radiology (docs/facts.md section 7) [M]: WMH from dots to confluent caps, gliomas of 2 to 4 cm with
# oedema that spares the cortex, infarcts of a small branch's territory. Edges [I].
KINDS = {
    "wmh": Kind((1.5, 5.0), (Layer("wmh", 1.0, ("wm",), 2.0),)),
    "tumour": Kind((9.0, 18.0), (Layer("tumour", 1.0, ("gm", "wm", "csf"), 1.5), Layer("oedema", 1.6, ("wm",), 4.0))),
    "infarct": Kind((7.0, 16.0), (Layer("infarct", 1.0, ("gm", "wm"), 2.0),)),
}
