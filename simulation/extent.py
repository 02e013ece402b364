"""What a scan shows: the field of view of its slices, and the part of the head along the slice axis."""

from __future__ import annotations

from dataclasses import dataclass

FOV_MM = 240.0  # side of every slice

Range = tuple[float, float]


@dataclass(frozen=True)
class Coverage:
    """The part of a head that scans cover, in fractions of its height from crown to skull base.

    `bottom`, `top`: range of what a scan leaves out at either end, drawn uniformly. `upper`: where given, half of the
    subjects are scanned from the crown down to this range of heights only, and nothing is left out at the top.
    """

    bottom: Range = (0.0, 0.25)
    top: Range = (0.0, 0.25)
    upper: Range | None = None

    def left_out(self, *, upper_only: bool) -> tuple[Range, Range]:
        """The ranges left out at the bottom and at the top of a subject's scan."""
        if self.upper is None or not upper_only:
            return self.bottom, self.top
        least, most = self.upper
        return (1 - most, 1 - least), (0.0, 0.0)


CROPPED = Coverage()
WHOLE = Coverage((0.0, 0.0), (0.0, 0.0))
UPPER_IN_HALF = Coverage((0.0, 0.0), (0.0, 0.0), upper=(0.55, 0.75))
