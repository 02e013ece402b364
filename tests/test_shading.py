"""The low field's smooth part, taken from another head: laid over rightly, and used by the refinement."""

from __future__ import annotations

import pytest
import torch
from tiny_models import SIDE, batch, context, cycle_gan, pta
from torch import Tensor

from models.refinement import RefineStage
from models.shading import CALM, MOST, local_mean, overlay, shading

N = 128


def head(centre: tuple[float, float] = (64, 64), extent: tuple[float, float] = (44, 34)) -> Tensor:
    """The mask (1, 1, N, N) of an ellipse; centre and half axes along y and x in pixels."""
    y, x = torch.arange(N)[:, None], torch.arange(N)[None, :]
    inside = ((y - centre[0]) / extent[0]) ** 2 + ((x - centre[1]) / extent[1]) ** 2 < 1
    return inside.float()[None, None]


def image(signal: Tensor | float, mask: Tensor) -> Tensor:
    return 2 * signal * mask - 1


def test_a_slice_beside_itself_keeps_its_shading() -> None:
    mask = head()
    textured = image(torch.rand(1, 1, N, N, generator=torch.Generator().manual_seed(0)), mask)
    torch.testing.assert_close(shading(textured, mask, textured, mask), torch.ones(1, 1, N, N), rtol=0, atol=1e-4)


def test_the_partners_field_is_found_on_the_other_head() -> None:
    """A slope from left to right, on a head that is smaller and elsewhere, comes to lie over ours."""
    ours, theirs = head(), head(centre=(58, 70), extent=(38, 30))
    x = torch.arange(N)[None, :].float()
    slope = lambda centre, extent: (1 + 0.3 * (x - centre) / extent).expand(1, 1, N, N)  # noqa: E731
    found = shading(image(0.5, ours), ours, image(0.5 * slope(70, 30), theirs), theirs)
    deep = head(extent=(36, 26)) > 0
    torch.testing.assert_close(found[deep], slope(64, 34)[deep], rtol=0.05, atol=0)
    assert found[deep].min() < 0.85 and found[deep].max() > 1.15


def test_heads_are_laid_over_each_other() -> None:
    ours, theirs = head((60, 66), (40, 36)), head((70, 60), (50, 30))
    moved = torch.nn.functional.grid_sample(theirs, overlay(ours, theirs), align_corners=False) > 0.5
    agree = (moved & (ours > 0)).sum() / (moved | (ours > 0)).sum()
    assert agree > 0.97
    assert ((theirs > 0) & (ours > 0)).sum() / ((theirs > 0) | (ours > 0)).sum() < 0.7


def test_detail_stays_and_the_change_has_a_limit() -> None:
    """Stripes of two pixels are no shading; a partner ten times as bright brightens by `MOST` at the most."""
    mask = head()
    stripes = (0.3 + 0.2 * (torch.arange(N) % 4 < 2).float()).expand(1, 1, N, N)
    found = shading(image(0.4, mask), mask, image(stripes, mask), mask)
    assert (found[head(extent=(36, 26)) > 0] - 1).abs().max() < 0.01
    assert shading(image(0.08, mask), mask, image(0.8, mask), mask).max() == MOST
    assert shading(image(0.8, mask), mask, image(0.08, mask), mask).min() == 1 / MOST


def test_the_local_mean_is_that_of_the_head_alone() -> None:
    mask = head()
    inside = local_mean(image(0.5, mask), mask)[mask > 0]
    assert inside.min() > 0.5 and inside.max() < 0.5 + 2 * CALM  # air around the head does not darken its border


@pytest.mark.parametrize("empty", ["ours", "theirs", "both"])
def test_a_slice_without_a_head(empty: str) -> None:
    nothing, mask = torch.zeros(1, 1, N, N), head()
    ours, theirs = (nothing if empty in (name, "both") else mask for name in ("ours", "theirs"))
    found = shading(image(0.5, ours), ours, image(0.5, theirs), theirs)
    assert torch.isfinite(found).all()
    assert shading(torch.empty(0, 1, N, N), *[torch.empty(0, 1, N, N)] * 3).shape == (0, 1, N, N)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 96)])
def test_other_sizes(height: int, width: int) -> None:
    mask = torch.ones(2, 1, height, width)
    low = torch.full_like(mask, -0.5)
    torch.testing.assert_close(shading(low, mask, low, mask), torch.ones_like(mask))


def test_each_image_has_its_own_shading() -> None:
    data = batch(4)
    whole = shading(data.B, data.mask_B, data.A, data.mask_A)
    for i in range(4):
        one = data.rows(i, i + 1)
        torch.testing.assert_close(shading(one.B, one.mask_B, one.A, one.mask_A), whole[i : i + 1])


def refinement(**options: object) -> RefineStage:
    stage = pta(n_epochs_refine=1, **options).stages[-1]
    assert isinstance(stage, RefineStage)
    return stage


def test_the_refinement_asks_sgp_for_partners_and_lays_them_over_alike() -> None:
    assert refinement().chooses_partners and refinement().places == "pair"
    by_level = refinement(sgp_match="none")
    assert not by_level.chooses_partners and by_level.places == "pair"
    of_field = refinement(lf_shading="random")
    assert not of_field.chooses_partners and of_field.places == "own"


@pytest.mark.parametrize("shading", ["partner", "random"])
def test_what_the_refinement_restores_b_from(shading: str) -> None:
    """Another a changes the loss of the refinement by partners only; noise and receive field are those of the key."""
    losses = []
    for brightness in (0.0, 0.5):
        model, data = cycle_gan(n_epochs_refine=1, lf_shading=shading, lf_bias=0.1, lf_noise=0.05), batch()
        data.A.mul_(1 - brightness).add_(brightness)
        losses.append(model.stages[-1].step(data, context())["cycle"])
    assert torch.equal(losses[0], losses[1]) == (shading == "random")


def test_it_lays_the_partners_tone_over_what_G_BA_makes() -> None:
    """fake_A of the step has a's local mean: measured behind the noise, which has none."""
    model, data = cycle_gan(n_epochs_refine=1, lf_noise=0.02), batch()
    stage, seen = model.stages[-1], []
    model.generators["B"].register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    stage.step(data, context())
    made = seen[0]
    assert made.shape == (4, 1, SIDE, SIDE)
    wanted = local_mean(data.A, data.mask_A)
    laid = torch.nn.functional.grid_sample(wanted, overlay(data.mask_B, data.mask_A), align_corners=False)
    inner = torch.nn.functional.avg_pool2d(data.mask_B, 9, 1, 4) == 1
    plain = cycle_gan(n_epochs_refine=1, lf_noise=0.02, lf_shading="random")
    other: list[Tensor] = []
    plain.generators["B"].register_forward_pre_hook(lambda module, given: other.append(given[0].detach()))
    plain.stages[-1].step(data, context())
    distance = [(local_mean(x, data.mask_B) - laid)[inner].abs().mean() for x in (made, other[0])]
    assert distance[0] < 0.5 * distance[1]
