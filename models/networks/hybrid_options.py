"""Options of generator `hybrid` (models/networks/hybrid.py)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from util.needs import chosen
from util.schema import flag

PATCHES = (8, 16)

_flag = partial(flag, group="hybrid generator", needs=chosen(netG=("hybrid",)))


@dataclass(frozen=True)
class HybridOptions:
    """Sizes of the hybrid generator; the defaults are the published ones (docs/facts.md section 5)."""

    hybrid_width: int = _flag(768, "token width", low=8, high=8192)
    hybrid_depth: int = _flag(4, "transformer blocks", low=1, high=64)
    hybrid_heads: int = _flag(12, "attention heads; divides the width", low=1, high=64)
    hybrid_mlp: int = _flag(3072, "width of the MLP between attentions", low=8, high=32768)
    hybrid_patch: int = _flag(16, "patch side in pixels", choices=PATCHES)
    hybrid_features: int = _flag(16, "channels at full resolution", low=2, high=1024)
    hybrid_window: int = _flag(7, "side of a background window, in patches", low=1)
    hybrid_residual: bool = _flag(
        True, "draw a correction of the image, softened where the network says so: training starts near the identity"
    )
    fth: float = _flag(0.5, "probability from which a patch is foreground", low=0, high=1)
    structured_shape_iter: int = _flag(
        5000, "training images shown with their true mask before the predicted one is used", low=0
    )
