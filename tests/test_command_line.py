"""The three programs as users type them: mistakes get one sentence and status 2, and `--help` tells all."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from conftest import train_arguments
from running import ROOT, run

from data.cache.place import CACHE_NAME
from data.registry import DATASETS
from models import MODELS
from options import preprocess_options, test_options, train_options
from options.display_options import DisplayOptions
from util.errors import run_cli

COMMON = (train_options.TrainOptions, DisplayOptions, *{d.Options for d in DATASETS.values()})
SCHEMAS = {
    "train.py": (*COMMON, *(model.Options for model in MODELS.values())),
    "test.py": (test_options.TestOptions,),
    "preprocessing_images.py": (
        preprocess_options.OutputOptions,
        preprocess_options.VolumeOptions,
        preprocess_options.BenchmarkOptions,
    ),
}

Run = Callable[[str, Sequence[object]], str]


@pytest.fixture
def refusal() -> Run:
    """Run a program and return its message, after checking that it is one line and the status 2."""

    def refused(program: str, arguments: Sequence[object]) -> str:
        done = run(program, *arguments)
        assert (done.status, done.out) == (2, ""), done.err
        return one_sentence(program, done.err)

    return refused


def one_sentence(program: str, err: str) -> str:
    """The message of an error output that consists of nothing else."""
    assert err.startswith(f"{program}: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err.removeprefix(f"{program}: error: ").rstrip("\n")


def write_nifti(path: Path, shape: tuple[int, ...]) -> Path:
    volume = np.random.default_rng(0).random(shape, dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    return path


# the data folder ------------------------------------------------------------------------------------------------------


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


SPOILED = {
    "no domain folder": (lambda root: (root / "trainB").rename(root / "elsewhere"), ["no folder trainB", "--dataroot"]),
    "empty folder": (lambda root: empty(root / "trainA"), ["trainA: no slices", "*.png"]),
    "mask without image": (
        lambda root: (root / "trainA/trainA1_003.png").unlink(),
        ["trainA1_003.png: a mask without"],
    ),
    "image without mask": (lambda root: (root / "trainB_mask/trainB0_001.png").unlink(), ["trainB0_001.png: no mask"]),
    "unreadable slice": (
        lambda root: (root / "trainB/trainB0_001.png").write_bytes(b"x"),
        ["trainB0_001.png: cannot be"],
    ),
    "unreadable mask": (
        lambda root: (root / "trainA_mask/trainA0_000.png").write_bytes(b""),
        ["trainA_mask", "cannot be"],
    ),
    "unreadable validation slice": (lambda root: (root / "valA/valA0_002.png").write_bytes(b"x"), ["valA0_002.png"]),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_data_folder_is_refused_before_training(
    phantom: Path, tmp_path: Path, refusal: Run, case: str
) -> None:
    spoil, words = SPOILED[case]
    spoil(phantom)
    message = refusal("train.py", train_arguments(phantom, tmp_path / "out", "cycle_gan"))
    assert all(word in message for word in words), message
    assert {path.name for path in tmp_path.glob("out/*/*") if path.parent.name != CACHE_NAME} <= {"bad_files.csv"}


def test_a_data_folder_that_is_not_there(tmp_path: Path, refusal: Run) -> None:
    arguments = train_arguments(tmp_path / "nowhere", tmp_path / "out", "lsc")
    assert refusal("train.py", arguments) == f"--dataroot {tmp_path / 'nowhere'}: no such folder"
    assert "--dataroot is missing" in refusal("train.py", [])
    assert "--dataroot is missing" in refusal("test.py", [])
    assert not (tmp_path / "out").exists()


# options --------------------------------------------------------------------------------------------------------------

BAD_OPTIONS = [
    (["--load_size=50"], ["--netG hybrid", "multiples of 8", "50x50", "--load_size"]),
    (["--preprocess=resize_and_crop", "--crop_size=20"], ["multiples of 8", "20x20", "--crop_size"]),
    (["--netG=unet_128"], ["--netG unet_128", "multiples of 128", "32x32"]),
    (["--netD=basic", "--load_size=16"], ["--netD", "at least 32 px", "16x16"]),
    (["--hybrid_heads=7"], ["--hybrid_width 24", "--hybrid_heads 7"]),
    (["--sgp_heads=3"], ["--sgp_width 32", "--sgp_heads 3"]),
    (["--sgp_patch=64"], ["--sgp_patch 64", "--sgp_input 32"]),
    (["--sgp_weights=nowhere"], ["--sgp_weights nowhere", "run folder or a .pth or .safetensors file"]),
    (["--direction=BtoA"], ["--direction BtoA", "pta_hybrid"]),
    (["--continue_train"], ["--continue_train", "latest.pt does not exist"]),
    (["--learning_rate=1"], ["--learning_rate"]),  # unknown
    (["--batch=4"], ["--batch=4", "did you mean --batch_size?"]),  # abbreviated
    (["--sgp_step", "4"], ["--sgp_step 4", "did you mean --sgp_steps?"]),
    (["--Lambda-Cycle=2"], ["did you mean --lambda_cycle?"]),
    (["--netg=resnet_9blocks"], ["did you mean --netG?"]),
    (["--no_htlm"], ["did you mean --no_html?"]),
    (["--batch_size=0"], ["--batch_size is 0", "at least 1"]),
    (["--mask_ratio=2"], ["--mask_ratio is 2.0", "between 0 and 1"]),
    (["--lr=nan"], ["--lr is nan", "between"]),
    (["--lr=fast"], ["--lr", "'fast' is not a float"]),
    (["--netG=vit"], ["--netG", "'vit'", "resnet_9blocks"]),
    (["--model=pix3pix"], ["--model", "'pix3pix'", "cycle_gan"]),
    (["--gpu_ids=0,1"], ["--gpu_ids is '0,1'", "-1 (the CPU)"]),
    (["--gpu_ids=-2"], ["--gpu_ids is '-2'", "-1 (the CPU)"]),
    (["--n_epochs=0", "--n_epochs_decay=0"], ["--n_epochs 0, --n_epochs_decay 0", "no generator would be trained"]),
    (["--name=a/b"], ["--name is 'a/b'", "plain folder name"]),
]


@pytest.mark.parametrize(("extra", "words"), BAD_OPTIONS, ids=[" ".join(extra) for extra, _ in BAD_OPTIONS])
def test_a_bad_option_is_refused_before_training(
    phantom: Path, tmp_path: Path, refusal: Run, extra: list[str], words: list[str]
) -> None:
    message = refusal("train.py", train_arguments(phantom, tmp_path / "out", "pta_hybrid", *extra))
    assert all(word in message for word in words), message
    assert {path.name for path in tmp_path.glob("out/*")} <= {CACHE_NAME}


TRAINED_BY_EPOCHS = [name for name in MODELS if name not in ("sgp", "lsc")]


def test_an_option_of_another_model_is_told_so(refusal: Run) -> None:
    arguments = ["--dataroot=D", "--model=sgp"]
    assert refusal("train.py", [*arguments, "--lr=1e-3"]) == (
        f"unrecognized arguments: --lr=1e-3; --lr needs --model {' or '.join(TRAINED_BY_EPOCHS)}, this is --model sgp"
    )
    pta = "pta_hybrid or pta_cyclegan or pta_unet"
    assert refusal("train.py", [*arguments, "--lambda_cycel=1"]).endswith(
        f"--lambda_cycel: did you mean --lambda_cycle (needs --model {pta} or cycle_gan, this is --model sgp)?"
    )
    assert f"--lsc_steps needs --model {pta} or lsc" in refusal("train.py", [*arguments, "--lsc_steps=9", "x"])


def test_the_other_programs_suggest_too(refusal: Run) -> None:
    assert refusal("test.py", ["--num_tests=3"]).endswith("--num_tests: did you mean --num_test?")
    assert refusal("preprocessing_images.py", ["--inputA=V"]).endswith("--inputA: did you mean --input_A?")
    assert refusal("test.py", ["--qqqq=3"]) == "unrecognized arguments: --qqqq=3"
    assert refusal("test.py", ["folder"]) == "unrecognized arguments: folder"


@pytest.mark.parametrize("program", SCHEMAS)
def test_version(program: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    done = run(program, "--version")
    line = f"pta-mri {project['version']}, torch {version('torch')}, Python {platform.python_version()}\n"
    assert (done.status, done.out, done.err) == (0, line, "")
    assert "--version" in run(program, "--help").out


def test_versions_are_known_without_importing_torch() -> None:
    code = "import sys; from util.version import versions; versions(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_name_that_does_not_exist_lists_the_runs_that_do(phantom: Path, tmp_path: Path, refusal: Run) -> None:
    out = tmp_path / "out"
    arguments = [f"--dataroot={phantom}", f"--checkpoints_dir={out}", f"--results_dir={tmp_path / 'results'}"]
    assert refusal("test.py", [*arguments, "--name=seed_1"]).endswith(f"there are no runs in {out}")
    for name in ("alpha", "seed_0", "no_run"):
        (out / name).mkdir(parents=True)
        (out / name / "options.json").write_text("{}", encoding="utf-8")
    (out / "no_run" / "options.json").unlink()
    there = f"runs in {out}: seed_0, alpha"
    assert refusal("test.py", [*arguments, "--name=seed_1"]).endswith(there)  # the most alike first
    continued = train_arguments(phantom, out, "lsc", "--name=seed_1", "--continue_train")
    assert refusal("train.py", continued).endswith(there)
    for number in range(20):
        (out / f"run{number:02}").mkdir()
        (out / f"run{number:02}" / "options.json").write_text("{}", encoding="utf-8")
    assert refusal("test.py", [*arguments, "--name=zzz"]).endswith("run07, run08 and 12 more")


def test_cuda_that_is_not_there(phantom: Path, tmp_path: Path, refusal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = refusal("train.py", [*train_arguments(phantom, tmp_path / "out", "lsc"), "--gpu_ids=0"])
    assert message.startswith("--gpu_ids 0 asks for CUDA")
    assert message.endswith("use --gpu_ids -1")
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_never_trained(phantom: Path, tmp_path: Path, refusal: Run) -> None:
    places = [f"--dataroot={phantom}", f"--checkpoints_dir={tmp_path / 'out'}", f"--results_dir={tmp_path / 'results'}"]
    assert refusal("test.py", [*places, "--name=never"]).startswith("--name never: no run of that name")
    assert "--epoch is 'best'" in refusal("test.py", [*places, "--epoch=best"])
    assert "--netG" in refusal("test.py", [*places, "--netG=hybrid"])  # the run knows it; nobody repeats it
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "results").exists()


def test_volumes_that_cannot_be_sliced(tmp_path: Path, refusal: Run) -> None:
    write_nifti(tmp_path / "series.nii.gz", (4, 4, 4, 3))
    (tmp_path / "none").mkdir()
    cases = {
        ("--input_A", tmp_path / "series.nii.gz"): ["series.nii.gz: 4-D", "(4, 4, 4, 3)", "3-D"],
        ("--input_A", tmp_path / "none"): ["--input_A", "no .nii or .nii.gz file"],
        ("--input_B", tmp_path / "nowhere"): ["--input_B", "does not exist"],
        ("--simulate", "7T"): ["--simulate", "'7T'", "same-contrast"],
        ("--simulate", "--matrix=33"): ["--matrix 33", "even"],
        ("--simulate", "--matr=64"): ["--matr=64"],
        ("--simulate", "--bits=7"): ["--bits", "7", "8, 16"],
        ("--simulate", "--protocol_A=9T"): ["--protocol_A", "'9T'", "0.3T-T1w"],
        ("--simulate", "--tr_A=-5"): ["--tr_A", "-5", "at least 0"],
        ("--simulate", "--tr_A=100"): ["do not fit", "100"],
        ("--simulate=paper", "--ti_B=2300"): ["ti_ms = 2300", "2400"],
        ("--simulate", "--faults=noise,spark"): ["--faults spark", "banding"],
        ("--simulate", "--ventricles=9"): ["--ventricles", "9", "between 1 and 4"],
        ("--simulate", "--lesions=scar"): ["--lesions", "'scar'", "tumour"],
        ("--simulate", "--n_lesions=5"): ["--n_lesions 5", "--lesions"],
        ("--simulate", f"--anatomy={tmp_path / 'none.nii.gz'}"): ["none.nii.gz"],
        (): ["--input_A", "--simulate"],
    }
    for arguments, words in cases.items():
        message = refusal("preprocessing_images.py", [*arguments, "--out", tmp_path / "data"])
        assert all(word in message for word in words), message
        assert not (tmp_path / "data").exists()
    assert "--out is missing" in refusal("preprocessing_images.py", ["--simulate"])


AS_TYPED = """
import json, os, runpy, sys
statuses = []
for program, *arguments in json.load(sys.stdin):
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(os.path.join({root!r}, program), run_name="__main__")
    except SystemExit as leaving:
        statuses.append(leaving.code)
