"""`--model cut`: PatchNCE against a formula of its own, hidden states of every generator, one direction."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from running import run
from tiny_models import SIDE, SMALL, batch, changed, context, snapshot
from torch import nn

from models.cut_model import CUTModel
from models.cut_options import CUTOptions
from models.losses import patch_nce_loss
from models.networks import GENERATORS, GeneratorOptions, make_generator
from models.networks.layers import ResidualUnit
from models.passes import hidden_states, translate
from models.update import Update


def cut(**options: object) -> CUTModel:
    torch.manual_seed(0)
    return CUTModel(CUTOptions(**{**SMALL, **options}), (SIDE, SIDE))


def step(model: CUTModel, data=None) -> dict[str, torch.Tensor]:
    (stage,) = model.stages
    stage.begin(model)
    return stage.step(batch() if data is None else data, context())


def test_patch_nce_by_hand() -> None:
    """Two images of three places each; the negatives are the other places of the same image."""
    made, source = (nn.functional.normalize(torch.randn(2, 3, 5), dim=-1) for _ in "ab")
    terms = []
    for u, v in zip(made, source, strict=True):
        for i in range(3):
            like = [torch.exp(u[i] @ v[j] / 0.07) for j in range(3)]
            terms.append(-torch.log(like[i] / sum(like)))
    assert patch_nce_loss(made, source, 0.07).item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    near_zero = patch_nce_loss(torch.eye(5)[None, :3], torch.eye(5)[None, :3], 0.07)
    assert near_zero.item() < 1e-5
    with pytest.raises(ValueError, match="patch_nce_loss"):
        patch_nce_loss(made, source[:, :2], 0.07)


@pytest.mark.parametrize("name", GENERATORS)
def test_hidden_states_are_those_of_the_forward_pass(name: str) -> None:
    """From fine to coarse, several scales, and with gradients to the image: what the decoder's output is made of."""
    torch.manual_seed(0)
    side = {"unet_32": 128, "unet_residual": 128, "unet_128": 128, "unet_256": 256}.get(name, 64)
    sizes = {part: value for part, value in SMALL.items() if part.startswith("hybrid")}
    network = make_generator(GeneratorOptions(netG=name, ngf=4, **sizes))
    x = torch.rand(2, 1, side, side, requires_grad=True)
    states = hidden_states(network, x)
    sides = [state.shape[-1] for state in states]
    assert sides == sorted(sides, reverse=True) and sides[0] == side and len(set(sides)) >= 3 and sides[-1] >= 8
    seen: list[torch.Tensor] = []
    handles = [
        module.register_forward_hook(lambda _, __, out: seen.append(out.detach().clone()))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | ResidualUnit)
    ]
    translate(network, x)
    for handle in handles:
        handle.remove()
    if name != "hybrid":  # the others' are the outputs of convolutions or of residual units
        assert any(torch.equal(states[1], found) for found in seen)
    sum(state.square().mean() for state in states[1:]).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_a_step_trains_the_generator_the_features_and_the_discriminator() -> None:
    model = cut()
    before = snapshot(model)
    found = step(model)
    assert set(found) == {"adv", "nce", "nce_idt", "seg", "D_B"}
    assert changed(before, model) == {"G_AB", "ema_G_AB", "D_B", "features"}
    assert all(value.isfinite() for value in found.values())


def test_the_source_s_features_get_no_gradient_and_the_synthesis_does() -> None:
    model = cut(lambda_adv=0.0, lambda_nce_idt=0.0, lambda_seg=0.0)
    (stage,), data = model.stages, batch()
    stage.begin(model)
    fake, source = data.B.clone().requires_grad_(), data.A.clone().requires_grad_()
    stage.nce(fake, source, data.mask_A, data.key, False, "a").backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0 and source.grad is None


def test_most_places_lie_in_the_head_and_all_follow_the_key() -> None:
    (stage,) = cut(nce_patches=100).stages
    mask = torch.zeros(3, 1, SIDE, SIDE)
    mask[..., 4:16, 4:16] = 1  # 144 places
    keys = torch.arange(3)
    places = stage._places(mask, (SIDE, SIDE), keys, "x")
    inside = mask.flatten(1).gather(1, places)
    assert places.shape == (3, 100) and inside[:, :88].all() and not inside[:, 88:].all()
    assert all(len(set(row.tolist())) == 100 for row in places)
    assert torch.equal(places[1:], stage._places(mask[1:], (SIDE, SIDE), keys[1:], "x"))
    assert not torch.equal(places, stage._places(mask, (SIDE, SIDE), keys, "y"))
    assert stage._places(mask, (4, 4), keys, "x").shape == (3, 16)


def test_weights_of_zero_leave_terms_out_and_the_scan_reaches_the_identity() -> None:
    assert set(step(cut(lambda_nce=0.0, lambda_seg=0.0))) == {"adv", "nce_idt", "D_B"}
    assert set(step(cut(lambda_nce_idt=0.0, lambda_seg=0.0))) == {"adv", "nce", "D_B"}
    plain, noisy = step(cut()), step(cut(lf_noise=0.3))
    assert torch.equal(plain["nce"], noisy["nce"]) and not torch.equal(plain["nce_idt"], noisy["nce_idt"])


def test_nce_sinks_while_a_synthesis_keeps_its_source() -> None:
    """On one batch, without a discriminator's say, fake_B's places become those of a."""
    model, data = cut(lambda_adv=0.0, lambda_nce_idt=0.0, lambda_seg=0.0, lr=2e-3), replace(batch(2))
    first = step(model, data)["nce"].item()
    for _ in range(15):
        last = step(model, data)["nce"].item()
    assert last < 0.7 * first


def test_micro_batches_give_the_same_terms() -> None:
    found = []
    for size in (4, 2):
        model = cut().double()
        (stage,) = model.stages
        stage.begin(model)
        data = batch()._map(lambda x: x.double() if x.is_floating_point() else x)
        found.append(stage.step(data, context(size)))
    for name, value in found[0].items():
        assert found[1][name].item() == pytest.approx(value.item(), rel=1e-6)


def test_refinement_needs_another_model() -> None:
    done = run("train.py", "--dataroot=D", "--model=cut", "--n_epochs_refine=2")
    assert done.status == 2 and "--n_epochs_refine needs --model pta_hybrid" in done.err


def test_kept_memory_is_measured_by_one_image() -> None:
    """The generators' optimiser holds the features too, so that the first update is the largest."""
    model = cut()
    (stage,) = model.stages
    of_G = {id(p) for group in stage.optimisers["G"].param_groups for p in group["params"]}
    assert of_G == {id(p) for p in (*model.G_AB.parameters(), *model.features.parameters())}
    stage.begin(model)
    stage.losses(batch(), Update(stage.optimisers["G"], context()))
    assert all(p.grad is not None for p in model.features.parameters())
