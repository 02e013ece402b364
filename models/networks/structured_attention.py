"""Structured attention (UNest): foreground tokens attend to all foreground, background tokens to their own window.

Two implementations compute the same function. `_gathered` computes every token once, which is faster on a CPU.
`_dense` has no data-dependent shapes, which suits GPUs, `torch.compile` and export. A test asserts that they agree
within 1e-4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention over (N, T, width) with a key mask: only keys with True in `valid` (N, T) are used."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x: (N, T, width); valid: (N, T) bool, at least one True per row. Returns (N, T, width)."""
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # (N, heads, T, d)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None, :])
        return self.project(mixed.transpose(1, 2).reshape(n, t, width))


def to_windows(tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """(N, rows * columns, C) -> (N * windows, window**2, C), zero-padded to whole windows."""
    n, _, channels = tokens.shape
    rows, columns = grid
    pad_r, pad_c = -rows % window, -columns % window
    x = F.pad(tokens.view(n, rows, columns, channels), (0, 0, 0, pad_c, 0, pad_r))
    x = x.view(n, (rows + pad_r) // window, window, (columns + pad_c) // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def from_windows(windows: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Inverse of `to_windows`, without the padding: (N * windows, window**2, C) -> (N, rows * columns, C)."""
    rows, columns = grid
    n_rows, n_columns = -(-rows // window), -(-columns // window)
    channels = windows.shape[-1]
    x = windows.view(-1, n_rows, n_columns, window, window, channels).transpose(2, 3)
    x = x.reshape(-1, n_rows * window, n_columns * window, channels)[:, :rows, :columns]
    return x.reshape(-1, rows * columns, channels)


def _attend_gathered(attention: Attention, x: Tensor, member: Tensor) -> Tensor:
    """Attention among the members of each sequence; the output for other tokens is 0 and is never computed.

    x: (N, T, C); member: (N, T) bool. Members are packed to the front and sequences cut to the longest.
    """
    longest = int(member.sum(1).max())
    if longest == 0:
        return torch.zeros_like(x)
    order = torch.argsort(member.logical_not().to(torch.uint8), dim=1, stable=True)[:, :longest]  # (N, longest)
    index = order.unsqueeze(-1).expand(-1, -1, x.shape[-1])
    valid = member.gather(1, order)
    # a sequence without members attends to its first token, so that softmax is defined; the result is zeroed below
    keys = valid | (valid.logical_not().all(1, keepdim=True) & (torch.arange(longest, device=x.device) == 0))
    out = attention(x.gather(1, index), keys) * valid.unsqueeze(-1)
    return torch.zeros_like(x).scatter(1, index, out.to(x.dtype))


class StructuredBlock(nn.Module):
    """One transformer block: foreground attends to foreground, background within local windows; one MLP for both.

    (N, T, width), foreground (N, T) bool -> (N, T, width).
    """

    def __init__(self, width: int, heads: int, mlp_width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm_attention = nn.LayerNorm(width)
        self.global_attention = Attention(width, heads)
        self.local_attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))

    def forward(self, x: Tensor, foreground: Tensor, grid: tuple[int, int], *, dense: bool = False) -> Tensor:
        attend = self._dense if dense else self._gathered
        x = x + attend(self.norm_attention(x), foreground, grid)
        return x + self.mlp(self.norm_mlp(x))

    def _gathered(self, x: Tensor, foreground: Tensor, grid: tuple[int, int]) -> Tensor:
        seen_globally = _attend_gathered(self.global_attention, x, foreground)
        windows = to_windows(x, grid, self.window)  # (N windows, window**2, C)
        member = to_windows(foreground.logical_not().unsqueeze(-1), grid, self.window).squeeze(-1)
        occupied = member.any(1).nonzero().squeeze(1)
        local = torch.zeros_like(windows)
        if len(occupied):
            part = _attend_gathered(self.local_attention, windows[occupied], member[occupied])
            local = local.index_copy(0, occupied, part)
        return seen_globally + from_windows(local, grid, self.window)

    def _dense(self, x: Tensor, foreground: Tensor, grid: tuple[int, int]) -> Tensor:
        none = foreground.logical_not().all(1, keepdim=True)
        seen_globally = self.global_attention(x, foreground | none)
        member = to_windows(foreground.logical_not().unsqueeze(-1), grid, self.window).squeeze(-1)
        empty = member.logical_not().all(1, keepdim=True)
        local = self.local_attention(to_windows(x, grid, self.window), member | empty)
        return torch.where(foreground.unsqueeze(-1), seen_globally, from_windows(local, grid, self.window))
