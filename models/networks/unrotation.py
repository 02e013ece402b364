"""Turns rotated blocks back by loopy belief propagation on the grid of blocks, differentiable, with learned energies.

A U-Net alone needs very many steps before it notices that a block is rotated. But C's grid is known, and a block has
only four possible rotations; the one that continues the neighbouring blocks is the most likely. Every block is a
variable with four states, every seam between two blocks an energy, and a few rounds of sum-product (Pearl 1988; loopy:
Murphy et al. 1999) give the probability of each state. See docs/method.md section 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BACKGROUND = -1.0
# what lies closer to the background says nothing of a block's rotation. Air of real slices is exactly background, that
# of synthesised ones only nearly; without a margin the one would be silent and the other not, and D_B could see it
AIR = 0.1
STATES = 4  # turned back by 0, 90, 180 or 270 degrees
SEAM_SIGMA = 0.2  # initial scale of the intensity step across a seam, image range [-1, 1]
EXTRAPOLATION = 0.5  # initial distance of the extrapolation from a block's edge pixel, in pixels: the seam's middle
# more do not help: 26.8 dB after 4, 27.0 after 6, 27.1 after 30 (rotation alone, simulated 3 T T2w, 96 px)
ROUNDS = 6
DAMPING = 0.5  # fraction of the old message that is kept: without it messages oscillate in loops


def to_blocks(x: Tensor, side: int) -> Tensor:
    """(N, C, H, W), padded with background to whole blocks -> (N, C, rows, columns, side, side)."""
    x = F.pad(x, (0, -x.shape[-1] % side, 0, -x.shape[-2] % side), value=BACKGROUND)
    n, channels, height, width = x.shape
    return x.reshape(n, channels, height // side, side, width // side, side).transpose(3, 4)


def from_blocks(blocks: Tensor, size: tuple[int, int]) -> Tensor:
    """Inverse of `to_blocks`, without the padding: (N, C, *size)."""
    n, channels, rows, columns, side, _ = blocks.shape
    x = blocks.transpose(3, 4).reshape(n, channels, rows * side, columns * side)
    return x[..., : size[0], : size[1]]


class Unrotation(nn.Module):
    """The expected image, given an image whose square blocks may be rotated and how well each rotation fits.

    (N, 1, H, W) in [-1, 1] and the block side in pixels -> the same shape. Blocks that are all background send no
    information to their neighbours and stay as they are. So do blocks within `AIR` of the background.
    """

    def __init__(self, rotate_ratio: float) -> None:
        super().__init__()
        turned = max(rotate_ratio, 0.01) / (STATES - 1)
        prior = torch.tensor([max(1 - rotate_ratio, 0.01)] + [turned] * (STATES - 1))
        self.log_prior = nn.Parameter(prior.log())
        self.log_sigma = nn.Parameter(torch.tensor(SEAM_SIGMA).log())
        self.extrapolation = nn.Parameter(torch.tensor(EXTRAPOLATION))

    def forward(self, x: Tensor, side: int) -> Tensor:
        blocks = to_blocks(x, side)  # (N, 1, rows, columns, side, side)
        states = torch.cat([torch.rot90(blocks, -quarter, (-2, -1)) for quarter in range(STATES)], 1)
        informative = (blocks.detach().amax((-2, -1)) > BACKGROUND + AIR).squeeze(1)  # (N, rows, columns)
        belief = self.beliefs(states, informative)
        return from_blocks((belief.exp()[..., None, None] * states).sum(1, keepdim=True), (x.shape[-2], x.shape[-1]))

    def beliefs(self, states: Tensor, informative: Tensor) -> Tensor:
        """Log-probabilities (N, 4, rows, columns) of the states (N, 4, rows, columns, side, side).

        informative: (N, rows, columns) bool, False for blocks that are all background.
        """
        # both blocks predict the intensity in the middle of their seam: edge pixel plus a fraction of the slope there
        down = self._agreement(states, 2, informative)  # (N, 4 above, 4 below, rows - 1, columns)
        right = self._agreement(states.transpose(-2, -1), 3, informative)  # (N, 4 left, 4 right, rows, columns - 1)
        prior = torch.log_softmax(self.log_prior, 0).view(1, STATES, 1, 1)
        # messages from the block above, below, left and right
        messages = [torch.zeros_like(states[..., 0, 0]) for _ in range(4)]
        for _ in range(ROUNDS):
            above, below, before, after = messages
            belief = prior + above + below + before + after
            fresh = (
                F.pad(torch.logsumexp((belief - below)[:, :, None, :-1] + down, 1), (0, 0, 1, 0)),
                F.pad(torch.logsumexp((belief - above)[:, None, :, 1:] + down, 2), (0, 0, 0, 1)),
                F.pad(torch.logsumexp((belief - after)[:, :, None, :, :-1] + right, 1), (1, 0)),
                F.pad(torch.logsumexp((belief - before)[:, None, ..., 1:] + right, 2), (0, 1)),
            )
            messages = [
                DAMPING * old + (1 - DAMPING) * torch.log_softmax(new, 1)
                for old, new in zip(messages, fresh, strict=True)
            ]
        return torch.log_softmax(prior + sum(messages), 1)

    def _agreement(self, states: Tensor, axis: int, informative: Tensor) -> Tensor:
        """Log-likelihood of every pair of states along grid `axis`; the next-to-last pixel axis has its direction."""
        count = states.shape[axis]
        first, second = states.narrow(axis, 0, count - 1), states.narrow(axis, 1, count - 1)
        reach = self.extrapolation
        ending = first[..., -1, :] + reach * (first[..., -1, :] - first[..., -2, :])
        beginning = second[..., 0, :] + reach * (second[..., 0, :] - second[..., 1, :])
        step = ending.unsqueeze(2) - beginning.unsqueeze(1)  # (N, 4, 4, grid, side)
        both = informative.narrow(axis - 1, 0, count - 1) & informative.narrow(axis - 1, 1, count - 1)
        # pixels along a seam are not independent, so that `side` pixels weigh as much as sqrt(side) independent ones
        energy = step.square().mean(-1) * step.shape[-1] ** 0.5 / (2 * (2 * self.log_sigma).exp())
        return -energy * both[:, None, None]
