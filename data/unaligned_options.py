"""Options of the datasets `unaligned` and `unaligned_mask` (data/unaligned_dataset.py)."""

from __future__ import annotations

from dataclasses import dataclass

from util.needs import Need, chosen, fact
from util.schema import flag

PREPROCESS = ("pad_and_resize", "resize", "crop", "resize_and_crop", "none")
SMALLEST_SIDE = 16  # of a slice that networks get
PAD = "pad_and_resize"  # to a square, then to load_size: what is square already is only resized


def resizes(preprocess: str) -> bool:
    """Whether slices are resized to a square of load_size."""
    return "resize" in preprocess


def crops(preprocess: str) -> bool:
    """Whether slices are cropped in training."""
    return preprocess.endswith("crop")


LOADED = Need(
    "a --preprocess that resizes, or crop without --crop_size",
    lambda o: resizes(o.preprocess) or (crops(o.preprocess) and not o.crop_size),
)


PAIRS = fact("takes_slices_in_turn", "another stage than SGP's, which takes distinct levels", otherwise=True)
BY_LEVEL = Need(
    "a stage that pairs slices by level, or an --sgp_window above 0",
    lambda o: getattr(o, "pairs_by_level", True) or getattr(o, "sgp_window", 0) > 0,
)


@dataclass(frozen=True)
class UnalignedOptions:
    """How slices are transformed and combined."""

    load_size: int = flag(
        224, "side in pixels that slices are resized to", group="data", low=SMALLEST_SIDE, needs=LOADED
    )
    crop_size: int = flag(
        0,
        "side in pixels of random crops; 0: --load_size",
        group="data",
        low=0,
        needs=chosen(preprocess=[way for way in PREPROCESS if crops(way)]),
    )
    preprocess: str = flag(
        PAD,
        "what happens to slices at loading; resize stretches those that are not square",
        group="data",
        choices=PREPROCESS,
    )
    flip: bool = flag(False, "flip slices left to right at random", group="data")
    direction: str = flag("AtoB", "which domain is the source", group="data", choices=("AtoB", "BtoA"))
    serial_batches: bool = flag(
        False,
        "take A's slices in file order",
        group="data",
        needs=PAIRS,
    )
    max_dataset_size: int | None = flag(None, "use only the first slices of each domain", group="data", low=1)
    level_tolerance: float = flag(
        0.03,
        "partners differ by at most this relative level p",
        group="data",
        low=0,
        high=1,
        needs=fact("pairs_by_level", "a stage whose partners do not come from SGP", otherwise=True),
    )
    align_levels: bool = flag(
        False,
        "pair slices by levels that all volumes share, found from how their slices look, in the place of p",
        group="data",
        needs=(PAIRS, BY_LEVEL),
    )
    level_crop: float = flag(
        0.1,
        "SGP batches: random cut of each volume's level range, per end",
        group="data",
        low=0,
        high=0.45,
        needs=fact("trains_sgp", "an SGP to train"),
    )

    @property
    def network_size(self) -> int | None:
        """Side in pixels of the models' input; None for `--preprocess none`, which keeps the slices' own size."""
        if self.preprocess == "none":
            return None
        return (self.crop_size or self.load_size) if crops(self.preprocess) else self.load_size
