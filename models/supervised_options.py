"""Options of `--model supervised` (models/supervised_model.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.restoration_options import RestorationOptions


@dataclass(frozen=True)
class SupervisedOptions(RestorationOptions):
    """Options of `--model supervised`."""

    dataset_mode: ClassVar = "aligned"
    paired: ClassVar = True
    pairs_by_level: ClassVar = False
