"""Loads a trained model from its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models import MODELS
from models.base_model import BaseModel
from models.older_runs import BEFORE, with_younger_options
from models.refinement import RefineStage
from util.checkpoint import LATEST, checkpoint_path, read_checkpoint, read_newest
from util.errors import UserError, warn
from util.reading import read_json
from util.runs import OPTIONS_NAME, runs_there
from util.schema import build, flag

MOST_PIXELS = 1 << 14  # longest side of a slice that is accepted


@dataclass(frozen=True)
class SavedOptions:
    """The entries of a run's options.json that are read besides the model's own options; all are required."""

    model: str = flag("", "the model", choices=MODELS)
    direction: str = flag("AtoB", "which domain was the source", choices=("AtoB", "BtoA"))
    preprocess: str = flag("resize", "what happened to slices at loading")
    load_size: int = flag(224, "side in pixels that slices were resized to", low=1, high=MOST_PIXELS)
    seed: int = flag(0, "seed of the training", low=0)


def read_options(run_dir: Path) -> tuple[dict[str, Any], Any, tuple[int, int]]:
    """Read a run's options.json. Returns its content, the validated options of its model, and the image size (H, W).

    Raises:
        UserError: the run was never trained, or the file does not hold the options of a run.
    """
    if not (run_dir / OPTIONS_NAME).is_file():
        raise UserError(
            f"--name {run_dir.name}: no run of that name in {run_dir.parent} (no {OPTIONS_NAME}); "
            f"{runs_there(run_dir.parent, run_dir.name)}"
        )
    return options_in(run_dir)


def options_in(run_dir: Path, schema: type | None = None) -> tuple[dict[str, Any], Any, tuple[int, int]]:
    """As `read_options`, of a folder that has an options.json.

    Args: schema: the options that are built; None: those of the run's model.
    """
    path = run_dir / OPTIONS_NAME
    run = read_json(path)
    try:
        saved = build(SavedOptions, {field.name: run[field.name] for field in fields(SavedOptions)})
        options: Any = build(schema or MODELS[saved.model].Options, with_younger_options(run, BEFORE))
        height, width = run["image_size"]
        if not all(type(side) is int and 1 <= side <= MOST_PIXELS for side in (height, width)):
            raise UserError(
                f"image_size is {str([height, width])[:80]}, allowed are two whole numbers from 1 to {MOST_PIXELS}"
            )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the options of a run ({type(error).__name__}: {error})") from error
    return run, options, (height, width)


def load_trained(run_dir: Path, epoch: str = LATEST, device: torch.device | None = None) -> BaseModel:
    """The model of a run with the weights of `epoch` (`latest` or a number), in evaluation mode.

    Its architecture comes from the run's options.json, so `--netG` need not be repeated; `run` holds the content of
    that file. If latest.pt cannot be read, the checkpoint saved before it is used, with a warning.

    Raises:
        UserError: the run was never trained, lacks that epoch, or its files do not fit together.
    """
    run, options, image_size = read_options(run_dir)
    if epoch == LATEST:
        newest = read_newest(run_dir)
        path, content = newest.path, newest.content
        if newest.warning:
            warn(newest.warning)
    else:
        path = checkpoint_path(run_dir, epoch)
        content = read_checkpoint(path)
    make = partial(MODELS[run["model"]].load(), options, image_size)
    try:
        with torch.device("meta"):  # allocates nothing: options.json may describe a model of any size
            described = make().state_dict()
    except (UserError, RuntimeError, AssertionError) as error:
        raise UserError(f"{run_dir / OPTIONS_NAME}: no model can be built from these options ({error})") from error
    found = content.get("model")
    if not isinstance(found, dict) or shapes(found) != shapes(described):
        raise UserError(f"{path}: not weights of the model that {run_dir / OPTIONS_NAME} describes")
    model = make()
    model.load_state_dict(found)
    model.run, model.checkpoint, model.title = run, path, _title(run["model"], model, content.get("position"))
    return model.to(device or torch.device("cpu")).eval().requires_grad_(False)


def _title(name: str, model: BaseModel, position: Any) -> str:
    """The name of the model, with "+ refinement" if a checkpoint of that training position has steps of it."""
    index, steps = (position.get(part) for part in ("stage", "step")) if isinstance(position, dict) else (None, 0)
    if type(index) is not int or index not in range(len(model.stages)) or not steps:
        return name
    return f"{name} + refinement" if isinstance(model.stages[index], RefineStage) else name


def shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of every tensor of a state; None for what is none."""
    return {name: getattr(value, "shape", None) for name, value in state.items()}
