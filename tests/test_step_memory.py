"""A step in parts: the same losses, gradients and weights, and less memory, which is counted beforehand."""

from __future__ import annotations

import pytest
import torch
from tiny_models import (
    SIDE,
    SMALL,
    batch,
    context,
    cycle_gan,
    gan_stage,
    generator_losses,
    in_double,
    last_step,
    pta,
    snapshot,
)

from data.batch import Batch
from models.cycle_gan_model import CycleGANModel
from models.cycle_gan_options import CycleGANOptions
from models.generator_pair import GeneratorPair
from models.update import Update
from training.activations import measure_activations
from training.kept_memory import kept_bytes, kept_memory


@pytest.mark.parametrize("model_class", ["pta", "cycle_gan", "cycle_gan, D with batch norm"])
def test_micro_batches_give_the_same_update(model_class: str) -> None:
    results = []
    for micro in (4, 1, 3):
        if model_class == "pta":
            model: GeneratorPair = pta(loss_preset="paper", syn_form="cos", lambda_idt=0.5, pool_size=0)
        else:
            model = cycle_gan(pool_size=0, norm_D="batch" if "batch norm" in model_class else "same")
        L = last_step(model.double(), in_double(batch()), context(micro))
        results.append((L, snapshot(model)))
    for L, weights in results[1:]:
        for name, value in results[0][0].items():
            assert L[name].item() == pytest.approx(value.item(), rel=1e-6)
        worst = max((weights[n].double() - v.double()).abs().max().item() for n, v in results[0][1].items())
        assert worst < 1e-6  # Adam's first step has size lr = 2e-4


def test_what_autograd_keeps_is_counted_for_as_long_as_it_keeps_it() -> None:
    """Of a saved output, too, where the tensor knows its graph and the graph the tensor."""
    layer, most = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Sigmoid()), []
    image = torch.zeros(1, 1, SIDE, SIDE)
    for passes in (1, 3):
        with kept_memory(layer, context()) as memory:
            for _ in range(passes):
                layer(image).sum()
        most.append(memory.most)
    assert most[0] == most[1] == 4 * SIDE**2 * (1 + 4)  # the image and what the sigmoid has made
    with kept_memory(layer, context()) as memory:
        graphs = [layer(image).sum() for _ in range(3)]
    assert memory.most == 4 * SIDE**2 * (1 + 3 * 4)
    del graphs


@pytest.mark.parametrize(
    "options", [{"lf_noise": 0.1, "lf_bias": 0.1}, {"syn_form": "cos", "structured_shape_iter": 9}]
)
def test_terms_one_by_one_have_the_gradients_of_the_whole_loss(options: dict) -> None:
    """The update that drops every term's graph, against the same loss as one graph."""
    model, data = pta(**options).double(), in_double(batch())
    stage = gan_stage(model)
    stage.begin(model)
    generators = [*model.G_AB.parameters(), *model.G_BA.parameters()]
    generator_losses(model, data)[0].total.backward()
    whole = [p.grad.clone() for p in generators if p.grad is not None]
    stage.losses(data, Update(stage.optimisers["G"], context()))
    one_by_one = [p.grad for p in generators if p.grad is not None]
    assert len(whole) > 20
    for one, other in zip(one_by_one, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_terms_one_by_one_keep_a_third_of_the_memory() -> None:
    model, data = cycle_gan(), batch()
    stage = gan_stage(model)
    stage.begin(model)
    with kept_memory(model, context()) as memory:
        generator_losses(model, data)
    assert kept_bytes(model, stage, data, context()) < 0.36 * memory.most


def test_activations_are_counted_without_the_weights_and_grow_with_the_image() -> None:
    sizes = []
    for side in (32, 64):
        torch.manual_seed(0)
        model = CycleGANModel(CycleGANOptions(**SMALL), (side, side))
        image, mask, one = torch.zeros(1, 1, side, side), torch.ones(1, 1, side, side), torch.zeros(1)
        stage = gan_stage(model)
        stage.begin(model)
        data = Batch(image, image, mask, mask, one, one, one.long(), one.long(), one.long())
        sizes.append(kept_bytes(model, stage, data, context()))
    assert sizes[0] > 4 * 32 * 32 * 8  # more than a few feature maps
    assert sizes[1] == pytest.approx(4 * sizes[0], rel=0.15)


def test_two_images_tell_of_many_in_mixed_precision() -> None:
    model, data = pta(pool_size=0), batch(8)
    where = context(1, amp_dtype=torch.bfloat16)
    found = measure_activations(model, gan_stage(model), data, where)
    assert found.of(8) == pytest.approx(kept_bytes(model, gan_stage(model), data, where), rel=0.02)
