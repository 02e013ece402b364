"""What docs/method.md section 3 promises of a training step, on tiny networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from data.batch import Batch
from models.base_model import StepContext
from models.cycle_gan_model import GAN, CycleGANModel, CycleGANOptions
from models.low_field import disturbed, noise, receive_field
from models.lsc_model import MEMORISED_DB, LSCModel, LSCOptions, MemoryWatch
from models.pta_model import LOSS_PRESETS, PTAModel, PTAOptions
from models.refinement import REFINE
from models.sgp_model import SGPModel, SGPOptions
from util.errors import UserError

SIDE = 32
SMALL = {
    "hybrid_width": 24, "hybrid_depth": 2, "hybrid_heads": 2, "hybrid_mlp": 32, "hybrid_patch": 8, "hybrid_features": 4,
    "netD": "n_layers", "n_layers_D": 1, "ndf": 4,
}  # fmt: skip
SMALL_SGP = {"sgp_input": 32, "sgp_patch": 8, "sgp_width": 32, "sgp_depth": 1, "sgp_heads": 2, "sgp_embedding": 16}


def smooth_images(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(-1, 1)


def batch(n: int = 4, key: int = 0) -> Batch:
    mask = torch.ones(n, 1, SIDE, SIDE)
    mask[..., :12] = 0
    levels, index = torch.linspace(0.1, 0.9, n), torch.arange(n)
    return Batch(
        smooth_images(n, 1), smooth_images(n, 2), mask, mask.flip(-1), levels, levels, index, index, index + key
    )


def context(micro_batch: int = 4) -> StepContext:
    return StepContext(torch.device("cpu"), micro_batch)


def generator_terms(model: CycleGANModel, data: Batch, extras: dict, where: StepContext) -> tuple:
    """All parts of the generators' loss: terms, fake_A, fake_B."""
    L: dict[str, torch.Tensor] = {}
    fakes = {}
    for part in model.parts(data, extras, where):
        fakes |= part.fakes
        for name, value in part.terms.items():
            L[name] = L[name] + value if name in L else value
    return L, fakes["A"], fakes["B"]


def pta(**options: object) -> PTAModel:
    torch.manual_seed(0)
    return PTAModel(PTAOptions(**{**SMALL, **SMALL_SGP, "lsc_blocks": 8, **options}), (SIDE, SIDE))


