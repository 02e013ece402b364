"""Pool of earlier synthesised images for the discriminators (Shrivastava et al. 2017; CycleGAN: 50 images)."""

from __future__ import annotations

import torch
from torch import Tensor


class ImagePool:
    """Keeps up to `size` images. A query swaps each new image for an older one with probability 1/2.

    The chance comes with the images, from their keys, so it follows from the run's seed. The pool's content is part of
    the checkpoint, so a resumed run gets the same images.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, chance: Tensor) -> Tensor:
        """Args: images: (N, C, H, W), detached. chance: (N, 2) in [0, 1): whether, and for which one, it is swapped.

        Returns: a tensor of the same shape; `images` itself if `size` is 0.
        """
        if self.size == 0 or not len(images):
            return images
        returned = []
        for image, (exchange, place) in zip(images.detach(), chance.tolist(), strict=True):
            if len(self.images) < self.size:
                self.images.append(image.clone())
                returned.append(image)
            elif exchange < 0.5:
                slot = min(int(place * self.size), self.size - 1)
                returned.append(self.images[slot].to(image.device))
                self.images[slot] = image.clone()
            else:
                returned.append(image)
        return torch.stack(returned)

    def state_dict(self) -> dict[str, object]:
        return {"images": list(self.images)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.images = list(state["images"])  # type: ignore[call-overload]
