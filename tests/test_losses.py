"""Losses against hand-worked numbers and independent NumPy versions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from models import losses

X = torch.tensor([[[[0.0, 1.0], [-1.0, 0.5]]]])
Y = torch.tensor([[[[0.5, 1.0], [1.0, 0.0]]]])


@pytest.mark.parametrize("loss", [losses.cycle_loss, losses.identity_loss, losses.syn_l1_loss, losses.restoration_loss])
def test_l1_losses(loss) -> None:
    assert loss(X, X).item() == 0
    assert loss(X, Y).item() == pytest.approx((0.5 + 0 + 2 + 0.5) / 4)
    with pytest.raises(ValueError, match="vs"):
        loss(X, Y[..., :1])


def test_ssim_loss_is_what_the_evaluation_measures() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(2, 24, 20)).astype(np.float32)
    y = np.clip(x + rng.normal(scale=(0.05, 0.3), size=(24, 20, 2)).transpose(2, 0, 1), 0, 1).astype(np.float32)
    mask = np.zeros((2, 24, 20), dtype=bool)
    mask[0, 6:-6, 6:-6] = mask[1, 8:10, 7:12] = True  # away from the border, where the two extend images differently
    maps = [
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
        )[1]
        for a, b in zip(x, y, strict=True)
    ]
    expected = 1 - np.mean([similarity[inside].mean() for similarity, inside in zip(maps, mask, strict=True)])
    X, Y, M = (torch.as_tensor(z)[:, None].float() for z in (2 * x - 1, 2 * y - 1, mask))
    assert losses.ssim_loss(X, Y, M).item() == pytest.approx(expected, abs=1e-4)
    assert losses.ssim_loss(X, X, M).item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="vs"):
        losses.ssim_loss(X, Y[:1], M)


def test_least_squares_with_soft_labels() -> None:
    scores = torch.tensor([0.9, 0.4])
    assert losses.adversarial_loss(scores, real=True, label=0.9).item() == pytest.approx(0.25 / 2)
    assert losses.adversarial_loss(scores, real=False, label=0.1).item() == pytest.approx((0.64 + 0.09) / 2)
    assert losses.adversarial_loss(scores, real=True).item() == pytest.approx((0.01 + 0.36) / 2)


def test_vanilla_and_wgan() -> None:
    scores = torch.tensor([0.0, 2.0])
    expected = np.mean([math.log(2), math.log(1 + math.exp(-2))])
    assert losses.adversarial_loss(scores, real=True, mode="vanilla").item() == pytest.approx(expected)
    assert losses.adversarial_loss(scores, real=True, mode="wgangp").item() == pytest.approx(-1)
    assert losses.adversarial_loss(scores, real=False, mode="wgangp").item() == pytest.approx(1)
    with pytest.raises(ValueError, match="gan_mode"):
        losses.adversarial_loss(scores, real=True, mode="hinge")


def test_gradient_penalty_of_a_linear_critic_is_known() -> None:
    critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
    slope = critic[1].weight.norm().item()
    penalty = losses.gradient_penalty(critic, X, Y, torch.tensor([0.3]))
    assert penalty.item() == pytest.approx((slope - 1) ** 2, rel=1e-5)


def test_segmentation_loss_pools_the_mask_to_patches() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 0, 0] = 1  # one pixel makes its 2x2 patch foreground
    logits = torch.tensor([[[[20.0, -20.0], [-20.0, -20.0]]]])
    assert losses.seg_loss(logits, mask).item() == pytest.approx(0, abs=1e-6)
    assert losses.seg_loss(-logits, mask).item() == pytest.approx(20, rel=1e-3)


def test_clip_loss_against_numpy() -> None:
    rng = np.random.default_rng(0)
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 5, 3)))
    logits = math.exp(1.3) * u @ v.T
    log_softmax = [m - np.log(np.exp(m).sum(1, keepdims=True)) for m in (logits, logits.T)]
    hard = -np.mean([np.diag(m).mean() for m in log_softmax])
    tensors = torch.tensor(u), torch.tensor(v), torch.tensor(1.3)
    assert losses.clip_loss(*tensors).item() == pytest.approx(hard)
    p = np.linspace(0, 1, 5)
    near = np.exp(-((p[:, None] - p) ** 2) / (2 * 0.2**2))
    target = near / near.sum(1, keepdims=True)
    soft = -np.mean([(target * m).sum(1).mean() for m in log_softmax])
    assert losses.clip_loss(*tensors, torch.tensor(p), 0.2).item() == pytest.approx(soft)


def test_views_of_one_slice_are_each_others_partners() -> None:
    """Equal levels share a row's target, with soft targets and without; distinct ones give the diagonal."""
    u, v = torch.nn.functional.normalize(torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)), dim=2)
    logits = [m.log_softmax(1) for m in (math.exp(1.3) * u @ v.T, math.exp(1.3) * v @ u.T)]
    same = torch.block_diag(*[torch.full((2, 2), 0.5)] * 3)
    wanted = -sum((same * m).sum(1).mean() for m in logits) / 2
    levels = torch.tensor([0.1, 0.1, 0.5, 0.5, 0.9, 0.9])
    for sigma in (0.0, 1e-3):
        torch.testing.assert_close(losses.clip_loss(u, v, torch.tensor(1.3), levels, sigma), wanted)
    alone = losses.clip_loss(u, v, torch.tensor(1.3), torch.linspace(0, 1, 6))
    torch.testing.assert_close(alone, losses.clip_loss(u, v, torch.tensor(1.3)))


def test_syn_cos_ignores_scale_and_sees_direction() -> None:
    u = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert losses.syn_cos_loss(u, 3 * u).item() == pytest.approx(0)
    assert losses.syn_cos_loss(u, -u).item() == pytest.approx(2)