def gan_step(model: CycleGANModel, data: Batch, where: StepContext) -> dict[str, torch.Tensor]:
    stage = model.stages[-1]
    for network in model.stage_networks(stage):
        network.train()
    return model.training_step(data, stage, where)


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], model: torch.nn.Module) -> set[str]:
    return {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


def test_pta_stages_and_exports() -> None:
    assert [stage.name for stage in pta().stages] == ["sgp", "lsc", GAN]
    assert [stage.name for stage in pta(sgp_match="none", pretext_adv="none").stages] == [GAN]
    assert [stage.name for stage in pta(n_epochs_refine=2).stages] == ["sgp", "lsc", GAN, REFINE]
    assert set(pta().exported_networks()) == {"G_AB", "G_BA", "D_A", "D_B", "SGP", "LSC"}


@pytest.mark.parametrize("gan_mode", ["lsgan", "vanilla", "wgangp"])
@pytest.mark.parametrize("pretext_adv", ["concat", "separate", "none"])
def test_a_step_moves_generators_and_discriminators_and_nothing_frozen(gan_mode: str, pretext_adv: str) -> None:
    model = pta(gan_mode=gan_mode, pretext_adv=pretext_adv, loss_preset="paper", syn_form="cos")
    before = snapshot(model)
    L = gan_step(model, batch(), context())
    assert set(L) == {"cycle", "adv", "seg", "syn", "D_A", "D_B"}  # the paper's preset has no identity term
    assert all(torch.isfinite(value) for value in L.values())
    assert changed(before, model) == {"G_AB", "G_BA", "D_A", "D_B", "ema_G_AB", "ema_G_BA"}


def test_generator_step_reaches_every_generator_parameter_and_no_discriminator() -> None:
    model = pta(lambda_idt=1.0)
    model._set_requires_grad(discriminators=False)
    data, where = batch(), context()
    terms, _, _ = generator_terms(model, data, model.begin_step(data, where), where)
    model.total(terms).backward()
    missing = [name for name, p in [*model.G_AB.named_parameters(), *model.G_BA.named_parameters()] if p.grad is None]
    assert missing == []
    assert all(p.grad is None for p in [*model.D_A.parameters(), *model.D_B.parameters()])


def adversarial_gradient(model: PTAModel) -> torch.Tensor:
    """Gradient of L_adv of D_B alone with respect to the synthesis."""
    model._set_requires_grad(discriminators=False)
    fake = smooth_images(2, 5).requires_grad_(True)
    draws = model.lsc.draw(fake, torch.arange(2), "C") if model.lsc else None
    (shown,) = model.judged_B(fake, draws)
    model._adversarial(model.D_B(shown), real=True).backward()
    return fake.grad


def test_the_generator_feels_the_pretext_task() -> None:
    """The gradient reaches x through R(C(x)) as well: it is not the one that x alone would give."""
    model = pta()
    model.stage_networks(model.stages[-1])
    through_both = adversarial_gradient(model)
    restore = model.lsc.forward
    model.lsc.forward = lambda x, draws: restore(x, draws).detach()  # what the released code amounts to
    plain = adversarial_gradient(model)
    assert (through_both - plain).abs().max() > 1e-3 * through_both.abs().max()
    assert all(p.grad is None for p in model.lsc.parameters())


def test_real_and_fake_share_one_corruption() -> None:
    model, x = pta(), smooth_images(3, 1)
    draws = model.draw_for_discriminator(batch(3))
    assert torch.equal(model.judged_B(x, draws)[0], model.judged_B(x.clone(), draws)[0])
    again = model.draw_for_discriminator(batch(3, key=9))
    assert not torch.equal(draws, again)


def test_matching_in_the_batch_changes_nothing_but_L_syn() -> None:
    model = pta(sgp_match="batch", syn_form="l1", lambda_syn=1.0, lambda_idt=1.0).eval()
    model.sgp.assign = lambda data, where: torch.tensor([1, 0, 3, 2])
    terms = {}
    for match in ("batch", "none"):
        model.options = dataclasses.replace(model.options, sgp_match=match)
        data, where = batch(), context()
        terms[match], _, _ = generator_terms(model, data, model.begin_step(data, where), where)
    assert terms["batch"]["syn"] != terms["none"]["syn"]
    assert terms["batch"]["syn_A"] != terms["none"]["syn_A"]
    for name in ("cycle", "idt", "adv", "seg"):
        assert terms["batch"][name] == terms["none"][name]


@pytest.mark.parametrize("stage", [1, 2, 3])  # SGP's loss needs others' images
@pytest.mark.parametrize("form", ["l1", "cos"])
def test_a_process_without_images_of_a_batch_takes_part_in_the_step(form: str, stage: int) -> None:
    """Its gradients and losses are nothing, and the weights stay what they are until others' gradients come."""
    model = pta(syn_form=form, low_noise=0.1, low_bias=0.1, n_epochs_refine=1, gan_mode="wgangp")
    where, nothing = context(), batch().rows(0, 0)
    where.images = 4
    chosen = model.stages[stage]
    model.stage_networks(chosen)
    before = snapshot(model)
    L = model.training_step(nothing, chosen, where)
    assert all(value == 0 for value in L.values())
    assert changed(before, model) <= {"ema_G_AB", "ema_G_BA"}


def test_both_halves_of_L_syn_compare_the_same_pairs() -> None:
    model, data, order = pta(sgp_match="batch"), batch(), [1, 2, 0, 3]
    model.sgp.assign = lambda data, where: torch.tensor(order)
    extras = model.begin_step(data, context())
    for i, j in enumerate(order):
        assert torch.equal(extras["partner_of_A"][i], data.B[j])
        assert torch.equal(extras["partner_of_B"][j], data.A[i])


@pytest.mark.parametrize("form", ["l1", "cos"])
def test_each_half_of_L_syn_teaches_its_own_generator(form: str) -> None:
    model, data, where = pta(syn_form=form), batch(), context()
    for part in (model.sgp, model.lsc):
        part.requires_grad_(False)
    for term, taught, other in (("syn", model.G_AB, model.G_BA), ("syn_A", model.G_BA, model.G_AB)):
        terms, _, _ = generator_terms(model, data, model.begin_step(data, where), where)
        model.zero_grad(set_to_none=True)
        terms[term].backward()
        assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in taught.parameters())
        assert all(weight.grad is None for weight in other.parameters())


