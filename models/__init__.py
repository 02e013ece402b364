"""The models, by the names that `--model` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.cut_options import CUTOptions
from models.cycle_gan_options import CycleGANOptions
from models.degrade_options import DegradeOptions
from models.lsc_options import LSCOptions
from models.pix2pix_options import Pix2PixOptions
from models.pta_options import PTACycleGANOptions, PTAOptions, PTAUnetOptions
from models.sgp_options import SGPOptions
from models.supervised_options import SupervisedOptions
from models.unsb_options import UNSBOptions
from util.lazy import Lazy

if TYPE_CHECKING:
    from models.base_model import BaseModel

MODELS: dict[str, Lazy[BaseModel]] = {
    "pta_hybrid": Lazy("models.pta_model.PTAModel", PTAOptions),
    "pta_cyclegan": Lazy("models.pta_model.PTACycleGANModel", PTACycleGANOptions),
    "pta_unet": Lazy("models.pta_model.PTAUnetModel", PTAUnetOptions),
    "cycle_gan": Lazy("models.cycle_gan_model.CycleGANModel", CycleGANOptions),
    "cut": Lazy("models.cut_model.CUTModel", CUTOptions),
    "unsb": Lazy("models.unsb_model.UNSBModel", UNSBOptions),
    "degrade": Lazy("models.degrade_model.DegradeModel", DegradeOptions),
    "pix2pix": Lazy("models.pix2pix_model.Pix2PixModel", Pix2PixOptions),
    "supervised": Lazy("models.supervised_model.SupervisedModel", SupervisedOptions),
    "sgp": Lazy("models.sgp_model.SGPModel", SGPOptions),
    "lsc": Lazy("models.lsc_model.LSCModel", LSCOptions),
}
