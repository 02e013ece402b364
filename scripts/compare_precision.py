"""Does mixed precision change the result? Compares small trainings in several number formats, with several seeds each.

python scripts/compare_precision.py --out FOLDER [--formats off,bf16,fp16] [--seeds 0,1,2] [--jobs 2]

Each run calls `train.py` and `test.py` on simulated subjects with known truth. Completed runs are not repeated, so the
script can be interrupted and restarted. It prints a table of losses and paired measures, and whether each format's mean
lies within the range of the float32 seeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from options.train_options import AMP
from training.log.loss_log import LOSS_LOG_NAME, LossLog
from util.errors import UserError, run_cli
from util.schema import CommandLine

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "off"
SIMULATED = ("--simulate", "--matrix=64", "--n_train=8", "--n_val=0", "--n_test=12")
NETWORKS = (
    *("--load_size=64", "--hybrid_width=64", "--hybrid_depth=2", "--hybrid_heads=2", "--hybrid_mlp=128"),
    *("--hybrid_patch=8", "--hybrid_features=8", "--netD=n_layers", "--n_layers_D=2", "--ndf=8", "--lsc_features=4"),
    *("--sgp_input=48", "--sgp_patch=12", "--sgp_width=64", "--sgp_depth=2", "--sgp_heads=2", "--sgp_embedding=64"),
)
LENGTH = ("--sgp_steps=150", "--lsc_steps=100", "--n_epochs=2", "--n_epochs_decay=2", "--batch_size=4", "--lr=6e-4")
LOSSES = ("cycle", "idt", "syn", "adv")
MEASURES = ("psnr", "psnr_fit", "ssim")


def run_of(out: Path, job: tuple[str, int]) -> dict[str, float]:
    """Train and test one format with one seed; return final losses (mean of the last tenth) and measures."""
    amp, seed = job
    name = f"{amp}-{seed}"
    folders = [f"--dataroot={out / 'data'}", f"--checkpoints_dir={out / 'runs'}", f"--name={name}", "--gpu_ids=-1"]
    metrics = out / "results" / name / "test_latest" / "metrics.json"
    if not metrics.exists():
        _call("train.py", *folders, *NETWORKS, *LENGTH, f"--amp={amp}", f"--seed={seed}", "--overwrite", "--no_html",
              "--print_freq=4")  # fmt: skip
        _call("test.py", *folders, f"--results_dir={out / 'results'}", "--no_baselines")
    log = LossLog(out / "runs" / name / LOSS_LOG_NAME)
    log.resume("gan", sys.maxsize)
    curves = {loss: log.curve("gan", loss)[1] for loss in LOSSES}
    found = {loss: float(values[-len(values) // 10 :].mean()) for loss, values in curves.items()}
    scores = json.loads(metrics.read_text(encoding="utf-8"))["paired"]["fake_B"]
    for measure in MEASURES:
        found[measure] = scores[measure]["mean"]
        low, high = scores[measure]["ci95"] or (np.nan, np.nan)
        found[f"{measure} ci95/2"] = (high - low) / 2
    return found


def _call(program: str, *argv: str) -> None:
    result = subprocess.run([sys.executable, program, *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"{program} {' '.join(argv)}: {result.stderr.strip()[-400:]}")


def main(argv: Sequence[str]) -> None:
    """Run the missing trainings and print the table."""
    parser = CommandLine(prog="compare_precision.py", description=__doc__)
    parser.add_argument("--out", required=True, help="folder for data, runs and results")
    parser.add_argument("--formats", default="off,bf16", help=f"of {', '.join(AMP)} [default: off,bf16]")
    parser.add_argument("--seeds", default="0,1,2", help="[default: 0,1,2]")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, with one thread each [default: 1]")
    options = parser.parse_args(argv)
    formats, out = list(dict.fromkeys([REFERENCE, *options.formats.split(",")])), Path(options.out).resolve()
    unknown = set(formats) - set(AMP)
    if unknown or not all(seed.isdecimal() for seed in options.seeds.split(",")):
        raise UserError(
            f"--formats {options.formats}, --seeds {options.seeds}: need formats of {', '.join(AMP)} and whole numbers"
        )
    if not (out / "data" / "manifest.json").exists():
        _call("preprocessing_images.py", *SIMULATED, f"--out={out / 'data'}", "--overwrite")
    jobs = [(amp, int(seed)) for seed in options.seeds.split(",") for amp in formats]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = dict(zip(jobs, pool.map(partial(run_of, out), jobs), strict=True))
    show({amp: [found[job] for job in jobs if job[0] == amp] for amp in formats})


def show(runs: dict[str, list[dict[str, float]]]) -> None:
    """Print mean, smallest and largest over seeds, and whether the mean is within the float32 seeds' range."""
    table = Table("", *runs, "within float32 seeds")
    for name in (*LOSSES, *MEASURES, *(f"{measure} ci95/2" for measure in MEASURES)):
        values = {amp: np.array([run[name] for run in seeds]) for amp, seeds in runs.items()}
        reference = values[REFERENCE]
        inside = [
            f"{amp}: {'yes' if reference.min() <= mean <= reference.max() else 'no'}"
            for amp, mean in ((amp, found.mean()) for amp, found in values.items() if amp != REFERENCE)
        ]
        cells = [f"{v.mean():.4g} ({v.min():.4g} to {v.max():.4g})" for v in values.values()]
        table.add_row(name, *cells, "" if "ci95" in name else ", ".join(inside))
    Console().print(table)


if __name__ == "__main__":
    run_cli(main, "compare_precision.py")
