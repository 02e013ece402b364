"""Pool of earlier syntheses that the discriminator is shown (Shrivastava et al. 2017; CycleGAN: 50 images)."""

from __future__ import annotations

import torch
from torch import Tensor


class ImagePool:
    """Keeps up to `size` images; a query returns, for each image with probability 1/2, an older one in exchange.

    The pool has its own generator and its content is part of a checkpoint, so that a resumed run sees the same images.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(seed)

    def query(self, images: Tensor) -> Tensor:
        """images: (N, C, H, W), without graph. Returns the same shape; the images themselves when size is 0."""
        if self.size == 0 or not len(images):
            return images
        returned = []
        for image in images.detach():
            if len(self.images) < self.size:
                self.images.append(image.clone())
                returned.append(image)
                continue
            exchange, place = torch.rand(2, generator=self.generator).tolist()
            if exchange < 0.5:
                slot = min(int(place * self.size), self.size - 1)
                returned.append(self.images[slot].to(image.device))
                self.images[slot] = image.clone()
            else:
                returned.append(image)
        return torch.stack(returned)

    def state_dict(self) -> dict[str, object]:
        return {"images": list(self.images), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.images = list(state["images"])  # type: ignore[call-overload]
        self.generator.set_state(state["generator"])  # type: ignore[arg-type]
