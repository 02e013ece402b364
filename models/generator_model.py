"""The base of all models that synthesise: G_AB, its average, and what is shown of one direction."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from data.batch import Batch
from models.adversarial_options import SynthesisOptions
from models.averages import Averages
from models.base_model import BaseModel
from models.networks import make_generator
from models.networks.layers import check_multiple, frozen_copy
from models.passes import translate
from models.update import StepContext


class GeneratorModel(BaseModel):
    """G_AB, and its average, which synthesises. Subclasses add other networks and `stages`.

    Args: channels_G: input channels of G_AB.

    Raises: UserError: the image's sides do not suit the generator.
    """

    options: SynthesisOptions

    def __init__(self, options: SynthesisOptions, image_size: tuple[int, int], *, channels_G: int = 1) -> None:
        super().__init__(options, image_size)
        self.G_AB = make_generator(replace(options, input_nc=channels_G))
        check_multiple(f"--netG {options.netG}", image_size, self.size_multiple)
        self.ema_G_AB = frozen_copy(self.G_AB)
        self.averages = Averages({"G_AB": self.ema_G_AB}, {"G_AB": self.G_AB}, options.ema_beta)

    def costly_networks(self) -> list[nn.Module]:
        return [self.G_AB]

    def exported_networks(self) -> dict[str, nn.Module]:
        return {"G_AB": self.ema_G_AB}

    @property
    def size_multiple(self) -> int:
        return int(self.G_AB.multiple)  # type: ignore[arg-type]

    @torch.no_grad()
    def synthesise(self, real_A: Tensor) -> Tensor:
        """Apply G_AB with averaged weights, without a mask; input and output are (N, 1, H, W) in [-1, 1]."""
        return translate(self.ema_G_AB.eval(), real_A)[0].float()


def shows_masks(options: object, context: StepContext) -> bool:
    """Whether the hybrid generators still get the true masks (--structured_shape_iter)."""
    return context.images_seen < getattr(options, "structured_shape_iter", 0)


@torch.no_grad()
def one_way_visuals(G_AB: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Real images of both domains and the synthesis of A's."""
    return {"real_A": batch.A, "fake_B": translate(G_AB, batch.A)[0], "real_B": batch.B}
