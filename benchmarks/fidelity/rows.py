"""The rows of the benchmark's tables: which model with which options, and which rows another one stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models import MODELS

BASELINES = ("identity", "histogram", "classical")  # evaluation/baselines.py; they have no seeds
UPPER_BOUND = "supervised/hybrid"  # of `gap_closed`


@dataclass(frozen=True)
class Row:
    """One row with a training.

    model: of --model. netG: of --netG. options: what the row adds to the command. before_refinement: the row is the
    training of the row named so, as it stood before its refinement. by_validation: the checkpoint with the best score
    on validation people is tested, not the last one. aligned: the model is given pairs.
    """

    model: str
    netG: str
    options: tuple[str, ...] = ()
    before_refinement: str = ""
    by_validation: bool = False
    aligned: bool = False

    @property
    def why_missing(self) -> str:
        """Why the row cannot be had; empty if it can."""
        return "" if self.model in MODELS else f"this version has no --model {self.model}"


ROWS: Mapping[str, Row] = {
    "cycle_gan": Row("cycle_gan", "resnet_9blocks"),
    "cycle_gan/hybrid": Row("cycle_gan", "hybrid"),
    "cycle_gan/hybrid/aligned": Row("cycle_gan", "hybrid", ("--align_levels",)),
    "cycle_gan/hybrid/no_refine": Row("cycle_gan", "hybrid", before_refinement="cycle_gan/hybrid"),
    "cut/hybrid": Row("cut", "hybrid"),
    "unsb": Row("unsb", "hybrid"),
    "degrade/hybrid": Row("degrade", "hybrid"),
    "degrade/hybrid/partner": Row("degrade", "hybrid", ("--lf_shading", "partner")),
    "pta_hybrid": Row("pta_hybrid", "hybrid"),
    "pta_cyclegan": Row("pta_cyclegan", "resnet_9blocks"),
    "pta_unet": Row("pta_unet", "unet_32"),
    "pta_hybrid/aligned": Row("pta_hybrid", "hybrid", ("--align_levels", "--sgp_window", "0.06")),
    "pta_hybrid/aligned/lsc": Row(
        "pta_hybrid", "hybrid", ("--align_levels", "--sgp_match", "none", "--loss_preset", "released")
    ),  # cycle_gan/hybrid/aligned and LSC, no more: the loss weights are the same
    "pta_hybrid/no_sgp": Row("pta_hybrid", "hybrid", ("--sgp_match", "none")),
    "pta_hybrid/no_lsc": Row("pta_hybrid", "hybrid", ("--pretext_adv", "none")),
    "pta_hybrid/no_pretext": Row("pta_hybrid", "hybrid", ("--sgp_match", "none", "--pretext_adv", "none")),
    "pta_hybrid/random_shading": Row("pta_hybrid", "hybrid", ("--lf_shading", "random")),
    "pta_hybrid/no_physics": Row("pta_hybrid", "hybrid", ("--refine_physics", "0")),
    "pta_hybrid/no_refine": Row("pta_hybrid", "hybrid", before_refinement="pta_hybrid"),
    "pix2pix": Row("pix2pix", "unet_32", aligned=True),
    UPPER_BOUND: Row("supervised", "hybrid", by_validation=True, aligned=True),
}
NAMES = (*BASELINES, *ROWS)
DIFFERENCES = (  # of rows: what each part of a method is worth
    ("pta_hybrid", "cycle_gan/hybrid"),
    ("pta_hybrid", "cycle_gan/hybrid/aligned"),
    ("pta_hybrid", "cut/hybrid"),
    ("pta_hybrid", "unsb"),
    ("pta_hybrid", "degrade/hybrid"),
    ("pta_hybrid", "degrade/hybrid/partner"),
    ("pta_hybrid", "pta_unet"),  # the generator
    ("pta_hybrid", "pta_cyclegan"),
    ("cycle_gan/hybrid", "cycle_gan"),
    ("pta_cyclegan", "cycle_gan"),
    ("pta_hybrid/aligned", "pta_hybrid"),
    ("pta_hybrid/aligned", "cycle_gan/hybrid"),
    ("pta_hybrid/aligned", "cycle_gan/hybrid/aligned"),
    ("pta_hybrid/aligned/lsc", "cycle_gan/hybrid/aligned"),
    ("pta_hybrid/aligned/lsc", "cycle_gan/hybrid"),
    ("pta_hybrid/aligned/lsc", "cut/hybrid"),
    ("pta_hybrid/aligned/lsc", "degrade/hybrid"),
    ("pta_hybrid/aligned/lsc", "pta_hybrid"),
    ("pta_hybrid/aligned/lsc", "pta_hybrid/aligned"),
    ("cycle_gan/hybrid/aligned", "cycle_gan/hybrid"),
    ("pta_hybrid", "pta_hybrid/no_sgp"),
    ("pta_hybrid", "pta_hybrid/no_lsc"),
    ("pta_hybrid", "pta_hybrid/no_pretext"),
    ("pta_hybrid/no_pretext", "cycle_gan/hybrid"),  # L_syn, and the loss weights that come with it
    ("pta_hybrid", "pta_hybrid/random_shading"),
    ("pta_hybrid", "pta_hybrid/no_physics"),
    ("pta_hybrid", "pta_hybrid/no_refine"),
    ("pta_hybrid/no_refine", "cut/hybrid"),  # which has no refinement, since it has no G_BA
    ("cycle_gan/hybrid", "cycle_gan/hybrid/no_refine"),
    ("pta_hybrid", "classical"),
    ("cycle_gan/hybrid", "classical"),
    ("supervised/hybrid", "pta_hybrid"),
    ("supervised/hybrid", "pix2pix"),
)


def trained_by(name: str) -> str:
    """The row whose training a row uses: its own, or the one that it stands before the refinement of."""
    return ROWS[name].before_refinement or name
