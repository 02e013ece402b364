"""The recipes in scripts/: what they would run is recorded, parsed by the real parsers, and run at tiny sizes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL_LSC, SMALL_NETWORKS, SMALL_SGP
from running import ROOT, run

from models.lsc_options import LSCOptions
from models.sgp_options import SGPOptions
from options.test_options import parse as parse_test
from options.train_options import RunOptions
from options.train_options import parse as parse_train

SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
TINY = ("--gpu_ids=-1", "--load_size=32", "--no_html", "--amp=off")
TINY_GAN = ("--batch_size=4", "--n_epochs=1", "--n_epochs_decay=0", "--netD=pixel", "--ndf=4")
RECORDING = """#!{python}
import json, os, sys
if sys.argv[1] != "-c":  # with -c a script asks whether a package is there
    with open(os.environ["RECORDED"], "a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""


def recorded(tmp_path: Path, script: str, *arguments: object) -> list[list[str]]:
    """The Python commands of a script, from another folder than the repository's, none of which is run."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(RECORDING.format(python=sys.executable))
    python.chmod(0o755)
    log = tmp_path / "recorded"
    log.unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "RECORDED": str(log)}
    command = ["bash", str(ROOT / "scripts" / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


def program(command: list[str]) -> str:
    path = Path(command[0])
    assert path.parent == ROOT
    return path.name


def parsed(command: list[str]) -> RunOptions:
    assert program(command) == "train.py"
    return parse_train(command[1:])


OPPONENTS = ("cycle_gan", "cut", "degrade", "unsb")


def published(options: RunOptions) -> tuple[object, ...]:
    train, data = options.train, options.data
    return data.load_size, data.preprocess, train.batch_size, options.dataset_mode


@pytest.mark.parametrize("script", ["train_pta.sh", "test_pta.sh", "pretrain_sgp_lsc.sh", "train_baselines.sh"])
@pytest.mark.parametrize("arguments", [[], ["DATA"], ["--help"], ["DATA", "--gpu_ids", "0"]])
def test_without_both_folders_it_says_how_to_call_it(script: str, arguments: list[str]) -> None:
    done = subprocess.run(["bash", f"scripts/{script}", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"usage: bash scripts/{script} DATA OUT [further options]" in done.stderr


def test_published_settings_reach_every_training(tmp_path: Path) -> None:
    (pta,) = map(parsed, recorded(tmp_path, "train_pta.sh", "DATA", "OUT"))
    assert published(pta) == (224, "resize", 16, "unaligned_mask")
    network = pta.network
    assert (pta.model, network.netG, network.n_epochs, network.n_epochs_decay) == ("pta_hybrid", "hybrid", 100, 50)
    assert (network.hybrid_width, network.sgp_width, network.lsc_blocks) == (768, 256, 24)
    (tmp_path / "pairs" / "trainA_truth").mkdir(parents=True)
    for data, bounds in (("DATA", []), (tmp_path / "pairs", ["supervised"])):
        baselines = list(map(parsed, recorded(tmp_path, "train_baselines.sh", data, "OUT")))
        names = [("cycle_gan", "resnet_9blocks"), *((name, "hybrid") for name in (*OPPONENTS, *bounds))]
        assert [(run.model, run.network.netG) for run in baselines] == names
        assert [run.train.name for run in baselines] == [f"{model}_{generator}" for model, generator in names]
        for other in baselines:
            mode = "aligned" if other.model == "supervised" else "unaligned_mask"
            assert published(other) == (*published(pta)[:-1], mode)
            assert (other.network.n_epochs, other.network.n_epochs_decay, other.network.lr) == (100, 50, network.lr)


def test_further_options_win(tmp_path: Path) -> None:
    (pta,) = map(parsed, recorded(tmp_path, "train_pta.sh", "DATA", "OUT", "--batch_size", 8, "--name", "a b"))
    assert (pta.train.batch_size, pta.train.name) == (8, "a b")
    (command,) = recorded(tmp_path, "test_pta.sh", "DATA", "OUT", "--name", "other", "--no_baselines")
    assert program(command) == "test.py"
    tested = parse_test(command[1:])
    assert (tested.name, tested.results_dir, tested.baselines) == ("other", "OUT/results", False)


def test_options_of_a_pretext_task_reach_those_trainings_that_know_them(tmp_path: Path) -> None:
    words = ("--seed", "3", "--sgp_width", "128", "--sgp_steps", "9", "--mask_ratio=0.1", "--lsc_lr=0.01")
    commands = recorded(tmp_path, "pretrain_sgp_lsc.sh", "DATA", "OUT", *words, "--", "--n_epochs", "2")
    sgp, lsc, pta = map(parsed, commands)
    assert [run.train.seed for run in (sgp, lsc, pta)] == [3, 3, 3]
    assert (sgp.network.sgp_width, sgp.network.sgp_steps, pta.network.sgp_width) == (128, 9, 128)
    assert (lsc.network.mask_ratio, lsc.network.lsc_lr, pta.network.mask_ratio) == (0.1, 0.01, 0.1)
    assert (pta.network.n_epochs, pta.network.n_epochs_decay) == (2, 50)
    assert (pta.network.sgp_weights, pta.network.lsc_weights) == ("OUT/sgp", "OUT/lsc")


def test_the_recipe_knows_which_options_only_train_a_pretext_task() -> None:
    """They do nothing beside --sgp_weights and --lsc_weights, where they would be refused."""
    script = (ROOT / "scripts" / "pretrain_sgp_lsc.sh").read_text(encoding="utf-8")
    for schema, task in ((SGPOptions, "sgp"), (LSCOptions, "lsc")):
        line = next(line for line in script.splitlines() if line.endswith(f'knowing="{task}" ;;'))
        listed = {word.strip("*-") for word in line.partition(")")[0].split() if word != "|"}
        only = {
            field.name
            for field in dataclasses.fields(schema)
            if any(need.idle == f"beside --{task}_weights" for need in field.metadata.get("needs", ()))
        }
        assert listed == only


def test_pretrained_networks_are_used_and_the_result_is_tested(phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pretext = ("--sgp_steps=3", "--sgp_batch_size=4", "--lsc_steps=3", "--lsc_batch_size=4", *SMALL_SGP, *SMALL_LSC)
    generators = ("--", *TINY_GAN, *SMALL_NETWORKS)
    commands = recorded(tmp_path, "pretrain_sgp_lsc.sh", phantom, out, *TINY, "--batch_size=4", *pretext, *generators)
    commands += recorded(tmp_path, "test_pta.sh", phantom, out, "--gpu_ids=-1", "--no_baselines")
    for command in commands:
        done = run(program(command), *command[1:])
        assert done.status == 0, done.err
    assert "lsc" not in {row.partition(",")[0] for row in (out / "pta" / "loss_log.csv").read_text().splitlines()}
    assert (out / "results" / "pta" / "test_latest" / "index.html").is_file()


def test_the_method_and_a_baseline_run(phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pretext = ("--sgp_steps=3", "--sgp_batch_size=4", "--lsc_steps=3", "--lsc_batch_size=4", *SMALL_SGP, *SMALL_LSC)
    (pta,) = recorded(tmp_path, "train_pta.sh", phantom, out, *TINY, *TINY_GAN, *pretext, *SMALL_NETWORKS[:-2])
    baseline, *_ = recorded(tmp_path, "train_baselines.sh", phantom, out, *TINY, *TINY_GAN)
    for command in (pta, [*baseline, "--ngf=4"]):
        done = run(program(command), *command[1:])
        assert done.status == 0, done.err
    assert (out / "pta" / "latest.pt").is_file() and (out / "cycle_gan_resnet_9blocks" / "latest.pt").is_file()
