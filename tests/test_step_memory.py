"""A step in parts: the same losses, gradients and weights, and less memory, which is counted beforehand."""

from __future__ import annotations

import pytest
import torch
from test_models import SIDE, SMALL, batch, context, gan_step, pta, snapshot

from data.batch import Batch
from models import losses
from models.base_model import StepContext, Update
from models.cycle_gan_model import CycleGANModel, CycleGANOptions
from models.kept_memory import kept_memory
from training.activations import measure_activations


@pytest.mark.parametrize("model_class", ["pta", "cycle_gan"])
def test_micro_batches_give_the_same_update(model_class: str) -> None:
    results = []
    for micro in (4, 1, 3):
        if model_class == "pta":
            model: CycleGANModel = pta(loss_preset="paper", syn_form="cos", lambda_idt=0.5, pool_size=0)
        else:
            torch.manual_seed(0)
            model = CycleGANModel(CycleGANOptions(**SMALL, pool_size=0), (SIDE, SIDE))
        model.double()
        data = batch()._each(lambda t: t.double() if t.is_floating_point() else t)
        L = gan_step(model, data, context(micro))
        results.append((L, snapshot(model)))
    for L, weights in results[1:]:
        for name, value in results[0][0].items():
            assert L[name].item() == pytest.approx(value.item(), rel=1e-6)
        worst = max((weights[n].double() - v.double()).abs().max().item() for n, v in results[0][1].items())
        assert worst < 1e-6  # Adam's first step has size lr = 2e-4


def test_large_images_take_their_identity_losses_apart_and_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    results, kept = [], []
    for pixels, n_parts in ((10**6, 6), (0, 8)):
        monkeypatch.setattr("models.cycle_gan_model.JOINED_PIXELS", pixels)
        model = pta(pool_size=0, low_noise=0.1, lsc_features=2).double()
        data = batch()._each(lambda t: t.double() if t.is_floating_point() else t)
        assert len(list(model.parts(data, model.begin_step(data, context()), context()))) == n_parts
        kept.append(model.activation_bytes(data, model.stages[-1], context()))
        results.append((gan_step(model, data, context()), snapshot(model)))
    assert kept[1] < 0.85 * kept[0]
    (L, weights), (L_apart, weights_apart) = results
    assert {n: v.item() for n, v in L.items()} == pytest.approx({n: v.item() for n, v in L_apart.items()}, rel=1e-9)
    assert max((weights[n] - weights_apart[n]).abs().max().item() for n in weights) < 1e-8


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


@pytest.mark.parametrize("joined_pixels", [10**6, 0])
def test_parts_of_the_generators_loss_have_the_gradients_of_the_whole(
    joined_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of docs/method.md section 3 as one graph, against the parts that the step cuts it into."""
    monkeypatch.setattr("models.cycle_gan_model.JOINED_PIXELS", joined_pixels)
    torch.manual_seed(0)
    model, where = CycleGANModel(CycleGANOptions(**SMALL), (SIDE, SIDE)).double(), context()
    data = batch()._each(lambda t: t.double() if t.is_floating_point() else t)
    a, b, w = data.A, data.B, model.weights
    (fake_B, logits_A), (fake_A, logits_B) = model.G_AB(a, data.mask_A), model.G_BA(b, data.mask_B)
    rec_A, rec_B = model.G_BA(fake_B, data.mask_A)[0], model.G_AB(fake_A, data.mask_B)[0]
    idt_A, idt_B = model.G_BA(a, data.mask_A)[0], model.G_AB(b, data.mask_B)[0]
    cycle, idt = ((x - a).abs().mean() + (y - b).abs().mean() for x, y in ((rec_A, rec_B), (idt_A, idt_B)))
    adv = sum(losses.adversarial_loss(D(x), real=True, mode="lsgan", label=0.9)
              for D, x in ((model.D_A, fake_A), (model.D_B, fake_B)))  # fmt: skip
    seg = losses.seg_loss(logits_A, data.mask_A) + losses.seg_loss(logits_B, data.mask_B)
    (w.cycle * cycle + w.idt * idt + w.adv * adv + w.seg * seg).backward()
    generators = (*model.G_AB.parameters(), *model.G_BA.parameters())
    whole = [p.grad.clone() for p in generators if p.grad is not None]
    update = Update(model.optimisers["G"], where)
    for part in model.parts(data, {}, where):
        update.add(model.total(part.terms) if part.terms else None, part.through)
    in_parts = [p.grad for p in generators if p.grad is not None]
    assert len(whole) > 20
    for one, other in zip(in_parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_activations_are_counted_without_the_weights_and_grow_with_the_image() -> None:
    sizes = []
    for side in (32, 64):
        torch.manual_seed(0)
        model = CycleGANModel(CycleGANOptions(**SMALL), (side, side))
        image, mask, one = torch.zeros(1, 1, side, side), torch.ones(1, 1, side, side), torch.zeros(1)
        sizes.append(
            model.activation_bytes(Batch(image, image, mask, mask, one, one, one, one, one), model.stages[0], context())
        )
    assert sizes[0] > 4 * 32 * 32 * 8  # more than a few feature maps
    assert sizes[1] == pytest.approx(4 * sizes[0], rel=0.15)


@pytest.mark.parametrize("joined_pixels", [0, SIDE**2])
def test_two_images_tell_of_many_in_mixed_precision(joined_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images go together with their identity losses, or apart, whatever their number: memory grows evenly with it."""
    monkeypatch.setattr("models.cycle_gan_model.JOINED_PIXELS", joined_pixels)
    model, data = pta(pool_size=0), batch(8)
    where = StepContext(torch.device("cpu"), 1, torch.bfloat16)
    found = measure_activations(model, data, model.stages[-1], where)
    assert found.of(8) == pytest.approx(model.activation_bytes(data, model.stages[-1], where), rel=0.02)