late = {{"torchvision", "torch._dynamo", "torchmetrics", "matplotlib"}}
print(json.dumps([statuses, sorted(late & set(sys.modules))]))
"""


def test_the_real_programs_refuse_likewise_and_soon(tmp_path: Path) -> None:
    """In a process of their own, without what only work needs: torchvision and torch's compiler import for seconds."""
    volume = write_nifti(tmp_path / "series.nii", (4, 4, 4, 3))
    folders = [f"--checkpoints_dir={tmp_path / 'out'}", "--gpu_ids=-1"]
    commands = [
        ["train.py", *folders, f"--dataroot={tmp_path / 'nowhere'}"],
        ["test.py", *folders, f"--dataroot={tmp_path}", f"--results_dir={tmp_path / 'results'}", "--name=never"],
        ["preprocessing_images.py", f"--input_A={volume}", f"--out={tmp_path / 'data'}"],
    ]
    python = [sys.executable, "-c", AS_TYPED.format(root=str(ROOT))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        python, input=json.dumps(commands), cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [[2, 2, 2], []], done.stderr
    for (program, *_), line in zip(commands, done.stderr.splitlines(keepends=True), strict=True):
        one_sentence(program, line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["series.nii"]


def refused(script: str, *words: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a program of scripts/ prints as it ends with status 2."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        run_cli(importlib.import_module(f"scripts.{script}").main, script)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("script", ["demo_picture", "trust_picture", "pairs_picture", "network_view"])
@pytest.mark.parametrize("out", ["x.jpg", "missing/x.png"])
def test_a_picture_that_cannot_be_written_is_refused_first(
    script: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refused(script, tmp_path, f"--out={tmp_path / out}", capsys=capsys, monkeypatch=monkeypatch)
    assert f"'{tmp_path / out}': need a name that ends with .png in a folder that can be written" in told


def test_further_programs_refuse_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refused("network_view", tmp_path, "--load_size=15", capsys=capsys, monkeypatch=monkeypatch)
    assert told == "network_view: error: --load_size 15: allowed are numbers from 16\n"
    told = refused("low_field_accuracy", tmp_path / "absent.nii", capsys=capsys, monkeypatch=monkeypatch)
    assert told.startswith(f"low_field_accuracy: error: {tmp_path / 'absent.nii'}: ") and told.count("\n") == 1


# what is documented ---------------------------------------------------------------------------------------------------


def fields(schemas: Sequence[type]) -> Iterator[dataclasses.Field]:
    for schema in schemas:
        yield from dataclasses.fields(schema)


def helps() -> list[tuple[str, list[str], tuple[type, ...]]]:
    """(program, arguments, schemas that its help must show) for every program and model."""
    of_models = [
        ("train.py", [f"--model={name}"], (*COMMON[:2], DATASETS[model.Options.dataset_mode].Options, model.Options))
        for name, model in MODELS.items()
    ]
    return [*of_models, *((program, [], SCHEMAS[program]) for program in ("test.py", "preprocessing_images.py"))]


@pytest.mark.parametrize(("program", "arguments", "schemas"), helps())
def test_help_lists_every_option_with_its_default(
    program: str, arguments: list[str], schemas: tuple[type, ...]
) -> None:
    done = run(program, *arguments, "--help")
    assert done.status == 0
    unwrapped = "".join(done.out.split())
    for field in fields(schemas):
        described = f"{field.metadata['help']} [default: {field.default}]"
        assert f"--{field.name}" in unwrapped
        assert "".join(described.split()) in unwrapped, field.name


def test_net_G_is_an_alias_of_netG() -> None:
    for spelling in ("--netG", "--net_G"):
        assert train_options.parse(["--dataroot=D", spelling, "unet_128"]).network.netG == "unet_128"


def test_the_readme_names_every_model_generator_and_dataset_mode() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    networks = {field.name: field.metadata["choices"] for field in fields(SCHEMAS["train.py"])}
    for name in (*MODELS, *DATASETS, *networks["netG"], *networks["netD"]):
        assert f"`{name}`" in text, name
    for place in ("docs/options.md", "docs/architecture.svg", "dataset/README.md", "LICENSE", "NOTICE"):
        assert f"({place})" in text
        assert (ROOT / place).is_file()
