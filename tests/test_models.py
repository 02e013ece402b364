"""What docs/method.md section 3 promises of a training step, on tiny networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import (
    SIDE,
    SMALL,
    SMALL_SGP,
    WholeGraph,
    batch,
    changed,
    context,
    cycle_gan,
    gan_stage,
    generator_losses,
    last_step,
    pta,
    smooth_images,
    snapshot,
)
from torch import Tensor

from models.chance import uniform
from models.cycle_gan_model import CycleGANModel
from models.cycle_gan_options import CycleGANOptions
from models.image_pool import ImagePool
from models.losses import clip_loss
from models.low_field import TAPER, LowFieldScan, band_limited, disturbed, noise, receive_field
from models.low_field_options import LowFieldOptions
from models.lsc_model import LSC, LSCModel
from models.lsc_options import LSCOptions, LSCTraining
from models.matching import even_pairs
from models.networks.inpainting import filled
from models.pta_model import PTAModel
from models.pta_options import LOSS_PRESETS, PTAOptions
from models.refinement import RefineStage
from models.sgp_model import SGP, SGPModel, _most_similar
from models.sgp_options import SGPOptions
from models.update import Update
from models.weights import load_weights
from util.errors import UserError


def test_pta_stages_and_exports() -> None:
    def names(**options: object) -> list[str]:
        return [stage.name for stage in pta(**options).stages]

    assert names() == ["sgp", "lsc", "gan"]
    assert names(sgp_match="none", pretext_adv="none") == ["gan"]
    assert names(n_epochs_refine=2) == ["sgp", "lsc", "gan", "refine"]
    assert set(pta().exported_networks()) == {"G_AB", "G_BA", "D_A", "D_B", "SGP", "LSC"}


@pytest.mark.parametrize("gan_mode", ["lsgan", "vanilla", "wgangp"])
@pytest.mark.parametrize("pretext_adv", ["concat", "separate", "none"])
def test_a_step_moves_generators_and_discriminators_and_nothing_frozen(gan_mode: str, pretext_adv: str) -> None:
    model = pta(gan_mode=gan_mode, pretext_adv=pretext_adv, loss_preset="paper", syn_form="cos")
    before = snapshot(model)
    L = last_step(model, batch(), context())
    assert set(L) == {"cycle", "adv", "seg", "syn", "D_A", "D_B"}  # the paper's preset has no identity term
    assert all(torch.isfinite(value) for value in L.values())
    assert changed(before, model) == {"G_AB", "G_BA", "D_A", "D_B", "ema_G_AB", "ema_G_BA"}


def test_generator_step_reaches_every_generator_parameter_and_no_discriminator() -> None:
    model = pta(lambda_idt=1.0)
    generator_losses(model, batch())[0].total.backward()
    missing = [name for name, p in [*model.G_AB.named_parameters(), *model.G_BA.named_parameters()] if p.grad is None]
    assert missing == []
    assert all(p.grad is None for p in [*model.D_A.parameters(), *model.D_B.parameters()])


def adversarial_gradient(model: PTAModel) -> torch.Tensor:
    """Gradient of L_adv of D_B alone with respect to the synthesis."""
    fake = smooth_images(2, 5).requires_grad_(True)
    gan_stage(model)._generator_adv_loss("B", fake, torch.arange(2)).backward()
    return fake.grad


def test_the_generator_feels_the_pretext_task() -> None:
    """The gradient reaches x through R(C(x)) as well: it is not the one that x alone would give."""
    model = pta()
    gan_stage(model).begin(model)
    through_both = adversarial_gradient(model)
    restore = model.lsc.forward
    model.lsc.forward = lambda x, draws: restore(x, draws).detach()  # what the released code amounts to
    plain = adversarial_gradient(model)
    assert (through_both - plain).abs().max() > 1e-3 * through_both.abs().max()
    assert all(p.grad is None for p in model.lsc.parameters())


def test_real_and_fake_share_one_corruption_that_no_other_update_draws() -> None:
    stage, x, keys = gan_stage(pta()), smooth_images(3, 1), torch.arange(3)
    (both,) = stage.judged("B", torch.cat([x, x]), torch.cat([keys, keys]), "discriminators")
    assert torch.equal(both[:3], both[3:])
    for other in ((keys + 9, "discriminators"), (keys, "generators")):
        assert not torch.equal(stage.judged("B", x, *other)[0], both[:3])
    assert stage.judged("A", x, keys, "generators")[0] is x


def test_matching_in_the_batch_changes_nothing_but_L_syn() -> None:
    model = pta(sgp_match="batch", syn_form="l1", lambda_syn=1.0, lambda_idt=1.0).eval()
    model.sgp.assign = lambda data, where: torch.tensor([1, 0, 3, 2])
    stage, terms = gan_stage(model), {}
    for match in ("batch", "none"):
        stage.options = dataclasses.replace(stage.options, sgp_match=match)
        terms[match] = generator_losses(model, batch())[0].terms
    assert terms["batch"]["syn"] != terms["none"]["syn"]
    assert terms["batch"]["syn_A"] != terms["none"]["syn_A"]
    for name in ("cycle", "idt", "adv", "seg"):
        assert terms["batch"][name] == terms["none"][name]


@pytest.mark.parametrize("stage", [1, 2, 3])  # SGP's loss needs others' images
@pytest.mark.parametrize("form", ["l1", "cos"])
def test_a_process_without_images_of_a_batch_takes_part_in_the_step(form: str, stage: int) -> None:
    """Its gradients and losses are nothing, and the weights stay what they are until others' gradients come."""
    model = pta(syn_form=form, lf_noise=0.1, lf_bias=0.1, n_epochs_refine=1, gan_mode="wgangp")
    where, nothing = context(), batch().rows(0, 0)
    where.images = 4
    chosen = model.stages[stage]
    chosen.begin(model)
    before = snapshot(model)
    L = chosen.step(nothing, where)
    assert all(value == 0 for value in L.values())
    assert changed(before, model) <= {"ema_G_AB", "ema_G_BA"}


