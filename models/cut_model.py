"""`--model cut`: contrastive unpaired translation, one direction and no cycle (Park et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from data.batch import Batch
from models.adversarial_options import Weights
from models.base_model import adam
from models.chance import uniform
from models.cut_options import CUTOptions
from models.gan_stage import GANStage
from models.generator_model import shows_masks
from models.judged_generator import JudgedGenerator
from models.losses import patch_nce_loss
from models.low_field import LowFieldScan
from models.networks.patch_features import PatchFeatures
from models.passes import full, hidden_states, translate
from models.update import Update

ANYWHERE = 8  # one of so many places lies anywhere in the image


class CUTStage(GANStage):
    """The adversarial stage with one direction, and PatchNCE in the place of the cycle.

    A place of fake_B must be told, by the generator's own hidden states, from all other places of `a`: so G_AB keeps
    what lies where. The same between G_AB(b) and b takes the place of the identity loss.
    """

    name = "cut"
    options: CUTOptions

    def __init__(self, model: CUTModel, weights: Weights) -> None:
        super().__init__(model, weights)
        self.features = model.features
        self.networks.append(model.features)
        self.optimisers["G"] = adam([model.G_AB, model.features], model.options)

    def add_terms(self, update: Update, batch: Batch, domain: str, made: Tensor, fake: Tensor) -> None:
        o = self.options
        with_masks = shows_masks(o, update.context)
        if o.lambda_nce:
            update.add("nce", o.lambda_nce, self.nce(fake, batch.A, batch.mask_A, batch.key, with_masks, "a"))
        if o.lambda_nce_idt:
            idt_B = self.identity(batch, batch.mask_B if with_masks else None)
            update.add("nce_idt", o.lambda_nce_idt, self.nce(idt_B, batch.B, batch.mask_B, batch.key, with_masks, "b"))

    def identity(self, batch: Batch, mask: Tensor | None) -> Tensor:
        """idt_B = G_AB(b), b with the low field's noise and receive field if the options tell them."""
        return translate(self.G["B"], LowFieldScan(self.options, batch).on_real("B", batch.B), mask)[0]

    def encoded(self, x: Tensor) -> Tensor:
        """What the generator's encoder gets of an image."""
        return x

    def nce(self, made: Tensor, source: Tensor, mask: Tensor, keys: Tensor, with_masks: bool, name: str) -> Tensor:
        """PatchNCE between a synthesis and its source, the mean over the hidden states.

        Most places lie in the head as far as there are enough: all places of air are alike, so they would be each
        other's negatives. Some lie anywhere, or nothing but D_B would keep the air empty. As published, no gradient
        flows into the source's features.
        """
        shown = mask if with_masks else None
        with torch.no_grad():
            of_source = hidden_states(self.G["B"], self.encoded(source), shown)
            shapes = [(state.shape[-2], state.shape[-1]) for state in of_source]
            places = [self._places(mask, shape, keys, f"{name}, {i}") for i, shape in enumerate(shapes)]
            wanted = self.features(of_source, places)
        found = self.features(hidden_states(self.G["B"], self.encoded(made), shown), places)
        terms = [patch_nce_loss(full(u), full(v), self.options.nce_tau) for u, v in zip(found, wanted, strict=True)]
        return torch.stack(terms).mean()

    def _places(self, mask: Tensor, shape: tuple[int, int], keys: Tensor, name: str) -> Tensor:
        """Positions (N, P) in a hidden state of `shape`, without repetition: those in the head, then those anywhere."""
        head = F.adaptive_max_pool2d(mask.float(), shape).flatten(1)
        order = uniform(keys, f"places of PatchNCE: {name}", shape[0] * shape[1]).to(head.device)
        count = min(self.options.nce_patches, order.shape[1])
        inside = (order + head).topk(count - count // ANYWHERE, dim=1).indices
        others = order.scatter(1, inside, -1.0).topk(count // ANYWHERE, dim=1).indices
        return torch.cat([inside, others], 1)


class CUTModel(JudgedGenerator):
    """`--model cut`."""

    Options: type[CUTOptions] = CUTOptions
    options: CUTOptions
    channels_G, channels_D_B = 1, 1

    def __init__(self, options: CUTOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size, channels_G=self.channels_G, channels_D_B=self.channels_D_B)
        with torch.no_grad():
            states = hidden_states(self.G_AB, torch.zeros(1, self.channels_G, *image_size), None)
        self.features = PatchFeatures([state.shape[1] for state in states])
        self.weights = Weights(adv=options.lambda_adv, seg=options.lambda_seg)
        self.stages = [CUTStage(self, self.weights)]
