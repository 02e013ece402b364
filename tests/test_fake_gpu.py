"""Steps of every stage on a GPU that computes nothing: devices never mix, and nothing waits. Runs without CUDA."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from fake_gpu import DEVICE, FakeGPU, Waits, pretended  # noqa: F401
from tiny_models import batch, cycle_gan, pta
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from models.base_model import BaseModel
from models.networks.blur import _kept_matrix
from models.update import StepContext
from options.train_options import TrainOptions
from training.acceleration import accelerate

pytestmark = pytest.mark.usefixtures("pretended")


@pytest.fixture(autouse=True)
def no_blur_is_kept() -> Iterator[None]:
    _kept_matrix.cache_clear()
    yield
    _kept_matrix.cache_clear()


def train_on(gpu: FakeGPU, model: BaseModel, dtype: torch.dtype, *, all_of_it: bool = False) -> dict[str, torch.Tensor]:
    """A step of each stage but the pretext ones; or of all, two steps, which pool images, in two parts. Its losses."""
    gpu.move(model)
    with gpu:
        where = StepContext(DEVICE, 2 if all_of_it else 4, dtype)
        for stage in model.stages:
            if stage.name in ("sgp", "lsc") and not all_of_it:
                continue
            stage.begin(model)
            for step in range(2 if all_of_it else 1):
                data = batch(key=4 * step).to(DEVICE)
                L = stage.step(data, where)
                where.end_step()
    return L


MODELS = {
    "pta": {},
    "chance": {"lf_noise": 0.1, "lf_bias": 0.1, "lf_band": 0.7, "n_epochs_refine": 1},
    "physics": {
        "lf_noise": 0.1, "lf_bias": 0.1, "lf_resolution": 0.6, "lf_contrast": 0.8, "lf_tone": "0,0.6,1",
        "n_epochs_refine": 1, "refine_physics": 0.5,
    },
    "separate": {"pretext_adv": "separate", "syn_form": "cos", "loss_preset": "paper"},
    "vanilla": {"gan_mode": "vanilla", "sgp_match": "none", "pretext_adv": "none"},
}  # fmt: skip


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_no_step_of_any_stage_waits_or_mixes_devices(options: dict[str, object]) -> None:
    L = train_on(FakeGPU(), pta(pool_size=4, **options), torch.bfloat16, all_of_it=not options)
    assert all(value.device == DEVICE and value.shape == () for value in L.values())


def test_nor_in_float16_with_its_scaler() -> None:
    L = train_on(FakeGPU(), cycle_gan(pool_size=4, n_epochs_refine=1), torch.float16)
    assert all(value.device == DEVICE for value in L.values())


@pytest.mark.parametrize("option", ["channels_last", "checkpoint_activations"])
@pytest.mark.parametrize("generator", ["hybrid", "resnet_6blocks"])
def test_accelerated_steps(option: str, generator: str) -> None:
    model = cycle_gan(netG=generator, ngf=4)
    accelerate(model, TrainOptions(**{option: True}))  # type: ignore[arg-type]
    assert set(train_on(FakeGPU(), model, torch.bfloat16)) >= {"cycle", "adv", "D_A"}


def test_pictures_and_syntheses_stay_on_the_gpu() -> None:
    gpu = FakeGPU()
    model = gpu.move(pta(n_epochs_refine=1))
    where = StepContext(DEVICE, 2, torch.bfloat16)
    with gpu, where.autocast():
        data = batch().to(DEVICE)
        pictures = [stage.visuals(data) for stage in model.stages]
        assert all(image.device == DEVICE for found in pictures for image in found.values())
        assert model.synthesise(data.A).device == DEVICE


def test_mixed_precision_is_that_of_a_gpu() -> None:
    gpu = FakeGPU()
    model = gpu.move(pta())
    where = StepContext(DEVICE, 2, torch.float16)
    assert where.scaler.is_enabled()
    with gpu, where.autocast():
        data = batch().to(DEVICE)
        assert model.D_A(data.A).dtype is torch.float16
        assert model.synthesise(data.A).dtype is torch.float32


def test_mistakes_are_noticed() -> None:
    gpu = FakeGPU()
    with gpu:
        there = torch.ones(4).to(DEVICE, non_blocking=True)
        with pytest.raises(Waits, match="to the CPU"):
            there.cpu()
        with pytest.raises(Waits, match="non_blocking"):
            torch.ones(4).to(DEVICE)
        with pytest.raises(Waits, match="non_blocking"):
            there.copy_(torch.ones(4))
        there.copy_(torch.ones(4), non_blocking=True)
        with pytest.raises(RuntimeError, match="device"):
            there + torch.ones(4)
        with pytest.raises(DataDependentOutputException):
            there.sum().item()
        with pytest.raises(DynamicOutputShapeException):
            there[there > 0]
    with FakeGPU(waiting=True):
        assert torch.ones(4).to(DEVICE).cpu().device.type == "cpu"


def test_a_batch_goes_to_the_gpu_but_for_its_keys() -> None:
    with FakeGPU():
        moved = batch().to(DEVICE)
    places = {field.name: getattr(moved, field.name).device.type for field in dataclasses.fields(moved)}
    assert places.pop("key") == "cpu"
    assert set(places.values()) == {"cuda"}
