"""Every fenced block of README and docs says what it is, and its commands are ones that the programs take.

The words after the opening fence class a block:

    sh run       run here, from the document's first to its last, at tiny sizes (slow)
    sh shell     plain shell, run by bash over stand-in files
    sh recipe    a script of scripts/ that calls the programs; tests/test_recipes.py runs them at tiny sizes
    sh server    serves until it is stopped; tests/test_dashboard_browser.py starts it
    sh setup     installs, or does all at once: the demo, the whole test suite
    sh machines  needs several GPUs or machines
    sh record    how the numbers of a page were made, at full size
    sh data      needs data that cannot be had here
    python …, json, csv, text, bibtex

A block of any other class, or without one, fails. Options in all `sh` blocks go through the programs' own parsers.
How sizes become tiny: `tiny`. Where a page lists alternatives that write into one folder (ALTERNATIVES), a line is run
with `--overwrite` if what it writes is there already.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import SMALL_LSC, SMALL_NETWORKS, SMALL_SGP
from running import ROOT, run
from test_recipes import recorded

from options import preprocess_options, test_options, train_options
from util.errors import UserError

PAGES = sorted(
    [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "dataset" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
SHELL = ("run", "shell", "recipe", "server", "setup", "machines", "record", "data")
OTHER = ("python", "json", "csv", "text", "bibtex")
PARSERS = {
    "train.py": train_options.parse,
    "test.py": test_options.parse,
    "preprocessing_images.py": preprocess_options.parse,
}
TOOLS = ("pip", "git", "cd", "ssh", "tensorboard", "dcm2niix")  # of others: not looked into
RECIPES = ("train_pta.sh", "test_pta.sh", "pretrain_sgp_lsc.sh", "train_baselines.sh")
STAND_INS = {"[TASK]": "same-contrast", "CURVE": "auto", "PRESET": "same-contrast", "SCAN": "LATER", "...": "", "…": ""}
MANY = 2  # subjects of a tiny simulation, at most
# what a document takes for granted, before its first command
DATA = "python preprocessing_images.py --simulate --out DATA"
TEST = "python train.py --preset published --dataroot DATA --name test --checkpoints_dir OUT"
BEFORE = {"docs/reports.md": (DATA, TEST), "docs/training.md": (DATA,), "docs/extending.md": (DATA,)}
BEFORE |= {"docs/pretrained.md": (DATA,)}
BEFORE |= {"docs/metrics.md": ("python preprocessing_images.py --simulate --out tutorial/data",)}
ALTERNATIVES = ("README.md", "dataset/README.md", "docs/training.md")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The words of each command; placeholders are filled in."""
        for line in self.text.replace("\\\n", " ").splitlines():
            for command in re.split(r"&&|;", re.sub(r"(^|\s)#.*", "", line)):
                words = [STAND_INS.get(word, word) for word in shlex.split(command)]
                if "…" in command and "--dataroot" not in words:  # the options of the line before
                    words += ["--dataroot", "DATA"]
                if words := [word for word in words if word]:
                    yield words