def test_both_halves_of_L_syn_compare_the_same_pairs() -> None:
    model, data, order = pta(sgp_match="batch"), batch(), [1, 2, 0, 3]
    model.sgp.assign = lambda data, where: torch.tensor(order)
    partners = gan_stage(model).partners(data, context())
    for i, j in enumerate(order):
        assert torch.equal(partners["A"][i], data.B[j])
        assert torch.equal(partners["B"][j], data.A[i])


@pytest.mark.parametrize("form", ["l1", "cos"])
def test_each_half_of_L_syn_teaches_its_own_generator(form: str) -> None:
    model, data = pta(syn_form=form), batch()
    gan_stage(model).begin(model)
    for term, taught, other in (("syn", model.G_AB, model.G_BA), ("syn_A", model.G_BA, model.G_AB)):
        model.zero_grad(set_to_none=True)
        generator_losses(model, data)[0].terms[term].backward()
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
    levels = np.linspace(0, 1, 5), np.linspace(0, 1, 9)
    of_low, of_high = model.sgp.nearest(iter(low.split(2)), iter(high.split(4)), 3, levels)
    cosine = (model.sgp.embed(low, "A") @ model.sgp.embed(high, "B").T).numpy()
    crowd_low, crowd_high = (np.sort(x, 1)[:, -3:].mean(1) for x in (cosine, cosine.T))
    near = 2 * cosine - crowd_low[:, None] - crowd_high
    assert of_low.shape == (5, 3) and of_high.shape == (9, 3)
    assert of_low.tolist() == (-near).argsort(1)[:, :3].tolist()
    assert of_high.tolist() == (-near.T).argsort(1)[:, :3].tolist()
    of_low, of_high = model.sgp.nearest(iter(low.split(2)), iter(high.split(4)), 3, levels, window=0.13)
    apart = np.abs(levels[0][:, None] - levels[1])
    inside = np.where(apart <= 0.13, near, near - 10 * (apart / 0.13 - 1))
    assert of_low.tolist() == (-inside).argsort(1)[:, :3].tolist()
    assert of_high.tolist() == (-inside.T).argsort(1)[:, :3].tolist()
    assert (np.take_along_axis(apart, of_low, 1)[1:-1] <= 0.13).all()


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_cache_s_levels_which_nobody_may_write_are_taken_without_a_warning() -> None:
    model = SGPModel(SGPOptions(**SMALL_SGP), (SIDE, SIDE))
    levels = np.linspace(0, 1, 5, dtype=np.float32), np.linspace(0, 1, 9, dtype=np.float32)
    for of_field in levels:
        of_field.flags.writeable = False
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch says it once a process
    try:
        model.sgp.nearest(iter([smooth_images(5, 1)]), iter([smooth_images(9, 2)]), 3, levels)
    finally:
        torch.set_warn_always(before)


