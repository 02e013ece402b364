"""Checkpoints and weights that would run code: every loader refuses them, and nothing of them happens."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import train_arguments, write_phantom
from payloads import CALLS, PLACES, WRITERS, Call, Nested, set_trap, traces, write_zip
from torch import nn

import train
from evaluation.encoder import load_encoder
from evaluation.metrics.inception import FIDInception
from models.trained import load_trained
from models.weights import load_weights
from util.checkpoint import FORMAT, read_checkpoint, write_checkpoint
from util.errors import UserError

pytestmark = pytest.mark.filterwarnings(  # torch, about files that are then refused
    "ignore:Detected pickle protocol", "ignore:'torch.load' received a zip", "ignore:.torch.jit"
)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return set_trap(tmp_path)


def loaders(path: Path) -> dict[str, Callable[[], Any]]:
    """Everything of ours that opens a file of weights."""
    return {
        "read_checkpoint": lambda: read_checkpoint(path),
        "load_weights": lambda: load_weights(nn.Linear(2, 2), str(path), "SGP"),
        "FIDInception": lambda: FIDInception.from_file(path),
    }


def test_there_are_as_many_as_documented() -> None:
    text = " ".join((Path(__file__).parents[1] / "SECURITY.md").read_text(encoding="utf-8").split())
    assert len(CALLS) >= 30 and (len(WRITERS), len(PLACES)) == (6, 4)
    assert f"{len(CALLS)} calls, from `os.system` to `torch.hub`, in six containers and four places each" in text


@pytest.mark.parametrize("name", CALLS)
def test_the_payload_does_harm_where_nobody_is_careful(name: str, canary: Path) -> None:
    """The control: plain pickle runs every one of them."""
    made = pickle.loads(pickle.dumps(CALLS[name](canary)))
    for close in ("wait", "close"):  # processes and files that were opened
        if callable(getattr(made, close, None)):
            getattr(made, close)()
    assert traces(canary), name


@pytest.mark.parametrize("name", CALLS)
def test_every_loader_refuses_it_without_side_effect(name: str, canary: Path, tmp_path: Path) -> None:
    for write in WRITERS:
        for place in PLACES:
            path = tmp_path / f"{write.__name__}_{place.__name__}.pt"
            write(place(CALLS[name](canary)), path)
            for loader, load in loaders(path).items():
                with pytest.raises(UserError) as caught:
                    load()
                assert str(path) in str(caught.value), loader
                assert not traces(canary), (write, place, loader)


def test_code_called_by_its_name_in_any_protocol_is_refused(canary: Path, tmp_path: Path) -> None:
    """Opcodes written by hand, for what `pickle.dumps` would not write."""
    command = f"touch {canary}".encode()
    streams = {
        "GLOBAL": b"cposix\nsystem\n(S'" + command + b"'\ntR.",
        "INST": b"(S'" + command + b"'\niposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\nS'" + command + b"'\no.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(command)]) + command + b"\x85R.",
        "NEWOBJ": b"\x80\x02cposix\nsystem\nU" + bytes([len(command)]) + command + b"\x85\x81.",
        "BUILD": b"ccollections\nOrderedDict\n)R(S'__setstate__'\ncposix\nsystem\ndb.",
        "EXT1": b"\x80\x02\x82\x01.",
        "PERSID": b"P" + command + b"\n.",
        "memo bomb": b"(" + b"I1\n" + b"2" * 64 + b"t.",
        "nested tuples": b")" + b"\x85" * 100_000 + b".",
        "long of a gigabyte": b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"\xff.",
        "string of a terabyte": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    }
    for name, stream in streams.items():
        raw, inside = tmp_path / f"{name}.pt", tmp_path / f"{name}.zip.pt"
        raw.write_bytes(stream)
        with zipfile.ZipFile(inside, "w") as archive:
            archive.writestr("archive/data.pkl", stream)
            archive.writestr("archive/version", "3")
        for path in (raw, inside):
            for load in loaders(path).values():
                with pytest.raises(UserError):
                    load()
                assert not traces(canary), name


def _laughs() -> Any:
    """Ten thousand million zeros in a few hundred bytes."""
    many: Any = [0] * 10
    for _ in range(9):
        many = [many] * 10
    return many


def write_compressed(payload: Any, path: Path) -> None:
    """An archive as torch writes it, but compressed."""
    plain = io.BytesIO()
    torch.save(payload, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))


UNFOLD: dict[str, tuple[Callable[[Any, Path], None], Callable[[], Any], str]] = {
    "lists of lists": (write_zip, _laughs, "TooLarge"),
    "one number, 2^28 times": (write_zip, lambda: torch.zeros(1).expand(2**28), "TooLarge"),
    "one tensor, many times": (write_zip, lambda: [torch.zeros(2**16)] * 10_000, "TooLarge"),
    "compressed zeros": (write_compressed, lambda: torch.zeros(2**25), "BadZipFile"),
}


@pytest.mark.parametrize("case", UNFOLD)
def test_small_checkpoints_that_unfold_are_refused_at_once(case: str, tmp_path: Path) -> None:
    write, payload, reason = UNFOLD[case]
    path = tmp_path / "small.pt"
    write({"format": FORMAT, "sha256": "0" * 64, "model": payload()}, path)
    assert path.stat().st_size < 2**20
    started = time.process_time()
    with pytest.raises(UserError, match=reason):
        read_checkpoint(path)
    for load in loaders(path).values():
        with pytest.raises(UserError):
            load()
    assert time.process_time() - started < 20  # of the processor, however busy the machine is


def _lying_safetensors() -> dict[str, bytes]:
    def header(content: object, size: int | None = None) -> bytes:
        text = json.dumps(content).encode()
        return struct.pack("<Q", len(text) if size is None else size) + text

    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "empty": b"",
        "header of exabytes": header({"weight": tensor}, 2**63),
        "header beyond the file": header({"weight": tensor}, 10_000),
        "no JSON": struct.pack("<Q", 8) + b"notjson!",
        "terabytes": header({"weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        "offsets beyond the file": header({"weight": {**tensor, "data_offsets": [0, 2**40]}}) + bytes(8),
        "offsets that overlap": header({"weight": tensor, "bias": {**tensor, "data_offsets": [4, 12]}}) + bytes(12),
        "shape that overflows": header({"weight": {**tensor, "shape": [2**33, 2**33]}}) + bytes(8),
        "negative shape": header({"weight": {**tensor, "shape": [-2]}}) + bytes(8),
        "unknown type": header({"weight": {**tensor, "dtype": "CODE"}}) + bytes(8),
        "pickle": pickle.dumps(Call(os.system, "true")),
        "other tensors": header({"gain": tensor}) + bytes(8),
    }


@pytest.mark.parametrize("case", _lying_safetensors())
def test_lying_safetensors_are_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(_lying_safetensors()[case])
    with pytest.raises(UserError, match=r"net\.safetensors"):
        load_weights(nn.Linear(2, 2), str(path), "SGP")


def test_torchscript_archives_and_object_arrays_are_refused(canary: Path, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    shutil.copy(canary.parent / "objects.npy", tmp_path / "objects.pt")
    np.savez(tmp_path / "objects.npz", weight=np.array([Call(os.mkdir, str(canary))], dtype=object))
    for name in ("script.pt", "objects.pt", "objects.npz"):
        for load in loaders(tmp_path / name).values():
            with pytest.raises(UserError, match=name):
                load()
    assert not traces(canary)


# a whole run folder ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    train.main(train_arguments(write_phantom(place / "data"), place, "sgp", "--name=run"))
    return place / "run"


def test_a_run_folder_with_hostile_checkpoints_is_refused(trained: Path, canary: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    tested = load_trained(trained)
    for path in run.glob("*.pt"):
        torch.save(Nested.beside(CALLS["os.system"](canary)), path)
    with pytest.raises(UserError, match=r"latest\.pt"):
        load_trained(run)
    with pytest.raises(UserError, match=r"--eval_encoder .*latest\.pt"):
        load_encoder(run, tested, torch.device("cpu"))
    assert not traces(canary)


BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "code for a model": {"model": "os.system"},
    "code for a model, nested": {"model": {"__reduce__": ["os.system", "true"]}},
    "a list for a model": {"model": ["sgp"]},
    "code for a network": {"model": "cycle_gan", "netG": "os.system"},
    "code for a direction": {"direction": "__import__('os').system('true')"},
    "huge size": {"image_size": [10**9, 10**9]},
    "size of a million digits": {"image_size": [10**4000, 32]},
    "negative size": {"image_size": [-32, 32]},
    "text for a size": {"image_size": "32"},
    "no size": {"image_size": None},
    "huge network": {"sgp_width": 10**9},
    "deep network": {"sgp_depth": 10**9},
    "text for a number": {"sgp_width": "32"},
    "a number's list": {"sgp_width": [32]},
    "NaN": {"sgp_width": float("nan")},
    "a truth for a number": {"sgp_heads": True},
    "null": {"sgp_input": None},
    "text for a seed": {"seed": "os.system"},
    "text for load_size": {"load_size": "../../x"},
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options_that_name_code_or_lie_are_refused(trained: Path, tmp_path: Path, case: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    options = json.loads((run / "options.json").read_text())
    (run / "options.json").write_text(json.dumps({**options, **BAD_OPTIONS[case]}))
    with pytest.raises(UserError) as caught:
        load_trained(run)
    assert len(str(caught.value)) < 1200


def test_a_good_checkpoint_is_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "good.pt", {"model": {"weight": torch.ones(2)}})
    assert torch.equal(read_checkpoint(tmp_path / "good.pt")["model"]["weight"], torch.ones(2))
