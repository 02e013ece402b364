"""Embeddings of single places of a generator's hidden states, for PatchNCE (Park et al. 2020, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING = 256  # published


class PatchFeatures(nn.Module):
    """One multilayer perceptron of two layers for each hidden state.

    Args: channels: of the hidden states.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(c, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING)) for c in channels
        )

    def forward(self, states: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Unit vectors (N, P, 256) of the hidden states (N, C, h, w) at the places (N, P), positions in h w."""
        found = []
        for layer, state, place in zip(self.layers, states, places, strict=True):
            chosen = state.flatten(2).transpose(1, 2).gather(1, place.unsqueeze(-1).expand(-1, -1, state.shape[1]))
            found.append(F.normalize(layer(chosen), dim=-1))  # (N, P, 256)
        return found