def test_a_process_without_slices_finds_nothing() -> None:
    """As of several processes, if there are fewer slices than processes."""
    window = torch.zeros(0), torch.rand(7), 0.1
    for beside in (None, window):
        values, positions = _most_similar(torch.zeros(0, 4), torch.rand(7, 4), 3, torch.zeros(7), beside)
        assert values.shape == positions.shape == (0, 3)


def test_the_bank_shows_all_high_field_slices_equally_often() -> None:
    """Although most low-field slices prefer the same few of them."""
    rng = np.random.default_rng(0)
    popular = np.linspace(0, 1, 60) ** 3
    score = rng.random((50, 60)) + 2 * popular
    of_low, of_high = score.argsort(1)[:, -4:], score.T.argsort(1)[:, -4:]
    assert len(set(of_low.ravel().tolist())) < 30
    pairs = even_pairs(of_low, of_high)
    assert (np.diff(pairs.b) >= 0).all() and (pairs.share > 0).all()
    assert len(set(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))) == len(pairs.a)
    np.testing.assert_allclose(np.bincount(pairs.b, pairs.share), 1 / 60, rtol=1e-9)
    assert set(pairs.a.tolist()) == set(range(50))
    near = {(low, high) for low, row in enumerate(of_low.tolist()) for high in row}
    near |= {(low, high) for high, row in enumerate(of_high.tolist()) for low in row}
    assert set(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)) == near


def test_a_high_field_that_ends_sooner_gets_no_foreign_anatomy() -> None:
    """Levels 0 to 99 of A, of B the upper half twice: nothing of A's lower half is paired with more than its edge."""
    low, high = np.arange(100), np.repeat(np.arange(50, 100), 2)
    distance = np.abs(low[:, None] - high[None]) + np.random.default_rng(0).random((100, 100)) / 10
    pairs = even_pairs(distance.argsort(1)[:, :4], distance.T.argsort(1)[:, :4])
    inside = pairs.a >= 50
    error = np.abs(low[pairs.a] - high[pairs.b])
    assert np.average(error[inside], weights=pairs.share[inside]) < 3
    shown = np.bincount(pairs.a, pairs.share, 100)
    assert shown[55:].min() > 0.5 / 100


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({}, "pair"),
        ({"sgp_match": "none"}, "pair"),
        ({"sgp_match": "batch"}, "batch"),
        ({"syn_form": "cos"}, "pair"),
        ({"loss_preset": "released"}, "own"),
        ({"loss_preset": "released", "lambda_syn_A": 1.0}, "pair"),
    ],
)
def test_slices_that_L_syn_compares_share_their_crop(options: dict[str, object], places: str) -> None:
    model = pta(**options)
    assert gan_stage(model).places == places
    assert {stage.places for stage in model.stages if stage is not gan_stage(model)} <= {"own"}
    assert gan_stage(cycle_gan()).places == "own"


def test_the_pool_takes_its_chance_from_the_keys_of_the_run() -> None:
    """Not from a seed of its own: another --seed gives other keys."""
    images, swapped = torch.arange(40.0).view(40, 1, 1, 1), []
    for key in (0, 0, 1000):
        pool = ImagePool(10)
        returned = pool.query(images, uniform(torch.arange(40) + key, "pool", 2))
        assert returned[:10].tolist() == images[:10].tolist()
        swapped.append(returned.flatten().tolist())
        older = [value < place for place, value in enumerate(swapped[-1])]
        assert 5 < sum(older) < 25 and len(pool.images) == 10
    assert swapped[0] == swapped[1] != swapped[2]


def test_the_logits_of_SGP_are_exact_in_mixed_precision() -> None:
    u, v = (torch.nn.functional.normalize(smooth_images(6, seed).flatten(1), dim=1) for seed in (1, 2))
    t = torch.tensor(100.0).log()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = clip_loss(u, v, t)
    assert mixed.item() == clip_loss(u, v, t).item()


def test_low_field_noise_is_in_the_head_of_fake_A_and_repeats_with_the_key() -> None:
    plain, noisy = pta(), pta(lf_noise=0.2)
    noisy.load_state_dict(plain.state_dict())
    fakes = []
    for model, key in ((plain, 0), (noisy, 0), (noisy, 0), (noisy, 9)):
        data = batch(key=key)
        fakes.append(generator_losses(model, data)[1]["A"].detach())
    added = fakes[1] - fakes[0]
    inside = data.mask_B.bool()
    assert added[inside].std().item() == pytest.approx(0.2, abs=0.03)
    assert (added[~inside] == 0).all()
    assert torch.equal(fakes[1], fakes[2])
    assert not torch.equal(fakes[1], fakes[3])


