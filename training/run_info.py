"""`run.json`: the command, seed, data, device and software versions of a run."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from util.errors import UserError
from util.files import replace_text
from util.reading import read_json
from util.runs import RUN_INFO_NAME

LOW_FIELD = "low_field"  # the entry with the numbers that stand for `auto`


def device_name(device: torch.device) -> str:
    """Product name of a CUDA device, else the type of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()


def git_commit(folder: Path) -> str | None:
    """The commit checked out in `folder`, read from `.git` without calling git; None if there is none."""
    git = folder / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        loose = git / name
        if loose.exists():
            return loose.read_text(encoding="utf-8").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^([0-9a-f]+) {re.escape(name)}$", packed, re.MULTILINE)
    return found.group(1) if found else None


def _earlier(path: Path) -> dict[str, Any]:
    """The content of an existing run.json; empty if it cannot be read, because a run can continue without it."""
    try:
        content = read_json(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("resumed", []), list) else {}


def write_run_info(
    run_dir: Path,
    *,
    seed: int,
    command: Sequence[str],
    data_fingerprint: str,
    device: torch.device,
    resumed: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `run.json` and return its content. A resume keeps the entries of the first start and adds to `resumed`.

    Numbers that stand for `--lf_* auto` are kept of every start: a stage that is added later may need more of them.

    Args:
        command: the command line, program first.
        data_fingerprint: identifies the data.
        extra: further entries, JSON values only.
    Raises: OSError.
    """
    start: dict[str, Any] = {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": list(command),
        "seed": seed,
        "data_fingerprint": data_fingerprint,
        "device": f"{device.type}: {device_name(device)}",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "git_commit": git_commit(Path(__file__).resolve().parent.parent),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": version("torchvision"),
            "numpy": np.__version__,
            "cuda": torch.version.cuda if device.type == "cuda" else None,
        },
        **(extra or {}),
    }
    path = run_dir / RUN_INFO_NAME
    first = _earlier(path) if resumed else {}
    if first:
        numbers: dict[str, Any] = {}
        for entry in (first, start):
            numbers |= entry[LOW_FIELD] if isinstance(entry.get(LOW_FIELD), dict) else {}
        kept = {LOW_FIELD: numbers} if numbers else {}
        start = first | kept | {"resumed": [*first.get("resumed", []), start]}
    with replace_text(path) as file:
        json.dump(start, file, indent=1)
        file.write("\n")
    return start
