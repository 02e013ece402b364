"""Speed of the data pipeline: simulating volumes, slicing them, decoding and preparing slices."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.case import Case
from benchmarks.speed.compute import peak_mb
from data.batch import SHUFFLED
from data.cache.place import CACHE_NAME
from data.cache.slice_cache import SliceCache
from data.registry import DATASETS
from models import MODELS
from options.train_options import parse
from preprocessing.geometry import SourceGeometry
from preprocessing.slicing import write_volume
from simulation.benchmark import Benchmark, write_benchmark
from simulation.presets import Preset, find_preset, with_acquisition
from simulation.subject import simulate_scan
from training.loader import load
from util.device import choose_device

SUBJECTS = 3  # training subjects per domain in the simulated data folder
PREPROCESS_MATRIX = 256
THICKNESS_MM = 1.0  # of the simulated slices

Result = dict[str, Any]


def load_case(case: Case) -> Result:
    """Load slices of a simulated data folder: cold, from PNG files into the cache, and warm, in batches from the cache.

    Warm batches are read and prepared in this process, on the device asked for; the first epoch is not timed.
    """
    device = choose_device(case.gpu_ids)
    with tempfile.TemporaryDirectory() as folder:
        dataroot = Path(folder) / "data"
        benchmark = Benchmark(find_preset("same-contrast"), SUBJECTS, 0, 0, seed=0, bits=16, matrix=case.size)
        write_benchmark(dataroot, benchmark, workers=1)
        run = parse(["--dataroot", str(dataroot), "--model", case.model, "--load_size", str(case.size)])
        start = time.perf_counter()
        cache = SliceCache(dataroot, Path(folder) / CACHE_NAME)
        dataset = DATASETS[MODELS[case.model].Options.dataset_mode](cache, run.data)
        cold = time.perf_counter() - start
        epochs: list[float] = []
        while len(epochs) < 2 or sum(epochs) < case.seconds:
            start = time.perf_counter()
            batches = dataset.batches("gan", SHUFFLED, len(epochs), case.batch)
            pairs = sum(map(len, load(dataset, batches, workers=0, device=device)))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            epochs.append(time.perf_counter() - start)
    return {
        "case": "load",
        "size": case.size,
        "batch": case.batch,
        "device": device.type,
        "slices_per_s_cold": sum(map(len, dataset.folders)) / cold,
        "slices_per_s_warm": 2 * pairs / statistics.median(epochs[1:]),
        "peak_mb": peak_mb(choose_device("-1")),
    }


def preprocess_case(case: Case) -> Result:
    """Slice one simulated volume of 256 x 256 pixels into 16-bit slices and masks, in one process."""
    scan = simulate_scan(find_preset("same-contrast"), 0, 3, "A", matrix=PREPROCESS_MATRIX, with_truth=False)
    volume = np.concatenate([scan.image] * 4, axis=2)  # about a hundred slices, as in isotropic volumes
    size = (volume.shape[0], volume.shape[1], volume.shape[2])
    geometry = SourceGeometry(size, scan.affine, scan.affine, scan.affine, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        entry = write_volume(
            Path(folder), split="train", domain="A", subject="volume", source="simulated", volume=volume,
            affine_ras=scan.affine, geometry=geometry, slice_axis=2, bits=16,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    return {
        "case": "preprocess",
        "size": PREPROCESS_MATRIX,
        "slices_per_s": len(entry.slices) / seconds,
        "peak_mb": peak_mb(choose_device("-1")),
    }


def simulate_case(case: Case) -> Result:
    """Simulate one subject in slices of 1 mm: both fields and the truth, one after the other, on one thread."""
    torch.set_num_threads(1)
    thick = find_preset("same-contrast")
    low, high = (with_acquisition(scan, thickness_mm=THICKNESS_MM) for scan in (thick.low, thick.high))
    preset = Preset(thick.name, low, high)
    slices: list[int] = []
    times: list[float] = []
    while len(times) < 2 or sum(times) < case.seconds:  # the first subject also loads the anatomy and is not counted
        start = time.perf_counter()
        scans = [simulate_scan(preset, 0, len(times), ab, matrix=case.size, with_truth=ab == "A") for ab in "AB"]
        times.append(time.perf_counter() - start)
        slices.append(sum(scan.image.shape[2] for scan in scans))
    return {
        "case": "simulate",
        "size": case.size,
        "slices": statistics.median(slices[1:]),
        "s_per_subject": statistics.median(times[1:]),
        "peak_mb": peak_mb(choose_device("-1")),
    }