def test_G_BA_restores_a_from_noisier_images_than_fake_A() -> None:
    """Or the cycle would reward G_AB for a's noise."""
    data, grey = batch(), torch.zeros(4, 1, SIDE, SIDE)
    scan = LowFieldScan(LowFieldOptions(lf_noise=0.1), data)
    for shown in (scan.on_real("A", grey), scan.on_way_back("B", grey)):
        assert shown[data.mask_A.bool()].std().item() == pytest.approx(0.3, rel=0.15)
    for shown in (scan.on_fake("A", grey), scan.on_real("B", grey)):
        assert shown[data.mask_B.bool()].std().item() == pytest.approx(0.1, rel=0.15)
    assert scan.on_fake("B", grey) is grey and scan.on_way_back("A", grey) is grey
    model, seen = pta(lf_noise=0.1), []
    model.G_BA.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    fake = generator_losses(model, data)[1]
    expected = [scan.on_way_back("B", fake["B"]), data.B, scan.on_real("A", data.A)]
    assert all(torch.equal(image, wanted) for image, wanted in zip(seen, expected, strict=True))


@pytest.mark.parametrize("band", [1.0, 0.5])
def test_low_field_noise_has_the_deviation_and_the_band_asked_for(band: float) -> None:
    drawn = noise(torch.ones(64, 1, 32, 48), 0.1, band, torch.arange(64), "noise")
    assert drawn.std().item() == pytest.approx(0.1, rel=0.03)
    power = torch.fft.fft2(drawn).abs().square().mean((0, 1)) / (32 * 48 * 0.1**2)
    highest = torch.maximum(torch.fft.fftfreq(32).abs()[:, None], torch.fft.fftfreq(48).abs()[None]) * 2
    assert power[highest > band].sum() < 1e-6
    flat = power[highest < 0.7 * band]
    assert flat.std() / flat.mean() < 0.2  # 64 draws: 1 / 8


def test_fake_A_shows_no_more_of_k_space_than_the_scanner_measured() -> None:
    image = torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    shown = band_limited(image, 0.5)
    highest = torch.maximum(torch.fft.fftfreq(32).abs()[:, None], torch.fft.fftfreq(48).abs()[None]) * 2
    before, after = (torch.fft.fft2(x + 1) for x in (image, shown))
    assert after[..., highest > 0.5].abs().max() < 1e-10
    kept = highest <= 0.5 * (1 - TAPER)
    assert torch.allclose(after[..., kept], before[..., kept])
    data = batch()
    plain = LowFieldScan(LowFieldOptions(lf_noise=1e-9), data).on_fake("A", data.B)
    limited = LowFieldScan(LowFieldOptions(lf_noise=1e-9, lf_band=0.5), data).on_fake("A", data.B)
    assert torch.allclose(plain, data.B, atol=1e-6)
    assert torch.allclose(limited, band_limited(data.B, 0.5).clamp(-1, 1), atol=1e-6)
    half = band_limited(data.B.bfloat16(), 0.5)
    assert half.dtype == torch.float32 and torch.allclose(half, band_limited(data.B, 0.5), atol=0.02)


def test_receive_fields_are_smooth_have_the_deviation_asked_for_and_keep_the_background() -> None:
    image = smooth_images(400, 3)[..., :24, :]
    fields = receive_field(image, 0.1, torch.arange(400), "field")
    assert fields.shape == (400, 1, 24, 32)
    assert fields.log().std(0).mean().item() == pytest.approx(0.1, rel=0.1)
    assert fields.log().mean().item() == pytest.approx(0, abs=0.01)
    assert fields.log().diff(dim=-1).abs().max().item() < 0.2  # of neighbours; of far away ones some 0.3
    image[..., :5] = -1
    changed_image = disturbed(image, field=fields)
    assert (changed_image[..., :5] == -1).all()
    inside = changed_image.abs() < 1
    assert torch.allclose((changed_image + 1)[inside], ((image + 1) * fields)[inside], atol=1e-6)


