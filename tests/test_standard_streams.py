"""What a program prints is never worth its work: no stream that cannot be written, and no Ctrl-C, gives a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FULL = Path("/dev/full")

PROGRAM = """
import sys
from rich.console import Console
from util.errors import UserError, run_cli, warn

def main(argv):
    for line in range(5000):
        print("line", line)
    Console().print("bar")
    warn("careful")
    if argv == ["mistake"]:
        raise UserError("a mistake")
    if argv == ["interrupt"]:
        raise KeyboardInterrupt
    return 7

run_cli(main, "program")
"""


def run(*argv: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run([sys.executable, "-c", PROGRAM, *argv], cwd=ROOT, text=True, check=False, **streams)


def test_text_comes_through() -> None:
    done = run()
    assert done.returncode == 7
    assert done.stdout.splitlines() == [*(f"line {n}" for n in range(5000)), "bar"]
    assert done.stderr == "-c: warning: careful\n"
    done = run("mistake")
    assert (done.returncode, done.stderr) == (2, "-c: warning: careful\nprogram: error: a mistake\n")


def test_a_full_disk_behind_standard_output_stops_nothing() -> None:
    with FULL.open("w") as full:
        done = run(stdout=full)
        assert (done.returncode, done.stderr) == (7, "-c: warning: careful\n")
        assert run("mistake", stderr=full).returncode == 2
        assert run(stdout=full, stderr=full).returncode == 7


def test_a_closed_pipe_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (7, "-c: warning: careful\n")


def test_an_interrupt_kills_without_a_traceback() -> None:
    done = run("interrupt")
    assert done.returncode == -signal.SIGINT
    assert "Traceback" not in done.stderr
