"""Pool of earlier synthesised images for the discriminators (Shrivastava et al. 2017; CycleGAN: 50 images)."""

from __future__ import annotations

import torch
from torch import Tensor


class ImagePool:
    """Keeps up to `size` images. A query swaps each new image for an older one with probability 1/2.

    The pool has its own random generator, and its content is part of the checkpoint, so a resumed run gets the same
    images.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(seed)

    def query(self, images: Tensor) -> Tensor:
        """images: (N, C, H, W), detached. Returns a tensor of the same shape; `images` itself if `size` is 0."""
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
