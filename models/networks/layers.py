"""Building blocks of several networks: normalisation by name, weight initialisation, size checks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from util.errors import UserError

Norm = Callable[[int], nn.Module]

NORMS: dict[str, Norm] = {
    "instance": partial(nn.InstanceNorm2d, affine=False, track_running_stats=False),
    "batch": nn.BatchNorm2d,
    "none": lambda channels: nn.Identity(),
}
INITS: dict[str, Callable[[Tensor, float], object]] = {  # of a convolution's weights, in place
    "normal": lambda weight, gain: nn.init.normal_(weight, 0.0, gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),  # has a scale of its own
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
}


def norm_layer(name: str) -> Norm:
    """The function that makes the normalisation layer `--norm` names for a number of channels.

    Raises:
        ValueError: unknown name.
    """
    if name not in NORMS:
        raise ValueError(f"norm '{name}', allowed are {', '.join(NORMS)}")
    return NORMS[name]


def init_weights(network: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialise convolutions in place (CycleGAN appendix: N(0, 0.02)); biases become 0.

    Linear layers of transformers keep torch's own initialisation, whose scale follows their width.
    """
    if init_type not in INITS:
        raise ValueError(f"init_type '{init_type}', allowed are {', '.join(INITS)}")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            INITS[init_type](module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain)
            nn.init.zeros_(module.bias)


def check_multiple(name: str, size: tuple[int, int], multiple: int) -> None:
    """Raise UserError unless both sides are positive multiples of `multiple`."""
    if any(side < multiple or side % multiple for side in size):
        raise UserError(
            f"{name} takes image sides that are multiples of {multiple}, not {size[0]}x{size[1]}; "
            f"choose --load_size (--crop_size when cropping) accordingly"
        )


def count_parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, *, stride: int = 1) -> None:
        super().__init__()
        # no bias before a normalisation, which would subtract it again
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            norm(out_channels),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            norm(out_channels),
        )
        if in_channels == out_channels and stride == 1:
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.activation = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def frozen_copy(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters get no gradients; gradients still pass through to its input."""
    twin = copy.deepcopy(network).eval()
    return twin.requires_grad_(False)


def recompute(network: nn.Module, parts: tuple[type[nn.Module], ...]) -> None:
    """Make modules of the types `parts` keep only their input and recompute the rest in the backward pass."""
    for module in network.modules():
        if isinstance(module, parts):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


@torch.no_grad()
def ema_update(average: nn.Module, network: nn.Module, step: int, beta: float) -> None:
    """Move `average` towards `network` with decay min(beta, (1 + step) / (10 + step)) (docs/method.md section 3.4)."""
    decay = min(beta, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for buffer, newest in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(newest)
