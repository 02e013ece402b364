"""Speed and memory of the training step and of inference, on random slices with a head-shaped foreground."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.case import Case
from benchmarks.speed.machine import conv_rate, copy_rate
from benchmarks.speed.operations import operations
from data.batch import Batch
from models import MODELS
from models.base_model import BaseModel
from models.gan_stage import GANStage
from models.networks.layers import count_parameters
from models.update import StepContext
from options.train_options import parse
from training.acceleration import accelerate, compile_networks
from training.activations import measure_activations
from training.low_field.resolve import with_usual_numbers
from training.memory import fitting_micro_batch
from util.device import amp_dtype, choose_device
from util.errors import UserError

WARM_UP = 2  # untimed steps: they select kernels and fill the image pools
LEAST_STEPS = 5
TERMS = ("cycle", "idt", "syn", "syn_A", "seg")  # terms whose cost is measured by leaving them out

Result = dict[str, Any]


class Bench:
    """A model and a batch, ready for steps of its adversarial stage, or of its last stage if it has none."""

    def __init__(self, case: Case) -> None:
        run = parse(["--dataroot", "-", "--model", case.model, "--load_size", str(case.size), *case.train_args])
        self.case, self.device = case, choose_device(case.gpu_ids)
        self.dtype = amp_dtype(case.amp, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: BaseModel = MODELS[case.model](with_usual_numbers(run.network), (case.size, case.size))
        self.model = model.to(self.device)
        accelerate(self.model, run.train)
        compile_networks(self.model, run.train, self.device)
        self.stage = next((stage for stage in model.stages if isinstance(stage, GANStage)), model.stages[-1])
        self.stage.begin(model)
        self.batch = head_batch(case.batch, case.size).to(self.device)
        self.context = StepContext(self.device, case.batch, self.dtype)
        self.context.micro_batch = self._micro_batch(run.train.micro_batch)

    def _micro_batch(self, asked: str) -> int:
        if asked != "auto":
            return int(asked)
        if not self.stage.splits:
            return self.case.batch
        needed = measure_activations(self.model, self.stage, self.batch, self.context)
        return fitting_micro_batch(needed, self.case.batch, self.device)

    def step(self) -> object:
        return self.stage.step(self.batch, self.context)

    @torch.no_grad()
    def infer(self) -> object:
        with self.context.autocast():
            return self.model.synthesise(self.batch.A)

    def described(self, name: str, seconds: float) -> Result:
        """The figures that every case of this model reports."""
        generator = getattr(self.model, "G_AB", self.model)
        return {
            "case": name,
            "model": self.case.model,
            "size": self.case.size,
            "batch": self.case.batch,
            "micro_batch": self.context.micro_batch,
            "amp": {None: "off", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype],
            "device": self.device.type,
            "parameters_G": count_parameters(generator),
            "s_per_step": seconds,
            "images_per_s": self.case.batch / seconds,
            "peak_mb": peak_mb(self.device),
        }


def head_batch(n: int, size: int) -> Batch:
    """Random intensities inside an ellipse about as large as a head in a slice, background outside."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    mask = (((y / 0.85) ** 2 + (x / 0.7) ** 2) < 1).float().expand(n, 1, size, size).contiguous()
    A, B = ((torch.rand(n, 1, size, size, generator=generator) * 2) * mask - 1 for _ in "AB")
    p, index = torch.linspace(0.2, 0.8, n), torch.arange(n)
    return Batch(A, B, mask, mask, p, p, index, index, index)


def peak_mb(device: torch.device) -> int:
    """Peak memory so far in MiB: on a GPU its own, else that of this process, Python and libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def median_seconds(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median time of one call of `work` after a warm-up, from about `seconds` of calls, at least five."""
    for _ in range(WARM_UP):
        work()
    times: list[float] = []
    while len(times) < LEAST_STEPS or sum(times) < seconds:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def train_case(case: Case) -> Result:
    """One complete step of generators and discriminators: time, memory, and FLOP in total and by loss term."""
    bench = Bench(case)
    found = bench.described("train", median_seconds(bench.step, bench.device, case.seconds))
    found |= _against_machine(bench, found["s_per_step"], flop(bench.step))
    found["flop_of"] = flop_by_term(bench)
    return found | (operations(bench.step, bench.device) if case.profile else {})


def infer_case(case: Case) -> Result:
    """Synthesis of one batch, as in test.py."""
    bench = Bench(case)
    if not bench.model.can_synthesise:
        raise UserError(f"--cases infer: --model {case.model} does not synthesise")
    found = bench.described("infer", median_seconds(bench.infer, bench.device, case.seconds))
    found |= _against_machine(bench, found["s_per_step"], flop(bench.infer))
    return found | (operations(bench.infer, bench.device) if case.profile else {})


def flop(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in `work` (torch.utils.flop_counter)."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def flop_by_term(bench: Bench) -> dict[str, int]:
    """FLOP of each loss term, found by leaving it out; `adv` is the rest: both discriminators, R and one G pass."""
    stage = bench.stage
    if not isinstance(stage, GANStage):
        return {}
    weights, total = stage.weights, flop(bench.step)
    saved = {}
    for term in TERMS:
        if getattr(weights, term):
            stage.weights = replace(weights, **{term: 0.0})
            saved[term] = total - flop(bench.step)
    stage.weights = weights
    return {**saved, "adv": total - sum(saved.values())}


def _against_machine(bench: Bench, seconds: float, operations: int) -> Result:
    rate = conv_rate(bench.device, bench.dtype or torch.float32)
    return {
        "flop_per_step": operations,
        "flop_per_s": operations / seconds,
        "conv_rate": rate,
        "fraction_of_conv_rate": operations / seconds / rate,
        "copy_rate": copy_rate(bench.device),
    }