def test_fake_A_has_the_random_receive_field_that_b_has_in_the_identity_loss() -> None:
    data = batch()
    plain, biased = pta(), pta(lf_bias=0.2)
    biased.load_state_dict(plain.state_dict())
    seen = []
    biased.G_AB.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    fakes = [generator_losses(model, data)[1]["A"].detach() for model in (plain, biased)]
    scan = LowFieldScan(LowFieldOptions(lf_bias=0.2), data)
    assert torch.equal(fakes[1], scan.on_fake("A", fakes[0]))
    assert torch.equal(seen[0], data.A) and torch.equal(seen[2], scan.on_real("B", data.B))
    assert not torch.equal(scan.on_fake("A", data.B), scan.on_real("B", data.B))


def test_the_last_epochs_move_G_AB_alone_and_towards_b() -> None:
    model, data = pta(n_epochs_refine=3, lf_noise=0.1, lf_bias=0.1, lr=2e-3), batch()
    gan, refine = model.stages[-2:]
    assert isinstance(refine, RefineStage) and (refine.epochs, refine.epochs_before) == (3, gan.epochs)
    before, where = snapshot(model), context()
    L = [last_step(model, data, where) for _ in range(30)]
    assert set(L[0]) == {"cycle", "1-ssim", "seg"}
    assert changed(before, model) == {"G_AB", "ema_G_AB"}
    for name, share in (("cycle", 0.8), ("1-ssim", 0.95)):
        assert sum(terms[name] for terms in L[-5:]) < share * sum(terms[name] for terms in L[:5])
    assert "1-ssim" not in last_step(pta(n_epochs_refine=3, refine_ssim=0), data, context())
    rates = []
    for epoch in range(3):
        refine.set_learning_rate(epoch, step=9)
        rates.append(refine.optimisers["refine"].param_groups[0]["lr"])
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
        generator_losses(model, data, where)
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
    assert gan_stage(pta(loss_preset="paper", lambda_cycle=7.0)).weights == dataclasses.replace(paper, cycle=7.0)
    whole, _ = generator_losses(pta(loss_preset="paper"), batch())
    L = whole.terms
    assert set(L) == {"cycle", "adv", "seg", "syn"}
    expected = 0.2 * L["cycle"] + 0.3 * L["adv"] + 0.5 * L["seg"] + 0.5 * L["syn"]
    assert whole.total.item() == pytest.approx(expected.item())


def test_refinement_weighs_ssim_beside_the_cycle() -> None:
    model, whole = pta(loss_preset="paper", refine_ssim=3, n_epochs_refine=1), WholeGraph(context())
    model.stages[-1].losses(batch(), whole)
    L = whole.terms
    expected = 0.2 * (L["cycle"] + 3 * L["1-ssim"]) + 0.5 * L["seg"]
    assert whole.total.item() == pytest.approx(expected.item())


def test_overfits_one_batch_of_smooth_images() -> None:
    model = cycle_gan(lr=2e-3, lambda_idt=0.0, lambda_adv=0.1)
    data, where = batch(2), context()
    first = last_step(model, data, where)["cycle"].item()
    for _ in range(60):
        last = last_step(model, data, where)["cycle"].item()
    assert last < first / 3


def test_every_view_of_a_slice_counts_in_sgps_loss() -> None:
    """Two views: a batch of twice the size, in the order of the slices; the first view is that of a single one."""
    data, seen = batch(4), list[Tensor]()
    for views in (1, 2):
        sgp = sgp_of(sgp_views=views)
        hook = sgp.network.register_forward_hook(lambda module, given, found: seen.append(given[0]))
        terms = Update(torch.optim.SGD(sgp.parameters()), context())
        assert torch.isfinite(sgp.loss(data, terms.context))
        hook.remove()
    one, two = seen[0], seen[2]  # of domain A
    assert len(one) == 4 and len(two) == 8
    assert torch.equal(two[::2], one) and not torch.isclose(two[1::2], one).all()


def sgp_of(**options: object) -> SGP:
    torch.manual_seed(0)
    return SGP(SGPOptions(**SMALL_SGP, **options))


def test_sgp_learns_to_match_levels() -> None:
    torch.manual_seed(0)
    model = SGPModel(SGPOptions(**SMALL_SGP, sgp_steps=200, sgp_lr=2e-3, sgp_soft_sigma=0.0), (SIDE, SIDE))
    data, where = batch(4), context()
    data = dataclasses.replace(data, B=0.5 * data.A - 0.5)  # the same content, another contrast
    steps = (dataclasses.replace(data, key=data.key + 4 * step) for step in range(200))
    (stage,), losses = model.stages, []
    for i, step in enumerate(steps):
        stage.set_learning_rate(0, i)
        losses.append(stage.step(step, where)["sgp"].item())
    assert sum(losses[-20:]) < sum(losses[:20]) / 2
    matched = (model.sgp.embed(data.A, "A") @ model.sgp.embed(data.B, "B").T).argmax(1)
    assert (matched == torch.arange(4)).sum() >= 3  # two of the four look alike once they are shifted


