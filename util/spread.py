"""A few of many, evenly spaced."""

from __future__ import annotations

import numpy as np


def evenly_spaced(count: int, limit: int) -> list[int]:
    """At most `limit` positions among `count`, in order; with two or more, the first and the last are among them."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()
