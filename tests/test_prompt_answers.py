"""`--help` and wrong command lines are answered before torch and its like are imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models import MODELS

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "torchvision", "scipy", "skimage", "nibabel", "matplotlib")

# runs a program as a shell does, with each of several command lines; prints (status, heavy modules) after each
PROBE = """
import contextlib, io, json, runpy, sys
program, heavy, lines = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
for line in lines:
    sys.argv = [program, *line]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        runpy.run_path(program, run_name="__main__")
    print(json.dumps([said.getvalue(), [name for name in heavy if name in sys.modules]]))
"""

HELP, TYPO = ["--help"], ["--batchsize=4"]
LINES = {
    "train.py": [
        *(["--model", name, "--help"] for name in MODELS),
        TYPO,
        [],
        ["--version"],
        ["--dataroot=D", "--model=sgpp"],
        ["--dataroot=D", "--n_epochs=-1"],
        ["--dataroot=D", "--ngf=8"],
        ["--dataroot=D", "--name=a/b"],
    ],
    "test.py": [HELP, TYPO, [], ["--dataroot=D", "--phase=tset"], ["--dataroot=D", "--epoch=first"]],
    "preprocessing_images.py": [
        HELP,
        TYPO,
        [],
        ["--out=D", "--simulate=ultra"],
        ["--out=D", "--simulate", "--faults=fire"],
        ["--out=D", "--input_A=A", "--window_low=99.9"],
    ],
    "scripts/benchmark_speed.py": [HELP, TYPO, ["--cases=cooking"], ["--model=sgpp"]],
}


@pytest.mark.parametrize("program", LINES)
def test_an_answer_needs_no_torch(program: str) -> None:
    """`sys.modules` tells it on any machine, however busy; seconds would not."""
    command = [sys.executable, "-c", PROBE, program, json.dumps(HEAVY), json.dumps(LINES[program])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    answers = [json.loads(answer) for answer in done.stdout.splitlines()]
    assert len(answers) == len(LINES[program])
    for line, (said, imported) in zip(LINES[program], answers, strict=True):
        told = "usage: " if "--help" in line else "Python 3" if "--version" in line else "error: "
        assert told in said and imported == [], (line, said)
