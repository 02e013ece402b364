"""Fuzz all file readers: each damaged file must be read, or refused with a UserError.

python scripts/fuzz.py --cases 100000 --seed 0 --workers 2 --keep FOUND

A case fails if it raises any other exception, takes more than SECONDS or more than MEMORY above the initial memory,
ends the process, or leaves a file. Failing files are saved in --keep under a name that gives the outcome. Equal seeds
give equal cases with any number of workers.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import FrameType

import msgspec
import nibabel
import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from util.runs import OPTIONS_NAME

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.folder.manifest import MANIFEST_NAME, Manifest, SliceEntry, VolumeEntry, read_manifest, write_manifest
from data.folder.slices import read_image, read_mask
from models import MODELS
from models.trained import load_trained
from models.weights import load_weights
from preprocessing.nifti import read_nifti
from scripts.mutations import AWARE, mutate
from util.checkpoint import checkpoint_path, write_checkpoint
from util.errors import UserError

SECONDS = 5
HANGING = 6  # multiple of SECONDS without progress after which a process is killed
MEMORY = 2**30
SIZE = (32, 32)
PASSED = ("read", "refused")
TINY = {"sgp_input": 32, "sgp_patch": 8, "sgp_width": 16, "sgp_depth": 1, "sgp_heads": 2, "sgp_embedding": 8}


class TooSlow(BaseException):
    """Raised by the alarm; no handler of errors catches it."""


@cache
def seeds(kind: str) -> tuple[bytes, ...]:
    """Valid files of a kind."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        return tuple(_SEEDS[kind](Path(folder), rng))


def _png(folder: Path, rng: np.random.Generator) -> list[bytes]:
    pixels = rng.integers(0, 255, (16, 12))
    pictures = [
        *(Image.fromarray(pixels.astype(dtype)) for dtype in (np.uint8, np.uint16)),
        *(Image.fromarray(pixels.astype(np.uint8)).convert(mode) for mode in ("RGB", "P", "LA", "1")),
    ]
    files = [io.BytesIO() for _ in pictures]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file, format="PNG")
    return [file.getvalue() for file in files]


def _npy(folder: Path, rng: np.random.Generator) -> list[bytes]:
    np.save(folder / "a.npy", rng.random((16, 12), dtype=np.float32))
    return [(folder / "a.npy").read_bytes()]


def _nifti(folder: Path, rng: np.random.Generator) -> list[bytes]:
    volume = (rng.random((12, 10, 8)) * 100).astype(np.int16)
    header = nibabel.Nifti1Header(endianness=">")
    images = [
        nibabel.Nifti1Image(volume, np.diag([2, 2, 5, 1])),
        nibabel.Nifti1Image(volume.astype(np.float32), np.diag([2, 2, 5, 1]), header),
        nibabel.Nifti2Image(volume.astype(np.float64), np.eye(4)),
    ]
    for suffix in ("nii", "nii.gz"):
        nibabel.save(images[0], folder / f"a.{suffix}")
    return [*((folder / f"a.{suffix}").read_bytes() for suffix in ("nii", "nii.gz")), *(i.to_bytes() for i in images)]


def _manifest(folder: Path, rng: np.random.Generator) -> list[bytes]:
    affine = np.eye(4).tolist()
    slices = [SliceEntry(index, f"s_{index:03d}.png", index / 8, None) for index in range(1, 7)]
    shape, sides, window = [12, 10, 8], [1.0, 1.0, 1.0], [0.0, 1.0]
    entry = VolumeEntry("s", "test", "A", "s.nii", shape, affine, sides, 2, window, slices, affine, None, 1, 0)
    write_manifest(folder, Manifest("nifti", [entry, msgspec.structs.replace(entry, domain="B")], {"bits": 16}))
    return [(folder / MANIFEST_NAME).read_bytes()]


def _run_options() -> dict[str, object]:
    known = {"model": "sgp", "direction": "AtoB", "preprocess": "resize", "load_size": 32, "seed": 0}
    return {**dataclasses.asdict(MODELS["sgp"].Options(**TINY)), **known, "image_size": list(SIZE)}


def _options(folder: Path, rng: np.random.Generator) -> list[bytes]:
    return [json.dumps(_run_options()).encode()]


def _checkpoint(folder: Path, rng: np.random.Generator) -> list[bytes]:
    model = MODELS["sgp"](MODELS["sgp"].Options(**TINY), SIZE)
    content = {"model": model.state_dict(), "epoch": 1, "step": 3, "training": {"rng": [1, 2.5, "x", None, True]}}
    path = checkpoint_path(folder, "latest")
    write_checkpoint(path, content)
    return [path.read_bytes()]


def _safetensors(folder: Path, rng: np.random.Generator) -> list[bytes]:
    return [safetensors.torch.save(nn.Linear(4, 3).state_dict(), {"format": "pt"})]


_SEEDS: dict[str, Callable[[Path, np.random.Generator], list[bytes]]] = {
    "png": _png,
    "npy": _npy,
    "nifti": _nifti,
    "manifest": _manifest,
    "options": _options,
    "checkpoint": _checkpoint,
    "safetensors": _safetensors,
}


