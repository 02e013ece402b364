"""`--model unsb`: the bridge's way by hand, its losses against formulas of their own, and its synthesis."""

from __future__ import annotations

import pytest
import torch
from tiny_models import SIDE, SMALL, batch, changed, context, snapshot

from models.bridge import sample_xt, times_of, with_time
from models.passes import translate
from models.unsb_model import UNSBModel, sample_x1
from models.unsb_options import UNSBOptions
from util.errors import UserError


def unsb(**options: object) -> UNSBModel:
    torch.manual_seed(0)
    return UNSBModel(UNSBOptions(**{**SMALL, "sb_steps": 3, **options}), (SIDE, SIDE))


def test_times_are_the_published_ones() -> None:
    inner = torch.tensor([0, 1, 1.5, 1.5 + 1 / 3, 1.5 + 1 / 3 + 0.25])
    wanted = [0.0, *(0.5 + 0.5 * inner / inner[-1]).tolist()]
    assert times_of(5).tolist() == pytest.approx(wanted)
    assert times_of(1).tolist() == [0.0, 1.0] and times_of(2).tolist() == [0.0, 0.5, 1.0]


def test_the_mean_way_to_a_fixed_end_is_a_straight_line() -> None:
    """Towards one picture, wherever it is looked at: at time t an image has gone the part t of the way."""
    start, end, times = torch.zeros(6, 1, 4, 4), torch.ones(6, 1, 4, 4), times_of(5)
    index = torch.arange(6).clamp(max=5)
    x = sample_xt(start, lambda x, time: end, times, index, None, 0.0)
    assert torch.allclose(x.mean((1, 2, 3)), times[index], atol=1e-6)


def test_the_way_has_the_noise_of_a_brownian_bridge() -> None:
    """With the end fixed, x_t has variance tau t (1 - t)."""
    times, n, tau = times_of(4), 400, 0.3
    index, end = torch.full((n,), 2), torch.zeros(n, 1, 8, 8)
    noise = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = sample_xt(end, lambda x, time: end, times, index, noise, tau)
    t = times[2].item()
    assert x.var().item() == pytest.approx(tau * t * (1 - t), rel=0.03)
    assert torch.equal(sample_xt(end, lambda x, time: end, times, 0 * index, noise, tau), end)


def test_the_time_is_a_second_channel() -> None:
    x = torch.rand(3, 1, 4, 4)
    found = with_time(x, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(found[:, :1], x) and found[:, 1].amax((1, 2)).tolist() == [-1.0, 0.0, 1.0]


def test_a_step_trains_all_four_networks() -> None:
    model = unsb()
    (stage,) = model.stages
    before = snapshot(model)
    stage.begin(model)
    found = stage.step(batch(), context())
    assert set(found) == {"adv", "nce", "nce_idt", "sb", "seg", "D_B", "E"}
    assert changed(before, model) == {"G_AB", "ema_G_AB", "D_B", "E", "features"}
    assert all(value.isfinite() for value in found.values())
    assert stage.visuals(batch())["fake_B"].shape == (4, 1, SIDE, SIDE)


def test_the_bridge_s_loss_by_hand() -> None:
    """Item by item: tau (mean square of the way left - (1 - i / steps) (mean E - logsumexp E of two ways))."""
    model = unsb(lambda_nce=0.0, lambda_nce_idt=0.0, lambda_seg=0.0, structured_shape_iter=0, sb_tau=0.2)
    (stage,), data = model.stages, batch()
    stage.begin(model)
    twin = {name: value.clone() for name, value in model.state_dict().items()}
    found = stage.step(data, context())
    (((one, other),),) = (stage._samples,)
    model.load_state_dict(twin)
    wanted, energies = [], []
    for i in range(4):
        plane = with_time(one[i : i + 1, :1], times_of(3)[stage._index(data.key)][i : i + 1])[:, 1:]
        with torch.no_grad():
            same = model.E(torch.cat([one[i : i + 1], one[i : i + 1], plane], 1)).flatten()
            mixed = model.E(torch.cat([one[i : i + 1], other[i : i + 1], plane], 1)).flatten()
        left = 1 - stage._index(data.key)[i].item() / 3
        moved = (one[i, 0] - one[i, 1]).square().mean()
        wanted.append(0.2 * (moved - left * (same.mean() - torch.logsumexp(mixed, 0))))
        total = torch.logsumexp(mixed, 0)
        energies.append(-same.mean() + total + total**2)
    assert found["sb"].item() == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-3)
    assert found["E"].item() == pytest.approx(torch.stack(energies).mean().item(), rel=1e-3)


def test_the_synthesis_takes_all_steps_by_averaged_weights_and_no_chance() -> None:
    model, data = unsb(), batch()
    calls: list[torch.Tensor] = []
    handle = model.ema_G_AB.register_forward_hook(lambda _, inputs, out: calls.append(inputs[0][:, 1].amax()))
    first = model.synthesise(data.A)
    handle.remove()
    assert [call.item() for call in calls] == pytest.approx((2 * times_of(3)[:3] - 1).tolist())
    assert torch.equal(first, model.synthesise(data.A)) and first.shape == data.A.shape
    assert torch.allclose(first[1:3], sample_x1(model.ema_G_AB, data.A[1:3], model.options), atol=1e-5)


def test_a_synthesis_may_be_taken_at_an_earlier_step() -> None:
    """One pass is G_AB's own prediction at time 0, two passes the one at the next time, on the way to the first."""
    data, whole = batch(), unsb()
    G, start = whole.ema_G_AB.eval(), torch.zeros(4)
    first = translate(G, with_time(data.A, start), None)[0]
    second = translate(G, with_time(data.A + 0.5 * (first - data.A), start + times_of(3)[1]), None)[0]
    for passes, wanted in ((1, first), (2, second)):
        model = unsb(sb_passes=passes)
        model.load_state_dict(whole.state_dict())
        assert torch.allclose(model.synthesise(data.A), wanted, atol=1e-5)
    assert torch.equal(unsb(sb_passes=3).synthesise(data.A), whole.synthesise(data.A))


def test_no_synthesis_after_the_last_step() -> None:
    with pytest.raises(UserError, match="--sb_passes is 4, allowed are 0 to --sb_steps, which is 3"):
        unsb(sb_passes=4)


def test_without_noise_there_is_no_bridge_loss() -> None:
    model = unsb(sb_tau=0.0)
    (stage,) = model.stages
    stage.begin(model)
    assert "sb" not in stage.step(batch(), context(2))


def test_the_low_field_s_noise_lies_on_b_at_time_0_as_in_cut() -> None:
    def states(**options: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        model, data = unsb(sb_tau=0.0, **options), batch()
        (stage,) = model.stages
        stage.begin(model)
        stage.step(data, context())
        assert stage._state is not None
        at_start = stage._index(data.key) == 0
        assert at_start.any() and not at_start.all()
        return stage._state.x_t, stage._state.x_t_of_B[at_start], data.B[at_start]

    (a, b, real), (same_a, noisy, _) = states(), states(lf_noise=0.3)
    assert torch.equal(a, same_a) and torch.equal(b, real)
    assert (noisy - real).abs().mean() > 0.01


def test_micro_batches_give_the_same_terms() -> None:
    found = []
    for size in (4, 2):
        model = unsb().double()
        (stage,) = model.stages
        stage.begin(model)
        found.append(stage.step(batch()._map(lambda x: x.double() if x.is_floating_point() else x), context(size)))
    for name, value in found[0].items():
        assert found[1][name].item() == pytest.approx(value.item(), rel=1e-5), name
