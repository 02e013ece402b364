"""The losses of docs/method.md, sections 1 to 3: pure functions from tensors to an unweighted scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adversarial_options import GAN_MODES
from models.networks.blur import gaussian_blur

LABELLED_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of scores and labels
    "lsgan": F.mse_loss,
    "vanilla": F.binary_cross_entropy_with_logits,
}
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # Wang et al. 2004; the same in the evaluation (docs/method.md section 6)
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # for a data range of 1


def _same_shape(name: str, x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ValueError(f"{name}: {tuple(x.shape)} vs {tuple(y.shape)}")


def cycle_loss(rec: Tensor, real: Tensor) -> Tensor:
    """One half of L_cycle: E|G_BA(G_AB(a)) - a|.

    Args:
        rec, real: (N, C, H, W) float32 in [-1, 1].

    Returns:
        scalar >= 0, zero only if equal.

    Raises:
        ValueError: shapes differ (broadcasting would hide it).
    """
    _same_shape("cycle_loss", rec, real)
    return (rec - real).abs().mean()


def identity_loss(idt: Tensor, real: Tensor) -> Tensor:
    """One half of L_idt: E|G_AB(b) - b|. Shapes and range as in `cycle_loss`. It teaches G to keep the contrast."""
    _same_shape("identity_loss", idt, real)
    return (idt - real).abs().mean()


def ssim_loss(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """One minus the structural similarity (Wang et al. 2004, Eq. 13) inside the mask, averaged over the images.

    Args:
        x, y: (N, 1, H, W) in [-1, 1]; scaled to [0, 1] inside, so the data range is 1.
        mask: (N, 1, H, W) in {0, 1}; an image with an empty mask has similarity 0.

    Returns:
        scalar in [0, 2], zero only if equal inside the mask.

    Raises:
        ValueError: shapes differ.
    """
    _same_shape("ssim_loss", x, y)
    x, y = (x + 1) / 2, (y + 1) / 2
    smooth = gaussian_blur(torch.cat([x, y, x * x, y * y, x * y]), SSIM_SIGMA, SSIM_WINDOW)
    mean_x, mean_y, xx, yy, xy = smooth.chunk(5)
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * (xy - mean_x * mean_y) + SSIM_C2) / (xx - mean_x**2 + yy - mean_y**2 + SSIM_C2)
    similarity = (luminance * structure * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)
    return 1 - similarity.mean()


def syn_l1_loss(fake: Tensor, partner: Tensor) -> Tensor:
    """L_syn of `--syn_form l1`: E|G_AB(a) - b*|, b* the partner that SGP chose. (N, C, H, W) in [-1, 1] each."""
    _same_shape("syn_l1_loss", fake, partner)
    return (fake - partner).abs().mean()


def syn_cos_loss(fake_embedding: Tensor, partner_embedding: Tensor) -> Tensor:
    """L_syn of `--syn_form cos`: E[1 - cos(E_B(G_AB(a)), E_B(b*))], in [0, 2]. Embeddings (N, D)."""
    _same_shape("syn_cos_loss", fake_embedding, partner_embedding)
    return (1 - F.cosine_similarity(fake_embedding, partner_embedding, dim=1)).mean()


def seg_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """L_seg: binary cross-entropy of the hybrid's foreground head against the mask max-pooled to the patch grid.

    Args:
        logits: (N, 1, h, w).
        mask: (N, 1, H, W) in {0, 1}; H / h = W / w is the patch side.
    """
    target = F.adaptive_max_pool2d(mask, logits.shape[-2:])
    return F.binary_cross_entropy_with_logits(logits, target)


def adversarial_loss(scores: Tensor, *, real: bool, mode: str = "lsgan", label: float | None = None) -> Tensor:
    """L_adv of one set of discriminator scores, any shape.

    Args:
        scores: unbounded scores.
        real: whether the target is "real". The generator's loss is `adversarial_loss(D(fake), real=True)`.
        mode: `lsgan` mean squared distance to the label (published), `vanilla` cross-entropy, `wgangp` the mean score.
        label: soft target for lsgan and vanilla; 1 for real and 0 for fake by default (published: 0.9 and 0.1).

    Raises:
        ValueError: unknown mode.
    """
    if mode not in GAN_MODES:
        raise ValueError(f"gan_mode '{mode}', allowed are {', '.join(GAN_MODES)}")
    if mode == "wgangp":
        return -scores.mean() if real else scores.mean()
    return LABELLED_LOSSES[mode](scores, torch.full_like(scores, float(real) if label is None else label))


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    """E(|grad D(x)| - 1)^2 at random points between real and fake (Gulrajani et al. 2017, Eq. 3), for wgangp.

    Args:
        real, fake: (N, C, H, W), detached.
        weight: (N,) in [0, 1], random: the weight of the real image at each point.
    """
    _same_shape("gradient_penalty", real, fake)
    weight = weight.to(real, non_blocking=True).view(-1, 1, 1, 1)
    between = (weight * real + (1 - weight) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def clip_loss(u: Tensor, v: Tensor, log_scale: Tensor, levels: Tensor | None = None, sigma: float = 0.0) -> Tensor:
    """SGP's contrastive loss (CLIP): mean of two cross-entropies of logits = exp(t) u v^T (docs/method.md section 1).

    Args:
        u, v: (N, D) unit embeddings of low- and high-field slices, float32 or float64; row i of both is of level p_i.
            Views of one slice are rows of one level.
        log_scale: t, scalar.
        levels: (N,) relative levels; with sigma > 0 the targets are exp(-(p_i - p_j)^2 / 2 sigma^2), rows summing to 1.
        sigma: width of the soft targets in units of p; 0: rows of exactly the same level are positive, without levels
            the diagonal alone.
    """
    _same_shape("clip_loss", u, v)
    with torch.autocast(u.device.type, enabled=False):  # bfloat16 has 8 bits: a logit of 20 would be off by 0.06
        logits = log_scale.exp() * u @ v.T  # (N, N)
    if levels is None:
        target = torch.eye(len(u), device=u.device)
    else:
        apart = levels[:, None] - levels[None, :]
        near = torch.exp(-(apart**2) / (2 * sigma**2)) if sigma > 0 else (apart == 0).to(u)
        target = near / near.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def patch_nce_loss(made: Tensor, source: Tensor, tau: float) -> Tensor:
    """PatchNCE of one hidden state (Park et al. 2020, Eq. 3): a synthesis' place against all places of its source.

    Args:
        made, source: (N, P, D) unit vectors of the same P places; those of other places are the negatives.
        tau: temperature.
    """
    _same_shape("patch_nce_loss", made, source)
    with torch.autocast(made.device.type, enabled=False):  # as in `clip_loss`
        logits = made @ source.transpose(1, 2) / tau  # (N, P, P)
        target = torch.arange(logits.shape[1], device=made.device).expand(logits.shape[:2])
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def restoration_loss(restored: Tensor, original: Tensor) -> Tensor:
    """L_LSC, E|R(C(b)) - b|, and the L1 distance of what G_AB restores to its truth. (N, 1, H, W) in [-1, 1] each."""
    _same_shape("restoration_loss", restored, original)
    return (restored - original).abs().mean()
