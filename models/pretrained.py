"""Generators that come with the repository: `pretrained/NAME/`, read by `test.py --pretrained NAME`.

Such a folder looks like that of a run, and holds of it what synthesis needs (scripts/export_pretrained.py makes it):
options.json (generator, preprocessing, image size), run.json (scale of the training's slices, SHA-256 of the weights),
weights.safetensors (G_AB alone, float16) and README.md, its model card.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from models.adversarial_options import SynthesisOptions
from models.generator_model import GeneratorModel
from models.trained import options_in, shapes
from util.errors import UserError
from util.reading import read_bounded, read_json
from util.runs import RUN_INFO_NAME, WEIGHTS_NAME, require_pretrained

NETWORK = "G_AB"
MOST_BYTES = 8_000_000  # of a file of weights: the repository carries it
SHA256 = "weights_sha256"  # in run.json


class PretrainedModel(GeneratorModel):
    """G_AB of a finished run, without what trained it."""

    Options = SynthesisOptions


def load_pretrained(run_dir: Path, device: torch.device | None = None) -> PretrainedModel:
    """The generator of a folder of `pretrained/`, in evaluation mode and in float32.

    Raises:
        UserError: no such folder, a file in it cannot be read, or its files do not belong together.
    """
    require_pretrained(run_dir)
    run, options, image_size = options_in(run_dir, SynthesisOptions)
    path = run_dir / WEIGHTS_NAME
    content = read_bounded(path, MOST_BYTES)
    expected = read_json(run_dir / RUN_INFO_NAME).get(SHA256)
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise UserError(
            f"{path}: damaged or exchanged, its SHA-256 is {found[:12]}, {RUN_INFO_NAME} says {str(expected)[:12]}"
        )
    weights = _weights(path, content)
    model = PretrainedModel(options, image_size)
    if shapes(weights) != shapes(model.G_AB.state_dict()):
        raise UserError(f"{path}: not weights of the generator that {run_dir.name}'s options describe")
    for network in (model.G_AB, model.ema_G_AB):
        network.load_state_dict(weights)
    model.run, model.checkpoint, model.title = run, path, f"{run['model']}, pretrained {run_dir.name}"
    return model.to(device or torch.device("cpu")).eval().requires_grad_(False)


def _weights(path: Path, content: bytes) -> Mapping[str, Tensor]:
    try:
        return {name: value.float() for name, value in safetensors.torch.load(content).items()}
    except Exception as error:  # the library raises several kinds
        raise UserError(f"{path}: cannot be read as weights ({type(error).__name__})") from error


def half_precision(model: Any) -> bytes:
    """The weights of a trained model's G_AB, those that synthesise, as the content of a .safetensors file in float16.

    Raises: UserError: the model has no G_AB, a weight is beyond float16's range, or the file would be too large.
    """
    network = model.exported_networks().get(NETWORK)
    if network is None:
        raise UserError(f"{model.title}: has no {NETWORK}, and nothing else is shipped")
    state = {name: value.detach().cpu().to(torch.float16).contiguous() for name, value in network.state_dict().items()}
    beyond = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if beyond:
        raise UserError(f"{beyond[0]}: weights beyond the range of float16")
    content = safetensors.torch.save(state, {"format": "pt", "network": NETWORK})
    if len(content) > MOST_BYTES:
        raise UserError(f"weights of {len(content)} bytes in float16, at most {MOST_BYTES} are shipped")
    return content