def test_assignment_is_the_best_permutation() -> None:
    model = SGPModel(SGPOptions(**SMALL_SGP), (SIDE, SIDE))
    data = batch(4)
    u = torch.eye(16)[[2, 0, 3, 1]]
    model.sgp.embed = lambda images, domain: u if domain == "A" else torch.eye(16)[:4]
    assert model.sgp.assign(data, context()).tolist() == [2, 0, 3, 1]


def test_bank_finds_the_nearest_high_field_slices() -> None:
    model = SGPModel(SGPOptions(**SMALL_SGP), (SIDE, SIDE))
    low, high = smooth_images(5, 1), smooth_images(9, 2)
    table = model.sgp.nearest(iter(low.split(2)), iter(high.split(4)), 3)
    similarity = model.sgp.embed(low, "A") @ model.sgp.embed(high, "B").T
    assert table.shape == (5, 3)
    assert table.tolist() == similarity.argsort(1, descending=True)[:, :3].tolist()


def test_low_field_noise_is_in_the_head_of_fake_A_and_repeats_with_the_key() -> None:
    plain, noisy = pta(), pta(low_noise=0.2)
    noisy.load_state_dict(plain.state_dict())
    fakes = []
    for model, key in ((plain, 0), (noisy, 0), (noisy, 0), (noisy, 9)):
        data, where = batch(key=key), context()
        _, fake_A, _ = generator_terms(model, data, model.begin_step(data, where), where)
        fakes.append(fake_A.detach())
    added = fakes[1] - fakes[0]
    inside = data.mask_B.bool()
    assert added[inside].std().item() == pytest.approx(0.2, abs=0.03)
    assert (added[~inside] == 0).all()
    assert torch.equal(fakes[1], fakes[2])
    assert not torch.equal(fakes[1], fakes[3])


def test_G_BA_restores_a_from_noisier_images_than_fake_A() -> None:
    """Or the cycle would reward G_AB for a's noise."""
    data, where = batch(), context()
    model = pta(low_noise=0.1)
    extras = model.begin_step(data, where)
    for name, mask in (("noise_A", data.mask_A), ("noise_fake_B", data.mask_A)):
        assert extras[name][mask.bool()].std().item() == pytest.approx(0.3, rel=0.15)
    for name in ("noise_fake_A", "noise_B"):
        assert extras[name][data.mask_B.bool()].std().item() == pytest.approx(0.1, rel=0.15)
    seen = []
    model.G_BA.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator_terms(model, data, extras, where)
    assert torch.equal(seen[1], torch.cat([data.B, disturbed(data.A, extras["noise_A"])]))


@pytest.mark.parametrize("band", [1.0, 0.5])
def test_low_field_noise_has_the_deviation_and_the_band_asked_for(band: float) -> None:
    drawn = noise(torch.ones(64, 1, 32, 48), 0.1, band, torch.arange(64), "noise")
    assert drawn.std().item() == pytest.approx(0.1, rel=0.03)
    power = torch.fft.fft2(drawn).abs().square().mean((0, 1)) / (32 * 48 * 0.1**2)
    highest = torch.maximum(torch.fft.fftfreq(32).abs()[:, None], torch.fft.fftfreq(48).abs()[None]) * 2
    assert power[highest > band].sum() < 1e-6
    flat = power[highest < 0.7 * band]
    assert flat.std() / flat.mean() < 0.2  # 64 draws: 1 / 8


def test_receive_fields_are_smooth_have_the_deviation_asked_for_and_keep_the_background() -> None:
    image = smooth_images(400, 3)[..., :24, :]
    fields = receive_field(image, 0.1, torch.arange(400), "field")
    assert fields.shape == (400, 1, 24, 32)
    assert fields.log().std(0).mean().item() == pytest.approx(0.1, rel=0.1)
    assert fields.log().mean().item() == pytest.approx(0, abs=0.01)
    assert fields.log().diff(dim=-1).abs().max().item() < 0.1  # of neighbours; of far away ones some 0.3
    image[..., :5] = -1
    changed_image = disturbed(image, field=fields)
    assert (changed_image[..., :5] == -1).all()
    inside = changed_image.abs() < 1
    assert torch.allclose((changed_image + 1)[inside], ((image + 1) * fields)[inside], atol=1e-6)


