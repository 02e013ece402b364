"""Kill trainings at random times and check that nothing is lost: `bash scripts/soak.sh`.

A tiny pta_hybrid that saves after every step is killed with SIGKILL at a random time and restarted until it ends; then
the next run follows, up to the given number of kills. After every kill the latest state must be readable without a
warning, and every completed run must be bit-identical to an uninterrupted one. Runs are forked from a process that has
imported torch, so a start takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

import train
from data.folder.slices import slice_name, write_image
from training.loop import Trainer
from util.checkpoint import LATEST, checkpoint_path, read_checkpoint, read_newest
from util.errors import UserError

SIDE = 32
TINY = (
    *(
        "--model=pta_hybrid",
        f"--load_size={SIDE}",
        "--gpu_ids=-1",
        "--amp=off",
        "--batch_size=4",
        "--save_latest_freq=1",
    ),
    *("--n_epochs=1", "--n_epochs_decay=1", "--n_epochs_refine=1", "--save_epoch_freq=1", "--keep_last=1"),
    *("--sgp_input=32", "--sgp_patch=8", "--sgp_width=32", "--sgp_depth=1", "--sgp_heads=2", "--sgp_embedding=16"),
    *(
        "--sgp_steps=3",
        "--sgp_batch_size=4",
        "--lsc_steps=3",
        "--lsc_blocks=8",
        "--lsc_batch_size=4",
        "--lsc_features=2",
    ),
    *("--hybrid_width=24", "--hybrid_depth=2", "--hybrid_heads=2", "--hybrid_mlp=32", "--hybrid_patch=8"),
    *("--hybrid_features=4", "--netD=pixel", "--ndf=4", "--pool_size=3", "--no_html"),
)
Reached = tuple[int, int]  # stage and step


def write_slices(root: Path) -> None:
    """Write twelve slices per domain: noisy discs whose size grows with the level."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    for domain in ("trainA", "trainB"):
        (root / domain).mkdir(parents=True)
        for index in range(12):
            disc = (x**2 + y**2 < 0.3 + 0.04 * index) * 0.6
            write_image(
                root / domain / slice_name("disc", index), np.clip(disc + rng.normal(0, 0.05, x.shape), 0, 1), 8
            )


class Attempt:
    """One start of a run in its own process, which reports every completed save through a pipe."""

    def __init__(self, argv: list[str]) -> None:
        self._pipe, output = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self._pipe)
            os._exit(_train(argv, output))
        os.close(output)

    def kill(self) -> tuple[bool, list[Reached]]:
        """Kill the process; return whether it was still running, and its saves."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        return self.wait()

    def wait(self) -> tuple[bool, list[Reached]]:
        """Wait for the process to end; return whether it was killed, and its saves."""
        with os.fdopen(self._pipe, encoding="ascii") as pipe:
            lines = [line for line in pipe.read().split("\n")[:-1] if line]
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        if status not in (0, -signal.SIGKILL):
            raise SystemExit(f"a start ended by itself with status {status}")
        return status != 0, [(int(stage), int(step)) for stage, step in (line.split() for line in lines)]


def _train(argv: list[str], output: int) -> int:
    """Run train.py's main silently in this process, and write `stage step` to the pipe after every save."""
    save = Trainer.save

    def save_and_report(self: Trainer, *epochs: str) -> None:
        save(self, *epochs)
        os.write(output, f"{self.position['stage']} {self.position['step']}\n".encode())

    Trainer.save = save_and_report  # type: ignore[method-assign]
    try:
        with Path(os.devnull).open("w") as devnull, contextlib.redirect_stdout(devnull):
            return train.main(argv)
    except UserError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2


@dataclass
class Soak:
    """The kills so far, and the failures found."""

    out: Path
    rng: random.Random
    kills: int = 0
    runs: int = 0
    in_save: int = 0  # kills that left a half-written file
    saved_last: Reached = (0, 0)
    failures: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def arguments(self, name: str) -> list[str]:
        return [*TINY, f"--dataroot={self.out / 'data'}", f"--checkpoints_dir={self.out / 'runs'}", f"--name={name}"]

    def reference(self) -> float:
        """Train without interruption; return the time in seconds."""
        start = time.monotonic()
        Attempt(self.arguments("never_killed")).wait()
        return time.monotonic() - start

    def one_run(self, wanted: int, longest: float) -> None:
        """Start, kill and restart a run until it ends or `wanted` kills are reached."""
        name, resumable = f"killed_{self.runs}", False
        run_dir = self.out / "runs" / name
        self.saved_last = (0, 0)
        while self.kills < wanted:
            attempt = Attempt([*self.arguments(name), *(["--continue_train"] if resumable else [])])
            time.sleep(self.rng.uniform(0, longest))
            was_running, saved = attempt.kill()
            self.saved_last = max([self.saved_last, *saved])
            if not was_running:
                break
            self.kills += 1
            self.in_save += any(run_dir.glob("*.part"))
            resumable = self.check(run_dir) or resumable
        else:
            Attempt([*self.arguments(name), *(["--continue_train"] if resumable else [])]).wait()
        self.runs += 1
        if read_checkpoint(checkpoint_path(run_dir, LATEST))["sha256"] != self.wanted_sha256():
            self.failures.append(f"{name}: differs from the run that was never killed")

    def check(self, run_dir: Path) -> bool:
        """After a kill, check the latest state; return whether there is one."""
        if not checkpoint_path(run_dir, LATEST).exists():
            if self.saved_last != (0, 0):
                self.failures.append(f"kill {self.kills}: no latest.pt, {self.saved_last} had been saved")
            return False
        try:
            newest = read_newest(run_dir)
        except UserError as error:
            self.failures.append(f"kill {self.kills}: {error}")
            return False
        at = newest.content["position"]
        if newest.warning or (at["stage"], at["step"]) < self.saved_last:
            self.failures.append(f"kill {self.kills}: {newest.warning or at}, {self.saved_last} had been saved")
        return True

    def wanted_sha256(self) -> str:
        return read_checkpoint(checkpoint_path(self.out / "runs" / "never_killed", LATEST))["sha256"]

    def summary(self) -> str:
        minutes = (time.monotonic() - self.start) / 60
        return (
            f"{datetime.now():%Y-%m-%d} soak: {self.kills} kills, {self.in_save} of them during a save, "
            f"{self.runs} runs ended, {len(self.failures)} failures, {minutes:.1f} min"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=200, help="number of kills [default: 200]")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for data and runs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kill times [default: 0]")
    options = parser.parse_args()
    write_slices(options.out / "data")
    soak = Soak(options.out, random.Random(options.seed))
    whole = soak.reference()
    while soak.kills < options.kills:
        soak.one_run(options.kills, longest=whole / 2)
        print(soak.summary(), flush=True)
    for failure in soak.failures:
        print(f"FAILED {failure}")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