def blocks_of(page: Path) -> Iterator[Block]:
    kind, lines, start = None, [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            if kind is None:
                kind, lines, start = tuple(line.strip().strip("`").split()), [], number
            else:
                yield Block(page, start, kind, "\n".join(lines))
                kind = None
        elif kind is not None:
            lines.append(line)
    assert kind is None, f"{page}: a block is not closed"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [block for block in BLOCKS if block.kind[:1] == ("sh",)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_says_what_it_is(block: Block) -> None:
    kind, *more = block.kind or ("",)
    if kind == "sh":
        assert len(more) == 1 and more[0] in SHELL, "sh, and one of " + ", ".join(SHELL)
    else:
        assert kind in OTHER, "sh and its class, or one of " + ", ".join(OTHER)
    if kind == "python":
        compile(f"{{{block.text}}}" if more == ["line"] else block.text, block.place, "exec")  # a dict's line
    if kind == "json":
        json.loads(block.text)
    if kind == "text":
        program = re.search(
            r"^ *(?:python|torchrun|bash|pip) +[\w./-]*(?:\.py|\.sh|install)\b", block.text, re.MULTILINE
        )
        assert not program, "a command is no text"


@pytest.mark.parametrize("block", [b for b in COMMANDS if b.kind[1] != "shell"], ids=lambda block: block.place)
def test_the_programs_take_the_options(block: Block, tmp_path: Path) -> None:
    assert list(block.commands())
    for words in block.commands():
        try:
            check(words, tmp_path)
        except (UserError, SystemExit) as error:
            assert getattr(error, "code", 1) == 0, f"{shlex.join(words)}: {error}"  # --help ends with 0


def check(words: list[str], tmp_path: Path) -> None:
    """Fails unless all that a command names is there; programs' options are parsed."""
    while "=" in words[0]:  # a variable of the environment
        words = words[1:]
    program = next((word for word in words if word in PARSERS), None)
    if program:
        PARSERS[program](words[words.index(program) + 1 :])
    elif words[:3] == ["python", "-m", "scripts.calibrate_trust"]:
        test_options.parse(words[3:])
    elif words[:1] == ["sbatch"]:
        script = next(number for number, word in enumerate(words) if word.endswith("slurm_train.sh"))
        train_options.parse(words[script + 1 :])
    elif words[0] == "bash":
        assert (ROOT / words[1]).is_file()
        if (name := Path(words[1]).name) in RECIPES:
            for command in recorded(tmp_path, name, *words[2:]):
                PARSERS[Path(command[0]).name](command[1:])
    elif words[:2] == ["python", "-m"] or (words[0] == "python" and words[1].startswith("scripts/")):
        module, options = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
        path = ROOT / (module.replace(".", "/") + ".py" if words[1] == "-m" else module)
        source = path.read_text(encoding="utf-8")
        for option in options:
            assert not option.startswith("--") or option.partition("=")[0] in source, option
    else:
        assert words[0] in TOOLS, f"unknown program {words[0]}"


# running them ---------------------------------------------------------------------------------------------------------


def tiny(words: list[str]) -> list[str]:
    """A command of ours at a size that takes seconds: few small slices, small networks, few steps, the CPU."""
    program, *rest = words
    if program == "preprocessing_images.py" and "--simulate" in rest:
        counts = {"--n_train": MANY, "--n_val": 1, "--n_test": MANY}
        for name, most in counts.items():
            given = int(rest[rest.index(name) + 1]) if name in rest else most
            rest += [name, str(min(given, most))]
        return [program, *rest, "--matrix", "32"]
    if program == "test.py":
        return [program, *rest, "--gpu_ids", "-1", *([] if "--dataset_mode" in rest else ["--no_baselines"])]
    if program != "train.py" or {"--check_data", "--help"} & set(rest):
        return words
    model = rest[rest.index("--model") + 1] if "--model" in rest else "pta_hybrid"
    more = ["--load_size=32", "--gpu_ids=-1", "--amp=off", "--batch_size=4", "--max_dataset_size=16"]
    if "--preset" in rest and rest[rest.index("--preset") + 1] != "published" and "--n_epochs_refine" not in rest:
        more += ["--n_epochs_refine=1"] if model == "pta_hybrid" else []
    weights = "--sgp_weights" in rest
    if model in ("sgp", "pta_hybrid"):
        more += [*SMALL_SGP, *([] if weights else ["--sgp_steps=3", "--sgp_batch_size=4"])]
    if model in ("lsc", "pta_hybrid"):
        more += [*SMALL_LSC, *([] if weights else ["--lsc_steps=3", "--lsc_batch_size=4"])]
    if model in ("cycle_gan", "pta_hybrid"):
        more += [*SMALL_NETWORKS, "--n_epochs=1", "--n_epochs_decay=0"]
    return [program, *rest, *more]


def run_command(words: list[str], overwrite: bool) -> None:
    if words[:2] == ["python", "-m"] and words[2] in ("scripts.metrics_by_example", "scripts.calibrate_trust"):
        importlib.import_module(words[2]).main(words[3:])
        return
    if words[:2] == ["python", "scripts/compare_runs.py"]:
        importlib.import_module("scripts.compare_runs").main(words[2:])
        return
    assert words[0] == "python" and words[1] in PARSERS, words
    command = tiny(words[1:])
    done = run(command[0], *command[1:])
    if overwrite and done.status == 2 and "--overwrite" in done.err:
        done = run(command[0], *command[1:], "--overwrite")
    assert done.status == 0, f"{shlex.join(words)}\n{done.err}"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders LOW, HIGH and LATER of simulated volumes, in the place of one's own."""
    place = tmp_path_factory.mktemp("volumes")
    few = ("--matrix=32", "--n_train=4", "--n_val=0", "--n_test=1", "--nifti", f"--out={place / 'simulated'}")
    done = run("preprocessing_images.py", "--simulate", *few)
    assert done.status == 0, done.err
    for name, scans in (("LOW", "train_*_A.nii.gz"), ("HIGH", "train_*_B.nii.gz"), ("LATER", "test_*_A.nii.gz")):
        (place / name).mkdir()
        for number, path in enumerate(sorted((place / "simulated" / "nifti").glob(scans))):
            (place / name / f"{name.lower()}{number}.nii.gz").symlink_to(path)
    return place


PAGES_TO_RUN = sorted({block.page for block in COMMANDS if block.kind[1] == "run"})


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_TO_RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_can_be_done(
    page: Path, volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first command to the last, in a folder that has nothing but volumes."""
    monkeypatch.chdir(tmp_path)
    for folder in ("LOW", "HIGH", "LATER"):
        (tmp_path / folder).symlink_to((volumes / folder).resolve())
    name = str(page.relative_to(ROOT))
    for command in BEFORE.get(name, ()):
        run_command(shlex.split(command), overwrite=False)
    for block in COMMANDS:
        if block.page == page and block.kind[1] == "run":
            for words in block.commands():
                run_command(words, overwrite=name in ALTERNATIVES)


@pytest.mark.parametrize("block", [b for b in COMMANDS if b.kind[1] == "shell"], ids=lambda block: block.place)
def test_plain_shell_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("b", "a"):
        (tmp_path / "scans" / f"{name} x.nii.gz").write_bytes(b"")
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("*"))) > 3  # it has made something
