"""A new model is one file and one line, also when it has a stage of its own: here it is, and it trains and resumes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import train_arguments
from torch import Tensor, nn

import train
from data.batch import Batch
from models import MODELS
from models.base_model import BaseModel, adam, learning_rate
from models.base_options import OptimiserOptions
from models.stage import Stage
from models.trained import load_trained
from models.update import Update
from util.lazy import Lazy
from util.schema import flag


@dataclass(frozen=True)
class BlurOptions(OptimiserOptions):
    """Options of `--model blur`."""

    blur_channels: int = flag(4, "channels of the network", group="networks", low=1)


class BlurStage(Stage):
    """The network learns to undo an average over 3 x 3 pixels."""

    name = "deblur"
    splits = True

    def __init__(self, network: nn.Module, options: BlurOptions) -> None:
        super().__init__([network], options.n_epochs + options.n_epochs_decay)
        self.network, self.options = network, options
        self.optimisers = {"deblur": adam([network], options)}

    def learning_rate(self, epoch: int, step: int) -> float:
        return learning_rate(self.options, epoch)

    def losses(self, batch: Batch, update: Update) -> None:
        blurred = nn.functional.avg_pool2d(batch.B, 3, 1, 1)
        update.add("l1", 1.0, (self.network(blurred) - batch.B).abs().mean())

    def visuals(self, batch: Batch) -> dict[str, Tensor]:
        return {"real_B": batch.B}


class BlurModel(BaseModel):
    """`--model blur`."""

    Options = BlurOptions

    def __init__(self, options: BlurOptions, image_size: tuple[int, int]) -> None:
        super().__init__(options, image_size)
        n = options.blur_channels
        self.network = nn.Sequential(nn.Conv2d(1, n, 3, padding=1), nn.ReLU(), nn.Conv2d(n, 1, 3, padding=1))
        self.stages = [BlurStage(self.network, options)]

    def exported_networks(self) -> dict[str, nn.Module]:
        return {"deblur": self.network}


def test_a_model_with_a_stage_of_its_own(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "blur", Lazy("test_new_model.BlurModel"))
    argv = train_arguments(phantom, tmp_path, "blur", "--name=run", "--blur_channels=6", "--no_html")
    assert train.main(argv) == 0
    assert train.main([*argv, "--continue_train", "--n_epochs=2"]) == 0
    with (tmp_path / "run" / "loss_log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["stage"] for row in rows} == {"deblur"} and float(rows[0]["l1"]) > 0
    loaded = load_trained(tmp_path / "run")
    assert isinstance(loaded, BlurModel) and loaded.network[0].out_channels == 6
    saved = torch.load(tmp_path / "run" / "latest_net_deblur.pth", weights_only=True)
    assert torch.equal(saved["0.weight"], loaded.network[0].weight)
