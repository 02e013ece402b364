"""What the refinement restores b from: G_BA's images, and scans of b by estimated physics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import train_arguments
from running import run
from tiny_models import SIDE, batch, context, cycle_gan, snapshot
from torch import Tensor

from data.batch import Batch
from models.chance import uniform
from models.cycle_gan_model import CycleGANModel
from models.degradation import Physics, degraded
from models.low_field_options import Strengths

NUMBERS = {
    "lf_noise": 0.05, "lf_band": 0.6, "lf_bias": 0.1, "lf_resolution": 0.6, "lf_contrast": 0.8, "lf_tone": "0,0.6,1",
    "lf_spread": 0.2,
}  # fmt: skip
PHYSICS = Physics(Strengths(noise=0.05, band=0.6, bias=0.1), 0.6, 0.8, (0.0, 0.6, 1.0), 0.2)


def model(share: float, shading: str = "partner") -> CycleGANModel:
    return cycle_gan(n_epochs_refine=1, refine_physics=share, lf_shading=shading, **NUMBERS)


def restored_from(share: float, data: Batch, shading: str = "partner") -> Tensor:
    """What G_AB gets in a step, (N, 1, H, W), in the order in which it gets it."""
    made, seen = model(share, shading), list[Tensor]()
    made.generators["B"].register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    made.stages[-1].step(data, context(micro_batch=len(data)))
    (images,) = seen
    return images


@pytest.mark.parametrize("shading", ["partner", "random"])
def test_scans_are_those_of_degrade(shading: str) -> None:
    data = batch(4)
    partner = (data.A, data.mask_A) if shading == "partner" else None
    wanted = degraded(data.B, data.mask_B, data.key, PHYSICS, partner)
    assert torch.equal(restored_from(1.0, data, shading), wanted)
    assert not torch.isclose(restored_from(0.0, data, shading), wanted, atol=0.01).all()


def test_each_image_is_made_one_way_or_the_other_as_its_key_says() -> None:
    data, share = batch(8), 0.4
    synthesised, scans, mixed = (restored_from(part, data) for part in (0.0, 1.0, share))
    physics = uniform(data.key, "physics in the place of G_BA") < share
    assert 0 < physics.sum() < len(data)
    torch.testing.assert_close(mixed, torch.cat([synthesised[~physics], scans[physics]]))
    many = uniform(torch.arange(2000), "physics in the place of G_BA") < share
    assert many.float().mean() == pytest.approx(share, abs=0.03)


def test_every_image_is_compared_with_its_own_b() -> None:
    """G_AB as the identity: the loss is the distance of each scan from the b that it was made of."""
    data, made = batch(8), model(1.0)
    made.generators["B"].register_forward_hook(lambda module, given, found: (given[0] + 0 * found[0], found[1]))
    terms = made.stages[-1].step(data, context(micro_batch=8))
    wanted = (degraded(data.B, data.mask_B, data.key, PHYSICS, (data.A, data.mask_A)) - data.B).abs().mean()
    torch.testing.assert_close(terms["cycle"], wanted)
    mixed = model(0.4)
    mixed.generators["B"].register_forward_hook(lambda module, given, found: (given[0] + 0 * found[0], found[1]))
    found = mixed.stages[-1].step(data, context(micro_batch=8))["cycle"]
    images, order = restored_from(0.4, data), order_of(data, 0.4)
    torch.testing.assert_close(found, (images - data.B[order]).abs().mean())


def order_of(data: Batch, share: float) -> list[int]:
    physics = (uniform(data.key, "physics in the place of G_BA") < share).tolist()
    return sorted(range(len(data)), key=lambda row: physics[row])


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_change_nothing(micro_batch: int) -> None:
    found: list[dict[str, Tensor]] = []
    for size in (8, micro_batch):
        made = model(0.4)
        stage = made.stages[-1]
        stage.begin(made)
        terms = stage.step(batch(8), context(micro_batch=size))
        found.append({**terms, **{name: x for name, x in snapshot(made).items() if name == "G_AB"}})
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--n_epochs_refine=1", "--refine_physics=0.5"], True),
        (["--n_epochs_refine=1"], False),
        ([], False),
    ],
)
def test_the_physics_is_estimated_where_it_is_used(
    phantom: Path, tmp_path: Path, options: Sequence[str], asked: bool
) -> None:
    argv = train_arguments(phantom, tmp_path, "cycle_gan", "--name=run", "--n_epochs_decay=0", "--lf_noise=auto")
    done = run("train.py", *argv, *options)
    assert done.status == 0, done.err
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["low_field"]
    physics = {"lf_resolution", "lf_contrast", "lf_tone"}
    assert set(kept) == {"lf_noise", *(physics if asked else ())}
    assert ("--lf_tone auto is" in done.out) == asked
    if asked:
        again = run("train.py", *argv, *options, "--continue_train", "--n_epochs_refine=2")
        assert again.status == 0, again.err
        assert f"--lf_tone auto is {kept['lf_tone']}, as the run began" in again.out


def test_a_batch_in_another_order() -> None:
    data = batch(4)
    chosen = data.items([2, 0])
    assert len(chosen) == 2 and chosen.key.tolist() == [2, 0]
    assert torch.equal(chosen.B, data.B[[2, 0]]) and torch.equal(chosen.mask_A, data.mask_A[[2, 0]])
    assert chosen.A.shape == (2, 1, SIDE, SIDE)
