"""What may be chosen of slicing, and its defaults, without the modules that slice."""

from __future__ import annotations

SLICE_AXES = {"R": 0, "A": 1, "S": 2}
DEFAULT_PERCENTILES = (0.5, 99.5)  # of the intensities inside the head, mapped to 0 and 1
