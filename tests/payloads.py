"""What would do harm if it were unpickled, in every container and place that a loader may meet it in."""

from __future__ import annotations

import builtins
import codecs
import functools
import importlib
import io
import logging
import operator
import os
import pathlib
import pickle
import runpy
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import timeit
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.collect_env

from util.checkpoint import FORMAT


class Call:
    """Unpickled without care, this calls `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def touch_code(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


def _saved(payload: Any) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


# every one of these would leave the file `canary` behind, or a file in its folder
CALLS: dict[str, Callable[[Path], Call]] = {
    "os.system": lambda c: Call(os.system, f"touch {c}"),
    "os.popen": lambda c: Call(os.popen, f"touch {c}"),
    "os.mkdir": lambda c: Call(os.mkdir, str(c)),
    "os.symlink": lambda c: Call(os.symlink, "/", str(c)),
    "os.open": lambda c: Call(os.open, str(c), os.O_CREAT | os.O_WRONLY),
    "os.mkfifo": lambda c: Call(os.mkfifo, str(c)),
    "os.spawnlp": lambda c: Call(os.spawnlp, os.P_WAIT, "touch", "touch", str(c)),
    "subprocess.Popen": lambda c: Call(subprocess.Popen, ["touch", str(c)]),
    "subprocess.run": lambda c: Call(subprocess.run, ["touch", str(c)]),
    "subprocess.check_output": lambda c: Call(subprocess.check_output, ["touch", str(c)]),
    "subprocess.getoutput": lambda c: Call(subprocess.getoutput, f"touch {c}"),
    "builtins.eval": lambda c: Call(builtins.eval, touch_code(c)),
    "builtins.exec": lambda c: Call(builtins.exec, touch_code(c)),
    "builtins.open": lambda c: Call(builtins.open, str(c), "w"),
    "builtins.map of os.system": lambda c: Call(list, Call(map, os.system, [f"touch {c}"])),
    "builtins.getattr": lambda c: Call(
        operator.call, Call(getattr, Call(importlib.import_module, "os"), "mkdir"), str(c)
    ),
    "functools.partial": lambda c: Call(operator.call, functools.partial(os.mkdir, str(c))),
    "functools.reduce": lambda c: Call(functools.reduce, os.mkdir, [str(c), 0o700]),
    "operator.methodcaller": lambda c: Call(operator.call, operator.methodcaller("touch"), c),
    "pathlib.Path.touch": lambda c: Call(pathlib.Path.touch, c),
    "shutil.copy": lambda c: Call(shutil.copy, "/etc/hostname", str(c)),
    "tempfile.mkstemp": lambda c: Call(tempfile.mkstemp, "", c.name, str(c.parent)),
    "timeit.timeit": lambda c: Call(timeit.timeit, touch_code(c), "pass", timeit.default_timer, 1),
    "runpy": lambda c: Call(runpy.run_path, str(c.parent / "innocent.py")),
    "sqlite3.connect": lambda c: Call(sqlite3.connect, str(c)),
    "zipfile.ZipFile": lambda c: Call(zipfile.ZipFile, str(c), "w"),
    "tarfile.open": lambda c: Call(tarfile.open, str(c), "w"),
    "logging.FileHandler": lambda c: Call(logging.FileHandler, str(c)),
    "codecs.open": lambda c: Call(codecs.open, str(c), "w"),
    "pickle.loads": lambda c: Call(pickle.loads, pickle.dumps(Call(os.mkdir, str(c)))),
    "numpy.save": lambda c: Call(np.save, str(c), 0),
    "numpy.memmap": lambda c: Call(np.memmap, str(c), "u1", "w+", 0, (1,)),
    "numpy.load": lambda c: Call(np.load, str(c.parent / "objects.npy"), None, True),
    "torch.save": lambda c: Call(torch.save, 0, str(c)),
    "torch.storage._load_from_bytes": lambda c: Call(torch.storage._load_from_bytes, _saved(Call(os.mkdir, str(c)))),
    "torch.hub.load": lambda c: Call(torch.hub._load_local, str(c.parent), "hubbed"),
    "torch.utils.collect_env.run": lambda c: Call(torch.utils.collect_env.run, f"touch {c}"),
    "torch.from_file": lambda c: Call(torch.from_file, str(c), True, 16),
}


def write_raw(payload: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(payload))


def write_oldest(payload: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(payload, protocol=0))


def write_zip(payload: Any, path: Path) -> None:
    torch.save(payload, path)


def write_legacy(payload: Any, path: Path) -> None:
    torch.save(payload, path, _use_new_zipfile_serialization=False)


def write_tar(payload: Any, path: Path) -> None:
    """As torch before 0.1.10 wrote it."""
    with tarfile.open(path, "w") as tar:
        for name, content in (("sys_info", {}), ("pickle", payload), ("tensors", 0), ("storages", 0)):
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_zip_with_other_names(payload: Any, path: Path) -> None:
    """The code stands in another member, and twice in the right one."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("archive/constants.pkl", "archive/data.pkl", "other/data.pkl"):
            archive.writestr(name, pickle.dumps(payload, protocol=2))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")


WRITERS = (write_raw, write_oldest, write_zip, write_legacy, write_tar, write_zip_with_other_names)


class Nested:
    """Places in an otherwise good checkpoint where code may hide."""

    @staticmethod
    def bare(payload: Any) -> Any:
        return payload

    @staticmethod
    def beside(payload: Any) -> Any:
        return {"format": FORMAT, "sha256": "0" * 64, "model": {"weight": torch.zeros(2)}, "note": payload}

    @staticmethod
    def deep(payload: Any) -> Any:
        return {"format": FORMAT, "model": OrderedDict(a=[{"b": (torch.zeros(1), [payload])}])}

    @staticmethod
    def as_weight(payload: Any) -> Any:
        return OrderedDict(weight=payload, bias=torch.zeros(2))


PLACES = (Nested.bare, Nested.beside, Nested.deep, Nested.as_weight)


def set_trap(place: Path) -> Path:
    """A folder with what such code may want to find; the path returned is the file that only it would make."""
    folder = place / "trap"
    folder.mkdir()
    path = folder / "canary"
    (folder / "innocent.py").write_text(touch_code(path))
    (folder / "hubconf.py").write_text(f"{touch_code(path)}\ndef hubbed(): pass\n")
    np.save(folder / "objects.npy", np.array([Call(os.mkdir, str(path))], dtype=object), allow_pickle=True)
    return path


def traces(canary: Path) -> set[str]:
    return {path.name for path in canary.parent.iterdir()} - {"innocent.py", "hubconf.py", "objects.npy", "__pycache__"}
