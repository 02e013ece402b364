"""What is not finite stops a training before it is saved, with its name; what is constant is no reason to diverge."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
import torch
from conftest import SMALL_HYBRID, train_arguments
from torch import Tensor

import train
from data.batch import Batch
from models import MODELS
from models.networks import GENERATORS
from models.networks.layers import NORMS
from models.sgp_model import SGPStage
from models.update import StepContext
from options.train_options import parse
from training.divergence import finite
from util.checkpoint import read_newest
from util.errors import UserError

SIDE = 128  # what --netG unet_128 needs; unet_256 is the same network one scale deeper
CPU = torch.device("cpu")
ALONE = StepContext(CPU, micro_batch=2)


def spoil_gradient(stage: SGPStage) -> None:
    stage.sgp.network.log_scale.grad.fill_(float("inf"))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("term", "spoil", "words"),
    [
        ("temperature", None, "loss 'temperature' is nan at step 2 of stage sgp"),
        ("", spoil_gradient, "the gradient of sgp (network.log_scale) is not finite at step 2 of stage sgp"),
    ],
)
def test_divergence_stops_and_is_never_saved(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, term: str, spoil, words: str
) -> None:
    step, steps = SGPStage.step, []

    def spoiled_step(self: SGPStage, batch: Batch, context: StepContext) -> dict[str, Tensor]:
        losses = step(self, batch, context)
        steps.append(losses)
        if len(steps) == 2:
            if term:
                losses[term] = losses[term] * float("nan")
            if spoil:
                spoil(self)
        return losses

    monkeypatch.setattr(SGPStage, "step", spoiled_step)
    with pytest.raises(UserError) as stopped:
        train.main(train_arguments(phantom, tmp_path, "sgp", "--name=run", "--save_latest_freq=1", "--html"))
    latest = tmp_path / "run" / "latest.pt"
    assert str(stopped.value) == f"{words}; the last good state is {latest}; a smaller --lr may help"
    page = html.unescape((tmp_path / "run" / "web" / "index.html").read_text(encoding="utf-8"))
    assert (
        "Training report, failed" in page
        and f"Ended by an error in stage sgp, epoch 1, step 2 of 3 (66 %): {words}" in page
    )
    assert len(steps) == 2
    assert read_newest(tmp_path / "run").content["position"]["step"] == 1


def test_a_finite_step_gives_its_numbers() -> None:
    model = torch.nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    assert finite(model, {"a": torch.tensor(1.5), "b": torch.tensor(-2)}, ALONE, "step 1") == {"a": 1.5, "b": -2.0}
    assert finite(torch.nn.Linear(2, 2), {}, ALONE, "step 1") == {}  # no step yet: no gradient
    for value in (float("nan"), float("-inf")):
        model.weight.grad[1, 0] = value  # type: ignore[index]
        with pytest.raises(UserError, match=re.escape("the gradient of weight () is not finite at step 1")):
            finite(model, {}, ALONE, "step 1")


# constant slices ------------------------------------------------------------------------------------------------------


def constant_batch(level: float, mask: float) -> Batch:
    """Two slices of one grey level in either domain, foreground nowhere (0) or everywhere (1)."""
    image, foreground = torch.full((2, 1, SIDE, SIDE), level), torch.full((2, 1, SIDE, SIDE), mask)
    p, index = torch.tensor([0.2, 0.7]), torch.arange(2)
    return Batch(image, image, foreground, foreground, p, p, index, index, index)


SHARPNESS = {"lf_resolution": "0.6", "lf_contrast": "0.8", "lf_tone": "0,0.6,1"}
NETWORKS = [
    *(("cycle_gan", {"netG": name, "norm": norm}) for name in GENERATORS if name != "unet_256" for norm in NORMS),
    *(
        ("cycle_gan", {"netG": "unet_128", "netD": name, "norm_D": norm})
        for name in ("basic", "pixel")
        for norm in NORMS
    ),
    *(("cycle_gan", {"netG": "unet_128", "gan_mode": mode}) for mode in ("vanilla", "wgangp")),
    *(("pta_hybrid", {"netG": "unet_128", "syn_form": form}) for form in ("l1", "cos")),
    *((model, {"netG": "unet_128"}) for model in ("cut", "unsb", "pix2pix", "supervised")),
    ("degrade", {"netG": "unet_128", "lf_noise": "0.1", "lf_band": "0.6", "lf_bias": "0.1", **SHARPNESS}),
    ("sgp", {}),
    ("lsc", {}),
]
SMALL = {
    "cycle_gan": ["--ndf=2", *SMALL_HYBRID, "--hybrid_features=4"],
    "sgp": ["--sgp_input=32", "--sgp_patch=8", "--sgp_width=16", "--sgp_depth=1", "--sgp_heads=2", "--sgp_embedding=8"],
    "lsc": ["--lsc_features=2", "--lsc_blocks=8"],
}
SMALL["cut"] = SMALL["unsb"] = SMALL["pix2pix"] = SMALL["cycle_gan"]
SMALL["supervised"] = SMALL["degrade"] = SMALL["cycle_gan"][1:]
SMALL["pta_hybrid"] = [*SMALL["cycle_gan"], *SMALL["sgp"], *SMALL["lsc"], "--n_epochs_refine=1"]


@pytest.mark.parametrize(("model", "options"), NETWORKS, ids=[f"{m} {' '.join(o.values())}" for m, o in NETWORKS])
def test_constant_slices_leave_everything_finite(model: str, options: dict[str, str]) -> None:
    """Two steps of every stage on background alone, then on one grey: instance norm divides by no variance."""
    torch.manual_seed(0)
    small = SMALL[model]
    if options.get("netG", "hybrid") != "hybrid":
        small = [*(flag for flag in small if not flag.startswith("--hybrid")), "--ngf=2"]
    argv = [
        "--dataroot=D",
        f"--model={model}",
        *small,
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    network = MODELS[model](parse(argv).network, (SIDE, SIDE))
    for stage in network.stages:
        stage.begin(network)
        for level, mask in ((-1.0, 0.0), (-1.0, 0.0), (0.3, 1.0)):
            context = StepContext(CPU, micro_batch=2)
            losses = stage.step(constant_batch(level, mask), context)
            finite(network, losses, context, f"{stage.name}, level {level}")
    for name, value in network.state_dict().items():
        assert value.isfinite().all(), name
