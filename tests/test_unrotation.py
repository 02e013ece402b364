"""Blocks that C turned are turned back, gradients included."""

from __future__ import annotations

import pytest
import torch

from models.networks.lsc import LSCNetwork, corrupt, draw_corruption
from models.networks.unrotation import ROUNDS, STATES, Unrotation, from_blocks, to_blocks


def waves(n: int, size: tuple[int, int]) -> torch.Tensor:
    """Smooth images (n, 1, *size) in (-1, 1) without symmetry inside a block."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    phases = torch.arange(n).view(n, 1, 1, 1)
    return 0.8 * torch.sin(rows / 5.0 + phases) * torch.cos(columns / 7.0 + 0.5 * phases)


@pytest.mark.parametrize("size", [(40, 40), (37, 52)])
def test_blocks_and_back(size: tuple[int, int]) -> None:
    x = waves(2, size)
    blocks = to_blocks(x, 5)
    assert blocks.shape == (2, 1, -(-size[0] // 5), -(-size[1] // 5), 5, 5)
    assert torch.equal(blocks[1, 0, 2, 3], x[1, 0, 10:15, 15:20])
    assert torch.equal(from_blocks(blocks, size), x)


def test_turned_blocks_are_turned_back() -> None:
    x = waves(3, (60, 60))
    draws = draw_corruption(3, (60, 60), 12, torch.Generator().manual_seed(0))
    corrupted, _ = corrupt(x, draws, n_blocks=12, rotate_ratio=0.5, mask_ratio=0.0)
    with torch.no_grad():
        restored = Unrotation(0.5)(corrupted, 5)
    before, after = ((y - x).square().mean().item() for y in (corrupted, restored))
    assert before > 0.01
    assert after < 0.02 * before


def test_beliefs_are_probabilities_and_empty_blocks_say_nothing() -> None:
    unrotation, x = Unrotation(0.3), waves(1, (20, 20))
    x[:, :, :10] = -1  # background, as a masked block is
    blocks = to_blocks(x, 5)
    states = torch.cat([torch.rot90(blocks, -quarter, (-2, -1)) for quarter in range(STATES)], 1)
    speaks = (blocks.amax((-2, -1)) > -1).squeeze(1)
    belief = unrotation.beliefs(states, speaks).exp()
    assert torch.allclose(belief.sum(1), torch.ones(1, 4, 4))
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1]).view(1, 4, 1, 1).expand(1, 4, 1, 4)
    assert torch.allclose(belief[:, :, :1], prior, atol=1e-4)  # a row without a speaking neighbour
    assert torch.equal(from_blocks(blocks, (20, 20))[:, :, :10], unrotation(x, 5)[:, :, :10].round(decimals=5))


def test_rounds_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    x = waves(2, (60, 60))
    draws = draw_corruption(2, (60, 60), 12, torch.Generator().manual_seed(1))
    corrupted, _ = corrupt(x, draws, n_blocks=12, rotate_ratio=0.5, mask_ratio=0.1)
    unrotation = Unrotation(0.5)
    with torch.no_grad():
        once = unrotation(corrupted, 5)
        monkeypatch.setattr("models.networks.unrotation.ROUNDS", 5 * ROUNDS)
        assert (unrotation(corrupted, 5) - once).abs().mean() < 0.01


def test_gradients_reach_the_image_and_the_energies() -> None:
    x = waves(1, (20, 20)).requires_grad_()
    unrotation = Unrotation(0.5)
    unrotation(x, 5).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad != 0).float().mean() > 0.9
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in unrotation.parameters())


def test_without_rotation_the_network_is_the_plain_unet() -> None:
    plain, turning = LSCNetwork(8, rotate_ratio=0.0), LSCNetwork(8)
    assert plain.unrotation is None
    assert turning.unrotation is not None
    assert plain.down[0][0].body[0].in_channels == 1
    assert turning.down[0][0].body[0].in_channels == 2


def test_air_of_a_synthesised_slice_says_as_little_as_real_air() -> None:
    """A generator's air is nearly background, not exactly: with its faint texture it would turn the head's rim."""
    unrotation, head = Unrotation(0.5), waves(1, (40, 40))
    real, fake = head.clone(), head.clone()
    real[..., :20], fake[..., :20] = (
        -1,
        -1 + 0.08 * torch.rand(1, 1, 40, 20, generator=torch.Generator().manual_seed(0)),
    )
    with torch.no_grad():
        restored, of_fake = unrotation(real, 5), unrotation(fake, 5)
    torch.testing.assert_close(of_fake[..., 20:], restored[..., 20:], rtol=0, atol=1e-6)