def test_lsc_learns_from_high_field_only() -> None:
    torch.manual_seed(0)
    model = LSCModel(LSCOptions(lsc_blocks=8, lsc_steps=40, lsc_fill=False), (SIDE, SIDE))
    data = batch(4)
    stage, where = model.stages[0], context()
    spoiled = dataclasses.replace(data, A=torch.full_like(data.A, torch.nan))
    losses = [stage.step(spoiled, where)["lsc"].item() for _ in range(40)]
    assert losses[-1] < losses[0] / 2


def test_R_is_asked_about_training_and_unseen_slices_at_the_same_time() -> None:
    """So a short stage shows memory too: the errors of its own steps are those of weights that knew less."""
    torch.manual_seed(0)
    model = LSCModel(LSCOptions(lsc_blocks=8, mask_ratio=0.0, rotate_ratio=0.0), (SIDE, SIDE))
    stage, where, known, strange = model.stages[0], context(), batch(2), batch(3)
    assert stage.ended_early() == ""
    model.lsc.restore = lambda corrupted, masked: corrupted + (0.02 if len(corrupted) == 2 else 0.2)
    figures = stage.validate(iter([strange]), iter([known]), where)
    assert figures == pytest.approx({"psnr": 20, "train_psnr": 40}, abs=0.01)  # errors of 0.1 and 0.01 of the range
    assert "20.00 dB better than unseen ones" in stage.ended_early()
    stage.verdict = ""
    stage.validate(iter([known]), iter([strange]), where)
    assert stage.ended_early() == ""
    assert stage.validate(iter([]), iter([known]), where) == {}


def test_R_starts_as_good_as_what_needs_no_training() -> None:
    torch.manual_seed(0)
    lsc, x = LSC(LSCTraining(lsc_blocks=8)), batch(4).B
    corrupted, masked = lsc.corrupt(x, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = filled(lsc.network.unrotation(corrupted, 4), masked, 4)
    assert torch.equal(lsc.restore(corrupted, masked), expected.clamp(-1, 1))


def test_weights_of_an_R_that_fills_and_of_one_that_does_not_are_told_apart(tmp_path: Path) -> None:
    fills, plain = (LSC(LSCTraining(lsc_blocks=8, lsc_fill=fill)).network for fill in (True, False))
    assert fills.state_dict().keys() - plain.state_dict().keys() == {"fills"}
    for network, other in ((fills, plain), (plain, fills)):
        torch.save(network.state_dict(), tmp_path / "R.pth")
        load_weights(network, str(tmp_path / "R.pth"), "LSC")
        with pytest.raises(UserError, match=r"not weights of this LSC network \(fills is .* there and .* here"):
            load_weights(other, str(tmp_path / "R.pth"), "LSC")


def test_unusable_sizes_are_refused_before_training() -> None:
    with pytest.raises(UserError, match="multiples of 8, not 36x36"):
        PTAModel(PTAOptions(**{**SMALL, **SMALL_SGP}), (36, 36))
    with pytest.raises(UserError, match="at least 32 px"):
        CycleGANModel(CycleGANOptions(**{**SMALL, "n_layers_D": 3}), (16, 16))


@pytest.mark.parametrize("policy", ["linear", "step", "cosine"])
def test_learning_rates(policy: str) -> None:
    (stage,) = cycle_gan(lr=1.0, lr_policy=policy, n_epochs=2, n_epochs_decay=3, lr_decay_iters=2).stages
    rates = []
    for epoch in range(5):
        stage.set_learning_rate(epoch, step=9)
        (rate,) = {group["lr"] for each in stage.optimisers.values() for group in each.param_groups}
        rates.append(rate)
    expected = {
        "linear": [1, 1, 0.75, 0.5, 0.25],
        "step": [1, 1, 0.1, 0.1, 0.01],
        "cosine": [(1 + torch.cos(torch.tensor(torch.pi * k / 5)).item()) / 2 for k in range(5)],
    }[policy]
    assert rates == pytest.approx(expected)
