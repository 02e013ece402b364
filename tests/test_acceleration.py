"""What makes a training faster or smaller does not change what it computes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_models import SIDE, SMALL, batch, context, last_step, pta

from models.cycle_gan_model import CycleGANModel
from models.cycle_gan_options import CycleGANOptions
from models.generator_pair import GeneratorPair
from models.networks.hybrid import HybridGenerator
from models.update import StepContext, Update
from options.train_options import TrainOptions
from training.acceleration import accelerate, compile_networks
from training.divergence import finite
from training.kept_memory import kept_bytes
from util.errors import UserError
from util.processes import Processes

CPU = torch.device("cpu")


def trained(**options: object) -> tuple[dict[str, float], GeneratorPair]:
    """Losses of the third step, and the model."""
    model = pta(pool_size=0)
    accelerate(model, TrainOptions(**options))  # type: ignore[arg-type]
    compile_networks(model, TrainOptions(**options), CPU)  # type: ignore[arg-type]
    for step in range(3):
        data = batch(key=4 * step)
        L = last_step(model, data, context())
    return {name: value.item() for name, value in L.items()}, model


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, float], GeneratorPair]:
    return trained()


@pytest.mark.parametrize(
    "option", ["checkpoint_activations", "channels_last", pytest.param("compile", marks=pytest.mark.slow)]
)
def test_the_same_losses_and_weights(option: str, plain: tuple[dict[str, float], GeneratorPair]) -> None:
    L, model = trained(**{option: True})
    assert plain[0] == pytest.approx(L, rel=1e-4)
    pairs = zip(plain[1].state_dict().items(), model.state_dict().items(), strict=True)
    for (name, expected), (same_name, found) in pairs:
        assert name == same_name  # checkpoints do not show what a run was accelerated with
        assert torch.allclose(expected, found, atol=1e-4), name


@pytest.mark.parametrize("netG", ["hybrid", "resnet_6blocks", "unet_128"])
def test_checkpointing_keeps_less_memory(netG: str) -> None:
    kept = {}
    side = 128 if netG == "unet_128" else SIDE
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = CycleGANModel(CycleGANOptions(**{**SMALL, "netG": netG, "ngf": 8}), (side, side))
        accelerate(model, TrainOptions(checkpoint_activations=checkpointing))
        data = batch(2)
        images = {name: getattr(data, name) for name in ("A", "B", "mask_A", "mask_B")}
        larger = {name: torch.nn.functional.interpolate(image, side) for name, image in images.items()}
        data = dataclasses.replace(data, **larger)
        (stage,) = model.stages
        stage.begin(model)
        kept[checkpointing] = kept_bytes(model, stage, data, context())
    assert kept[True] < 0.7 * kept[False]


def test_what_excludes_each_other_is_refused() -> None:
    with pytest.raises(UserError, match="--checkpoint_activations and --compile exclude"):
        accelerate(pta(), TrainOptions(checkpoint_activations=True, compile=True))
    with pytest.raises(UserError, match="batch statistics"):
        accelerate(pta(norm="batch"), TrainOptions(checkpoint_activations=True))


def test_batch_statistics_of_several_processes_are_refused() -> None:
    accelerate(pta(norm="batch"), TrainOptions())
    with pytest.raises(UserError, match="--norm batch"):
        accelerate(pta(norm="batch"), TrainOptions(), Processes(0, 2))


def test_a_machine_that_cannot_compile_is_told_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda function: fail)
    with pytest.raises(UserError, match=r"cannot compile on this machine \(no compiler\)"):
        compile_networks(pta(), TrainOptions(compile=True), CPU)


@pytest.mark.filterwarnings("error::UserWarning")
def test_every_costly_network_compiles_to_one_graph() -> None:
    """As far as torch's own tracing goes, without the C++ compiler; a break in a graph costs what compiling gains."""
    model, data = pta().eval(), batch()
    for network in model.costly_networks():
        network.requires_grad_(False)
        for module in network.modules():
            if isinstance(module, HybridGenerator):
                module.dense = True
        x = torch.cat([data.A, data.B], 1) if network is model.D_B else data.A
        traced = torch.compile(network, fullgraph=True, backend="eager")
        for expected, found in zip(network(x), traced(x), strict=True):
            assert torch.allclose(expected, found, atol=1e-5)


def test_compiled_generators_have_no_shapes_that_depend_on_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    model = pta()
    compile_networks(model, TrainOptions(compile=True), CPU)
    generators = model.G_AB, model.G_BA, model.ema_G_AB, model.ema_G_BA
    assert [each.dense for each in generators] == [True, True, False, False]  # not the averages


# float16 --------------------------------------------------------------------------------------------------------------


def test_float16_leaves_out_a_step_that_overflows_and_trains_on_at_a_smaller_scale() -> None:
    where = StepContext(CPU, 4, torch.float16)
    model = torch.nn.Linear(2, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    before = model.weight.detach().clone()
    for factor, moved in ((torch.inf, False), (1.0, True)):
        scale = where.scaler.get_scale()
        update = Update(optimiser, where)
        update.add("a", factor, model(torch.ones(1, 2)).sum())
        update.apply()
        where.end_step()
        assert torch.equal(before, model.weight) is not moved
        assert where.scaler.get_scale() == (scale if moved else scale / 2)
        assert finite(model, {"a": torch.tensor(1.0)}, where, "step 1") == {"a": 1.0}
    where.scaler.update(2.0**-12)
    with pytest.raises(UserError, match="float16 gradients overflow"):
        finite(model, {}, where, "step 9")


def test_a_float16_step_is_near_that_in_float32(plain: tuple[dict[str, float], GeneratorPair]) -> None:
    model, where = pta(pool_size=0), StepContext(CPU, 4, torch.float16)
    where.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for step in range(3):
        L = last_step(model, batch(key=4 * step), where)
        where.end_step()
    assert {name: value.item() for name, value in L.items()} == pytest.approx(plain[0], rel=0.02)
