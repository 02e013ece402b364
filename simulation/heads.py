"""The people whose heads are shipped, as maps of tissue fractions at 1 mm without faces.

`scripts/derive_heads.py` makes the files; NOTICE says whose work they rest on.
"""

from __future__ import annotations

from simulation.anatomy import MAPS, Anatomy, load_anatomy
from util.errors import UserError

PEOPLE: tuple[str, ...] = ("colin27", *(f"head_{number:02d}" for number in range(1, 17)))


def load_person(name: str) -> Anatomy:
    """The head of one of `PEOPLE`, with `to_template` and `level_error_mm`; cached, so do not write to it.

    Raises:
        UserError: an unknown name, or a file that is missing or damaged.
    """
    if name not in PEOPLE:
        raise UserError(f"person {name}: unknown, choose from {', '.join(PEOPLE)}")
    return load_anatomy(MAPS / f"{name}.npz")
