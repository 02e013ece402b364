"""E_eval: an encoder for distances between sets of slices, which is part of no loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from evaluation.predict import Embedder, NetworkGrid
from models.base_model import BaseModel
from models.trained import load_trained
from util.errors import UserError


@dataclass(frozen=True)
class Encoder:
    """An encoder and the grid it was trained on."""

    sgp: Embedder
    grid: NetworkGrid


def grid_of(model: BaseModel) -> NetworkGrid:
    """The grid of a trained run's networks."""
    run = model.run
    return NetworkGrid(preprocess=run["preprocess"], load_size=int(run["load_size"]), multiple=model.size_multiple)


def load_encoder(folder: Path, tested: BaseModel, device: torch.device) -> Encoder:
    """Read E_eval from the run folder that --eval_encoder names.

    Raises:
        UserError: no trained run, a run without SGP, or the seed or encoder of the tested run, which may have guided
            its training.
    """
    try:
        model = load_trained(folder, "latest", device)
    except UserError as error:
        raise UserError(f"--eval_encoder {folder}: {error}") from error
    sgp = model.sgp
    if sgp is None:
        raise UserError(f"--eval_encoder {folder}: a run of --model {model.run['model']} without SGP, need --model sgp")
    if model.run["seed"] == tested.run["seed"]:
        raise UserError(
            f"--eval_encoder {folder}: trained with the seed {model.run['seed']} of the tested run, need another seed"
        )
    own = tested.sgp
    if own is not None and _same_weights(own, sgp):
        raise UserError(f"--eval_encoder {folder}: the same encoder as that of the tested run, need another")
    return Encoder(sgp, grid_of(model))


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks are equal in every parameter."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
