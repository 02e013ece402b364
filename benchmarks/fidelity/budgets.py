"""What `--budget` fixes: tasks, rows, people, sizes, lengths and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.fidelity.rows import BASELINES, NAMES

TASKS = {"same_contrast": "same-contrast", "coverage": "coverage", "paper": "paper"}  # and their --simulate
MAIN = (
    *BASELINES, "cycle_gan/hybrid", "cut/hybrid", "degrade/hybrid", "pta_hybrid", "supervised/hybrid",
    "cycle_gan/hybrid/no_refine", "pta_hybrid/no_refine",
)  # fmt: skip


@dataclass(frozen=True)
class Lengths:
    """Length of a training in epochs of the unpaired dataset, in pretext stages too: max(slices of A, of B) images."""

    sgp: int
    lsc: int
    gan: int
    refine: int

    @property
    def total(self) -> int:
        return self.sgp + self.lsc + self.gan + self.refine


@dataclass(frozen=True)
class TaskTerms:
    """What one task changes: further options by --model, and the lengths, unless None."""

    of_models: Mapping[str, tuple[str, ...]]
    lengths: Lengths | None = None


@dataclass(frozen=True)
class Budget:
    """One size of the benchmark.

    about: for people. rows: by task. options: of train.py for every row, after `--preset`; widths: further ones by
    --netG; of_models: further ones by --model. steady: part of the adversarial epochs that runs at the first learning
    rate, before its decay. sgp: options of SGP's training in rows that train one. encoder: options of E_eval's
    training. simulate: further options of the simulation. lesions: those of further heads with lesions, on which the
    segmenter learns them and which tell what rows lose. segmenter_steps: of its training. of_tasks: terms of tasks for
    which these do not do.
    """

    about: str
    rows: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    matrix: int
    n_train: int
    n_val: int
    n_test: int
    lengths: Lengths
    preset: str
    options: tuple[str, ...] = ()
    widths: Mapping[str, tuple[str, ...]] | None = None
    of_models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    steady: float = 0.0
    sgp: tuple[str, ...] = ()
    encoder: tuple[str, ...] = ()
    simulate: tuple[str, ...] = ()
    lesions: tuple[str, ...] = ("--lesions", "infarct", "--n_lesions", "2", "--lesions_in", "all")
    segmenter_steps: int = 1500
    claims: bool = True
    of_tasks: Mapping[str, TaskTerms] = field(default_factory=dict)

    def on(self, task: str) -> Budget:
        """The budget with a task's own terms."""
        if task not in self.of_tasks:
            return self
        terms = self.of_tasks[task]
        return replace(self, of_models=terms.of_models, lengths=terms.lengths or self.lengths)


NARROW = dict.fromkeys(("resnet_9blocks", "unet_32"), ("--ngf", "16"))  # as narrow as the demo's hybrid and D
# SGP learns as much from six epochs as from 31 of single views in batches of 32 (docs/benchmarks/log.md)
FEW_SLICES = ("--sgp_batch_size", "16", "--sgp_views", "4")
ON_CPU = ("--gpu_ids", "-1")
# where A and B differ in contrast: the physics cannot turn it, L_idt rewards keeping it; the weights are the best of
# each model's trials, and the adversarial stage has to be longer too (docs/benchmarks/log.md)
TURNING = ("--refine_physics", "0", "--lambda_idt", "0")
OTHER_CONTRAST = {
    "cycle_gan": (*TURNING, "--lambda_cycle", "0.5"),
    "cut": ("--lambda_nce", "0.5", "--lambda_nce_idt", "0", "--lr", "0.0006"),  # L_nce_idt stands for L_idt there
    "pta_hybrid": (*TURNING, "--lambda_syn", "20", "--lambda_syn_A", "20"),
}
# the best on validation people there; the preset's step is the best on same-contrast (docs/benchmarks/log.md)
AT_THE_FIRST_STEP = {"unsb": ("--sb_passes", "1")}
WITH_OTHER_CONTRAST = (*MAIN, "pta_hybrid/no_pretext")  # which has L_syn too, so it tells what the pretext tasks add

BUDGETS: dict[str, Budget] = {
    "quick": Budget(
        "half an hour on two cores: one seed, few people, no claim",
        rows={"same_contrast": (*BASELINES, "cycle_gan/hybrid", "degrade/hybrid", "degrade/hybrid/partner",
                                "pta_hybrid", "pta_hybrid/no_sgp", "pta_hybrid/no_pretext", "supervised/hybrid",
                                "cycle_gan/hybrid/no_refine", "pta_hybrid/no_refine"),
              "coverage": (*BASELINES, "cycle_gan/hybrid", "pta_hybrid", "pta_hybrid/no_sgp")},
        seeds=(0,), matrix=96, n_train=12, n_val=2, n_test=4,
        lengths=Lengths(sgp=10, lsc=2, gan=3, refine=9), sgp=FEW_SLICES,
        preset="demo", options=("--load_size", "96", *ON_CPU), widths=NARROW, encoder=("--sgp_steps", "100"),
        segmenter_steps=800, claims=False,
    ),
    "small": Budget(
        "two cores for a night: networks of the demo's kind at 96 px, three seeds",
        rows={"same_contrast": NAMES, "coverage": NAMES, "paper": WITH_OTHER_CONTRAST},
        seeds=(0, 1, 2), matrix=96, n_train=24, n_val=6, n_test=12,
        lengths=Lengths(sgp=6, lsc=1, gan=2, refine=7), sgp=FEW_SLICES,
        preset="demo", options=("--load_size", "96", *ON_CPU), widths=NARROW, encoder=("--sgp_steps", "150"),
        of_tasks={
            "coverage": TaskTerms(AT_THE_FIRST_STEP),
            "paper": TaskTerms(OTHER_CONTRAST, Lengths(sgp=6, lsc=1, gan=6, refine=3)),
        },
    ),
    "full": Budget(
        "the published sizes at 224 px, for a GPU",
        rows={"same_contrast": NAMES, "coverage": NAMES, "paper": WITH_OTHER_CONTRAST},
        seeds=(0, 1, 2), matrix=224, n_train=60, n_val=12, n_test=24,
        lengths=Lengths(sgp=45, lsc=22, gan=150, refine=20),
        preset="published",
        options=("--flip", "--lf_noise", "auto", "--lf_band", "auto", "--lf_bias", "auto",
                 "--refine_physics", "0.4"),
        steady=2 / 3, encoder=("--sgp_steps", "2000"), segmenter_steps=2000,
        of_tasks={"paper": TaskTerms(OTHER_CONTRAST)},
    ),
}  # fmt: skip
