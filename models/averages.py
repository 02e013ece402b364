"""Exponential moving averages of generators: what test.py uses, and what refinement learns from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from models.networks.layers import ema_update


class Averages:
    """Averages `of` networks by name, which follow `networks` of the same names at every `update`.

    The decay is min(beta, (1 + t) / (10 + t)) after t updates, the same for every model (docs/method.md section 3).
    """

    def __init__(self, of: Mapping[str, nn.Module], networks: Mapping[str, nn.Module], beta: float) -> None:
        self.of, self._networks, self._beta = dict(of), dict(networks), beta
        self.updates = 0

    def update(self, *names: str) -> None:
        """Move the averages of these networks one step towards them."""
        for name in names:
            ema_update(self.of[name], self._networks[name], self.updates, self._beta)
        self.updates += 1