def test_fake_A_has_the_random_receive_field_that_b_has_in_the_identity_loss() -> None:
    data = batch()
    plain, biased = pta(), pta(low_bias=0.2)
    biased.load_state_dict(plain.state_dict())
    seen, fakes = [], []
    biased.G_AB.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for model in (plain, biased):
        where = context()
        extras = model.begin_step(data, where)
        fakes.append(generator_terms(model, data, extras, where)[1].detach())
    assert torch.equal(fakes[1], disturbed(fakes[0], field=extras["field_fake_A"]))
    assert torch.equal(seen[0], torch.cat([data.A, disturbed(data.B, field=extras["field_B"])]))
    assert not torch.equal(extras["field_fake_A"], extras["field_B"])


def test_the_last_epochs_move_G_AB_alone_and_towards_b() -> None:
    model, data = pta(n_epochs_refine=3, low_noise=0.1, low_bias=0.1, lr=2e-3), batch()
    gan, refine = model.stages[-2:]
    assert (gan.name, refine.name, refine.epochs, refine.epochs_before) == (GAN, REFINE, 3, gan.epochs)
    before, where = snapshot(model), context()
    L = [gan_step(model, data, where) for _ in range(30)]
    assert set(L[0]) == {"cycle", "ssim", "seg"}
    assert changed(before, model) == {"G_AB", "ema_G_AB"}
    for name, share in (("cycle", 0.8), ("ssim", 0.95)):
        assert sum(terms[name] for terms in L[-5:]) < share * sum(terms[name] for terms in L[:5])
    assert "ssim" not in gan_step(pta(n_epochs_refine=3, refine_ssim=0), data, context())
    rates = []
    for _ in range(3):
        rates.append(model.optimisers[REFINE].param_groups[0]["lr"])
        model.step_schedulers(refine)
    assert rates == pytest.approx([2e-3, 1.5e-3, 1e-3])
    with pytest.raises(UserError, match="needs a --lambda_cycle above 0"):
        pta(n_epochs_refine=3, lambda_cycle=0)


def test_discriminators_without_normalisation_see_brightness() -> None:
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for norm_D, sees in (("same", False), ("none", True)):
        torch.manual_seed(0)
        D_A = pta(norm_D=norm_D, init_gain=0.2).D_A
        first = D_A.layers[0]
        torch.nn.init.zeros_(first.bias)
        change = (D_A(0.5 * image) - D_A(image)).abs().max() / D_A(image).std()
        assert (change.item() > 0.1) is sees


