"""Exponential moving averages (EMA) of the generators' weights, used by test.py and by the refinement stage."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from models.networks.layers import ema_update


class Averages:
    """Averaged copies of networks, by name. Each `update` moves them towards the networks of the same names.

    The decay is min(beta, (1 + t) / (10 + t)) after t updates, the same for every model (docs/method.md section 3.4).
    """

    def __init__(self, averaged: Mapping[str, nn.Module], networks: Mapping[str, nn.Module], beta: float) -> None:
        self.averaged, self._networks, self._beta = dict(averaged), dict(networks), beta
        self.updates = 0

    def update(self, *names: str) -> None:
        """Move the averages of the named networks one step towards them."""
        for name in names:
            ema_update(self.averaged[name], self._networks[name], self.updates, self._beta)
        self.updates += 1
