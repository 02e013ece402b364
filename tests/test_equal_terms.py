"""Equal terms of the fidelity benchmark's rows: images seen, options, lengths (benchmarks/fidelity/lengths.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.fidelity.budgets import BUDGETS, Lengths
from benchmarks.fidelity.lengths import Slices, train_options
from benchmarks.fidelity.rows import ROWS
from models import MODELS
from options.train_options import parse

SLICES = Slices(541, 567)
WITH_TRAINING = [name for name, row in ROWS.items() if not row.why_missing]


@pytest.mark.parametrize(("budget", "task"), [(name, task) for name, each in BUDGETS.items() for task in each.rows])
@pytest.mark.parametrize("row", WITH_TRAINING)
def test_every_row_sees_the_same_number_of_images(budget: str, task: str, row: str) -> None:
    chosen, slices = BUDGETS[budget].on(task), SLICES
    run = parse([*train_options(ROWS[row], chosen, 0, slices), "--dataroot", "-"])
    o = run.network
    seen = (o.n_epochs + o.n_epochs_decay + getattr(o, "n_epochs_refine", 0)) * slices.epoch(ROWS[row])
    for pretext in ("sgp", "lsc"):
        if getattr(o, f"trains_{pretext}", False):
            steps, batch = getattr(o, f"{pretext}_steps"), getattr(o, f"{pretext}_batch_size")
            seen += steps * max(batch, run.train.batch_size)
    rounding = 541 / 2 if ROWS[row].aligned else 64  # half an epoch; half a batch of either pretext stage
    assert seen == pytest.approx(chosen.lengths.total * 567, abs=rounding)
    assert run.train.seed == 0 and run.model == ROWS[row].model


def test_lengthened_stages_keep_their_proportion() -> None:
    budget = replace(BUDGETS["quick"], lengths=Lengths(sgp=16, lsc=4, gan=1, refine=6))
    lengths = {}
    for row in ("pta_hybrid", "pta_hybrid/no_lsc", "pta_hybrid/no_sgp", "cycle_gan/hybrid"):
        o = parse([*train_options(ROWS[row], budget, 0, Slices(100, 90)), "--dataroot", "-"]).network
        lengths[row] = (o.n_epochs + o.n_epochs_decay, o.n_epochs_refine)
    assert lengths == {
        "pta_hybrid": (1, 6), "pta_hybrid/no_lsc": (2, 9), "pta_hybrid/no_sgp": (3, 20), "cycle_gan/hybrid": (4, 23)
    }  # fmt: skip


def test_another_contrast_has_terms_of_its_own_for_every_row() -> None:
    on_paper, elsewhere = {}, {}
    for found, task in ((on_paper, "paper"), (elsewhere, "coverage")):
        for row in ("cycle_gan/hybrid", "pta_hybrid", "pta_hybrid/no_pretext"):
            budget = BUDGETS["small"].on(task)
            o = parse([*train_options(ROWS[row], budget, 0, SLICES), "--dataroot", "-"]).network
            assert (o.refine_physics > 0) == (task != "paper"), row
            found[row] = (o.n_epochs + o.n_epochs_decay, o.n_epochs_refine)
            if task == "paper" and row != "cycle_gan/hybrid":
                assert o.weights.syn == o.weights.syn_A == 20 and o.weights.idt == 0, row
    assert on_paper == {"cycle_gan/hybrid": (11, 5), "pta_hybrid": (6, 3), "pta_hybrid/no_pretext": (11, 5)}
    assert elsewhere == {"cycle_gan/hybrid": (4, 12), "pta_hybrid": (2, 7), "pta_hybrid/no_pretext": (4, 12)}


def test_unsb_is_taken_at_the_step_that_is_best_on_each_task() -> None:
    """On validation people (docs/benchmarks/log.md)."""
    found = {}
    for task in ("same_contrast", "coverage"):
        options = train_options(ROWS["unsb"], BUDGETS["small"].on(task), 0, SLICES)
        found[task] = parse([*options, "--dataroot", "-"]).network.passes
    assert found == {"same_contrast": 3, "coverage": 1}


def test_the_budgets_options_of_sgp_go_to_the_rows_that_train_one() -> None:
    for name in WITH_TRAINING:
        o = parse([*train_options(ROWS[name], BUDGETS["quick"], 0, SLICES), "--dataroot", "-"]).network
        if getattr(o, "trains_sgp", False):
            assert (o.sgp_views, o.sgp_batch_size) == (4, 16), name
    assert "--sgp_views" not in train_options(ROWS["pta_hybrid/no_sgp"], BUDGETS["quick"], 0, SLICES)


def test_masks_and_the_noise_model_are_open_to_all_unpaired_rows() -> None:
    for name in WITH_TRAINING:
        if not ROWS[name].aligned:
            run = parse([*train_options(ROWS[name], BUDGETS["small"], 1, SLICES), "--dataroot", "-"])
            assert run.dataset_mode == "unaligned_mask" and run.data.flip and run.network.lf_noise == "auto", name


def test_rows_without_their_model_say_so() -> None:
    for row in ROWS.values():
        assert bool(row.why_missing) == (row.model not in MODELS)
