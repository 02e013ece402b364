"""Time and memory before a run's first step, by the size of its data: folders of empty files and a cache of zeros."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.case import Case
from data.batch import SHUFFLED
from data.cache.pack import ALIGNED, problem_columns
from data.cache.place import CACHE_NAME
from data.cache.slice_cache import SliceCache
from data.cache.store import DATA_NAME
from data.cache.subject_columns import subject_columns
from data.folder.manifest import DOMAINS, FORMAT, MANIFEST_NAME, SliceEntry, VolumeEntry
from data.folder.slices import slice_name
from data.folder.subjects import SubjectTable
from options.train_options import parse
from training.data import open_data
from training.loader import load_one
from training.run_folder import fingerprint
from util.device import choose_device

ROOT = Path(__file__).resolve().parents[2]  # where Python finds this module
PER_VOLUME = 150  # slices
SIDE = 256  # pixels
RECORD = SIDE * SIDE * 2 + SIDE * SIDE // 8  # bytes of a 16-bit slice and its mask
BATCH = 16
NAME = "run"

Result = dict[str, Any]


def start_case(case: Case) -> Result:
    """Start with a valid cache, in a fresh process: seconds and MB beyond the imports, and the sampling of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        made = make_data(Path(folder), case.slices)
        command = [sys.executable, "-m", __name__, str(made), folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
    return {"case": "start", "slices": case.slices, **json.loads(done.stdout)}


def make_data(root: Path, slices: int) -> Path:
    """Make a data folder of `slices` empty files with masks, its manifest, and a valid cache beside it."""
    dataroot, each = root / "data", slices // len(DOMAINS)
    for domain in DOMAINS:
        for kind in ("", "_mask"):
            folder = dataroot / f"train{domain}{kind}"
            folder.mkdir(parents=True)
            for i in range(each):
                os.close(os.open(folder / _name(domain, i), os.O_CREAT | os.O_WRONLY))
    make_manifest(dataroot, each)
    cache = SliceCache(dataroot, root / CACHE_NAME)
    for domain in DOMAINS:
        with cache.building("train", domain) as write:
            names = [_name(domain, i) for i in range(each)]
            subjects = SubjectTable.of(names, [name.rpartition("_")[0] for name in names])
            with (write.part / DATA_NAME).open("wb") as data:
                data.truncate(each * RECORD)  # sparse: zeros that take no disk space
            write(
                {**subject_columns(subjects), **_columns(each), **problem_columns([], dataroot)},
                digest=domain,
                has_manifest=True,
            )
    return dataroot


def make_manifest(dataroot: Path, each: int) -> None:
    """Write the manifest for `each` slices per domain."""
    volumes = [(domain, number) for domain in DOMAINS for number in range(-(-each // PER_VOLUME))]
    with (dataroot / MANIFEST_NAME).open("w", encoding="ascii") as file:
        file.write(f'{{"format": {FORMAT}, "origin": "simulated", "volumes": [\n')
        for i, (domain, number) in enumerate(volumes):
            file.write((",\n" if i else "") + json.dumps(msgspec.to_builtins(_volume(domain, number, each)), indent=1))
        file.write("]}\n")


def _name(domain: str, i: int) -> str:
    return slice_name(f"sub-{domain}{i // PER_VOLUME:05d}", i % PER_VOLUME)


def _volume(domain: str, number: int, each: int) -> VolumeEntry:
    """The manifest entry of one volume, as preprocessing writes it."""
    here = range(number * PER_VOLUME, min((number + 1) * PER_VOLUME, each))
    slices = [SliceEntry(k, _name(domain, i), (k + 0.5) / len(here), 1.1 * k - 60) for k, i in enumerate(here)]
    subject, affine = f"sub-{domain}{number:05d}", np.eye(4).tolist()
    return VolumeEntry(
        subject,
        "train",
        domain,
        f"{subject}.nii.gz",
        [SIDE, SIDE, PER_VOLUME],
        affine,
        [1.0] * 3,
        2,
        [0.0, 1.0],
        slices,
    )


def _columns(count: int) -> dict[str, NDArray]:
    number = np.arange(count, dtype=np.int64)
    index = number % PER_VOLUME
    length = np.minimum(PER_VOLUME, count - (number - index))  # slices in the volume; the last one may have fewer
    side = np.full(count, SIDE, dtype=np.uint16)
    return {
        "offset": number * (RECORD + -RECORD % ALIGNED),
        "height": side,
        "width": side,
        "kind": np.ones(count, dtype=np.uint8),
        "index": index,
        "p": ((index + 0.5) / length).astype(np.float32),
        "level_mm": (1.1 * index - 60).astype(np.float32),
    }


def memory_mb() -> float:
    """Peak resident memory of this process so far, in MB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(dataroot: str, checkpoints_dir: str) -> Result:
    """Measure everything that train.py does before its first step and that could grow with the data."""
    run = parse([f"--dataroot={dataroot}", f"--checkpoints_dir={checkpoints_dir}", f"--name={NAME}"])
    before, began = memory_mb(), time.perf_counter()
    dataset, _, _ = open_data(run)
    dataset.image_size()
    fingerprint(dataset)
    opened = time.perf_counter()
    batches = dataset.batches("gan", SHUFFLED, 0, BATCH)
    sampled = time.perf_counter()
    load_one(dataset, batches[0], choose_device("-1"))
    return {
        "start_s": time.perf_counter() - began,
        "start_mb": memory_mb() - before,
        "open_s": opened - began,
        "sampling_s": sampled - opened,
    }


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
