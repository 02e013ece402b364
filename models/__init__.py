"""Models by the names users type: `--model`; and a trained one read back from its run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from models.base_model import BaseModel
from models.cycle_gan_model import CycleGANModel
from models.lsc_model import LSCModel
from models.pta_model import PTAModel
from models.sgp_model import SGPModel
from util.checkpoint import OPTIONS_NAME, checkpoint_path, read_checkpoint
from util.errors import UserError
from util.schema import build

MODELS: dict[str, type[BaseModel]] = {
    "pta_hybrid": PTAModel,
    "cycle_gan": CycleGANModel,
    "sgp": SGPModel,
    "lsc": LSCModel,
}


def load_trained(run_dir: Path, epoch: str = "latest", device: torch.device | None = None) -> BaseModel:
    """The model of a run with the weights of `epoch` (`latest` or a number), in evaluation mode.

    Its architecture comes from the run's options.json, so nobody repeats `--netG`; `run` holds that file's content.

    Raises:
        UserError: the run was never trained, or lacks that epoch.
    """
    options_file = run_dir / OPTIONS_NAME
    if not options_file.is_file():
        raise UserError(
            f"--name {run_dir.name}: no run of that name in {run_dir.parent} (no {OPTIONS_NAME}); train it first"
        )
    try:
        run = json.loads(options_file.read_text(encoding="utf-8"))
        cls, image_size = MODELS[run["model"]], (int(run["image_size"][0]), int(run["image_size"][1]))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{options_file}: not the options of a run ({type(error).__name__}: {error})") from error
    content = read_checkpoint(checkpoint_path(run_dir, epoch))
    # pretext weights are in the checkpoint; the files they once came from may be gone
    options: Any = build(cls.Options, {**run, "sgp_weights": None, "lsc_weights": None})
    model = cls(options, image_size)  # type: ignore[call-arg]
    model.load_state_dict(content["model"])
    model.run = run
    return model.to(device or torch.device("cpu")).eval().requires_grad_(False)


__all__ = ["MODELS", "BaseModel", "load_trained"]