def place(kind: str, folder: Path, content: bytes) -> None:
    """Write a file where its reader expects it, with the other files that the reader needs."""
    name = {"png": "a.png", "npy": "a.npy", "nifti": "a.nii", "safetensors": "a.safetensors"}
    name |= {"manifest": MANIFEST_NAME, "options": OPTIONS_NAME, "checkpoint": "latest.pt"}
    if kind in ("options", "checkpoint"):
        checkpoint_path(folder, "latest").write_bytes(seeds("checkpoint")[0])
        (folder / OPTIONS_NAME).write_bytes(seeds("options")[0])
    (folder / name[kind]).write_bytes(content)


def read(kind: str, folder: Path) -> None:
    """Read the file of `place` as the programs do. Raises UserError, or any exception due to a bug."""
    if kind in ("png", "npy"):
        read_image(folder / f"a.{kind}")
        read_mask(folder / f"a.{kind}")
    elif kind == "nifti":
        read_nifti(folder / "a.nii")
    elif kind == "manifest":
        read_manifest(folder)
    elif kind == "safetensors":
        load_weights(nn.Linear(4, 3), str(folder / "a.safetensors"), "SGP")
    else:
        load_trained(folder)


def make_case(seed: int, index: int) -> tuple[str, bytes]:
    """Kind and content of one case; a few are undamaged, to detect a reader that refuses everything."""
    rng = random.Random(f"{seed}:{index}")
    kind = list(AWARE)[index % len(AWARE)]
    content = rng.choice(seeds(kind))
    return kind, content if rng.random() < 0.01 else mutate(kind, content, rng)


def outcome(kind: str, folder: Path, content: bytes) -> str:
    """The outcome of one file in an empty folder: `read`, `refused` or a failure; the folder is emptied again."""
    place(kind, folder, content)
    before, result = set(folder.iterdir()), "read"
    memory = reset_peak()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            read(kind, folder)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # in an inner try, as the alarm may ring just before
    except UserError as error:
        result = "refused"
        if "\n" in str(error) or len(str(error)) > 2000:
            result = "long message"
    except TooSlow:
        result = "too slow"
    except BaseException as error:
        result = f"{type(error).__name__}"
    if peak_memory() - memory > MEMORY:
        result = "out of memory"
    if set(folder.iterdir()) != before:
        result = "wrote files"
    for path in folder.iterdir():
        path.unlink()
    return result


def reset_peak() -> int:
    """Reset `peak_memory` and return the current memory of this process in bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_memory()


def peak_memory() -> int:
    """Peak memory of this process in bytes since `reset_peak`, without failed allocations."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def guard() -> None:
    """Install the alarm that limits a case's time, and limit the memory of this process."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, ring)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + 6 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def work(seed: int, cases: Sequence[int], at: Synchronized, results: SimpleQueue, keep: Path) -> None:
    """One worker: run its `cases` from position `at` on and send (kind, outcome) of each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    for kind in AWARE:
        seeds(kind)
    guard()
    with tempfile.TemporaryDirectory() as folder:
        while at.value < len(cases):
            kind, content = make_case(seed, cases[at.value])
            result = outcome(kind, Path(folder), content)
            results.put((kind, result))
            if result not in PASSED:
                (keep / f"{kind}-{seed}-{cases[at.value]}-{result.replace(' ', '_')}").write_bytes(content)
            at.value += 1


def run(seed: int, n_cases: int, workers: int, keep: Path) -> Counter[tuple[str, str]]:
    """Count outcomes by kind. A process that dies is an outcome too; a new one continues with the next case."""
    context = multiprocessing.get_context("fork")
    results, total = context.SimpleQueue(), Counter[tuple[str, str]]()
    parts = [range(worker, n_cases, workers) for worker in range(workers)]
    positions = [context.Value("q", 0) for _ in parts]

    def start(worker: int) -> multiprocessing.process.BaseProcess:
        arguments = (seed, parts[worker], positions[worker], results, keep)
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        return process

    running = {worker: start(worker) for worker in range(workers)}
    moved = dict.fromkeys(running, (-1, 0.0))  # last position of each, and its time
    while running or not results.empty():
        while not results.empty():
            total[results.get()] += 1
        for worker, process in list(running.items()):
            process.join(0.05)
            if positions[worker].value != moved[worker][0]:
                moved[worker] = positions[worker].value, time.monotonic()
            elif time.monotonic() - moved[worker][1] > HANGING * SECONDS:
                process.kill()  # an alarm does not interrupt C code
                process.join()
            if process.is_alive():
                continue
            del running[worker]
            if process.exitcode:
                index = parts[worker][positions[worker].value]
                kind, content = make_case(seed, index)
                total[kind, "process died"] += 1
                (keep / f"{kind}-{seed}-{index}-process_died").write_bytes(content)
                positions[worker].value += 1
                running[worker] = start(worker)
    return total


def main(argv: Sequence[str]) -> int:
    """Run the cases and print the outcomes; status 1 if any failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("fuzz_found"))
    options = parser.parse_args(argv)
    options.keep.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    total = run(options.seed, options.cases, options.workers, options.keep)
    seconds, done = time.monotonic() - begin, sum(total.values())
    failed = sum(n for (_, result), n in total.items() if result not in PASSED)
    for (kind, result), n in sorted(total.items()):
        print(f"{kind:12s} {result:20s} {n:8d}")
    print(f"{done} cases in {seconds:.0f} s, {done / seconds:.0f} a second, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