def test_the_true_mask_steers_only_the_first_images() -> None:
    model = pta(structured_shape_iter=8, fth=0.0)  # threshold 0: every predicted patch is foreground
    data, where = batch(), context()
    seen = []
    original = model.G_AB.forward
    model.G_AB.forward = lambda x, mask=None: seen.append(mask is not None) or original(x, mask)
    for images in (0, 7, 8):
        where.images_seen = images
        generator_terms(model, data, model.begin_step(data, where), where)
    assert seen == [True] * (len(seen) * 2 // 3) + [False] * (len(seen) // 3)
    model.synthesise(data.A)


def test_loss_presets_and_explicit_weights() -> None:
    paper = LOSS_PRESETS["paper"]
    assert (paper.syn, paper.idt, paper.cycle, paper.adv, paper.seg) == (0.5, 0.0, 0.2, 0.3, 0.5)
    released = LOSS_PRESETS["released"]
    assert (released.syn, released.idt, released.cycle, released.adv, released.seg) == (0, 5, 10, 1, 0.5)
    balanced = LOSS_PRESETS["balanced"]
    listed = f"`balanced` {balanced.syn:g}, {balanced.idt:g}, {balanced.cycle:g}, {balanced.adv:g}, {balanced.seg:g}."
    assert listed in (Path(__file__).parent.parent / "docs" / "options.md").read_text()
    assert balanced.syn_A == 2 and paper.syn_A == released.syn_A == 0
    assert pta(loss_preset="paper", lambda_cycle=7.0).weights == dataclasses.replace(paper, cycle=7.0)
    terms = {name: torch.tensor(float(i + 1)) for i, name in enumerate(("cycle", "adv", "seg", "syn"))}
    assert pta(loss_preset="paper").total(terms).item() == pytest.approx(0.2 * 1 + 0.3 * 2 + 0.5 * 3 + 0.5 * 4)
    in_the_end = {"cycle": torch.tensor(1.0), "ssim": torch.tensor(2.0)}
    assert pta(loss_preset="paper", refine_ssim=3).total(in_the_end).item() == pytest.approx(0.2 * (1 + 3 * 2))


def test_overfits_one_batch_of_smooth_images() -> None:
    torch.manual_seed(0)
    model = CycleGANModel(CycleGANOptions(**SMALL, lr=2e-3, lambda_idt=0.0, lambda_adv=0.1), (SIDE, SIDE))
    data, where = batch(2), context()
    first = gan_step(model, data, where)["cycle"].item()
    for _ in range(120):
        last = gan_step(model, data, where)["cycle"].item()
    assert last < first / 3


def test_sgp_learns_to_match_levels() -> None:
    torch.manual_seed(0)
    model = SGPModel(SGPOptions(**SMALL_SGP, sgp_steps=200, sgp_lr=2e-3, sgp_soft_sigma=0.0), (SIDE, SIDE))
    data, where = batch(4), context()
    data = dataclasses.replace(data, B=0.5 * data.A - 0.5)  # the same content, another contrast
    steps = (dataclasses.replace(data, key=data.key + 4 * step) for step in range(200))
    losses = [model.training_step(step, model.stages[0], where)["sgp"].item() for step in steps]
    assert sum(losses[-20:]) < sum(losses[:20]) / 2
    matched = (model.sgp.embed(data.A, "A") @ model.sgp.embed(data.B, "B").T).argmax(1)
    assert (matched == torch.arange(4)).sum() >= 3  # two of the four look alike once they are shifted


def test_lsc_learns_from_high_field_only_and_watches_for_memorising() -> None:
    torch.manual_seed(0)
    model = LSCModel(LSCOptions(lsc_blocks=8, lsc_steps=40), (SIDE, SIDE))
    data = batch(4)
    stage, where = model.stages[0], context()
    spoiled = dataclasses.replace(data, A=torch.full_like(data.A, torch.nan))
    losses = [model.training_step(spoiled, stage, where)["lsc"].item() for _ in range(40)]
    assert losses[-1] < losses[0] / 2
    watch = MemoryWatch()
    watch.seen = [torch.tensor([3e-4, 3.0])]
    figures = watch.figures(model.lsc, iter([batch(2)]), where)
    assert figures["train_psnr"] == pytest.approx(40, abs=1e-3)
    assert figures["train_psnr"] - figures["val_psnr"] > MEMORISED_DB
    assert "unseen" in watch.verdict


def test_unusable_sizes_are_refused_before_training() -> None:
    with pytest.raises(UserError, match="multiples of 8, not 36x36"):
        PTAModel(PTAOptions(**{**SMALL, **SMALL_SGP}), (36, 36))
    with pytest.raises(UserError, match="at least 32 px"):
        CycleGANModel(CycleGANOptions(**{**SMALL, "n_layers_D": 3}), (16, 16))


@pytest.mark.parametrize("policy", ["linear", "step", "cosine"])
def test_learning_rates(policy: str) -> None:
    options = CycleGANOptions(**SMALL, lr=1.0, lr_policy=policy, n_epochs=2, n_epochs_decay=3, lr_decay_iters=2)
    model = CycleGANModel(options, (SIDE, SIDE))
    rates = []
    for _ in range(5):
        rates.append(model.optimisers["G"].param_groups[0]["lr"])
        model.optimisers["G"].step()
        model.optimisers["D"].step()
        model.step_schedulers(model.stages[-1])
    expected = {
        "linear": [1, 1, 0.75, 0.5, 0.25],
        "step": [1, 1, 0.1, 0.1, 0.01],
        "cosine": [(1 + torch.cos(torch.tensor(torch.pi * k / 5)).item()) / 2 for k in range(5)],
    }[policy]
    assert rates == pytest.approx(expected)
