"""The models, by the names that `--model` takes."""

from __future__ import annotations

from models.base_model import BaseModel
from models.cycle_gan_model import CycleGANModel
from models.lsc_model import LSCModel
from models.pta_model import PTAModel
from models.sgp_model import SGPModel

MODELS: dict[str, type[BaseModel]] = {
    "pta_hybrid": PTAModel,
    "cycle_gan": CycleGANModel,
    "sgp": SGPModel,
    "lsc": LSCModel,
}
