"""What options do beside each other: idle ones are refused, presets give defaults, earlier runs keep their meaning."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data.registry import DATASETS
from models import MODELS
from models.base_options import LR_POLICIES
from models.losses import LABELLED_LOSSES
from models.networks import DISCRIMINATORS, GENERATORS
from models.networks.layers import INITS, NORMS
from models.pta_options import LOSS_PRESETS
from models.trained import read_options
from options import preprocess_options, test_options
from options.presets import PRESETS
from options.train_options import FREE_ON_RESUME, differences, parse, schemas
from scripts import compare_precision, soak, write_options
from util.errors import UserError
from util.needs import Together, given
from util.runs import OPTIONS_NAME
from util.schema import build

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = shlex.split(
    """
    --dataroot DATA --name test --model pta_hybrid --display_id -1 --checkpoints_dir OUT --load_size=224
    --n_epochs 100 --batch_size 16 --input_nc 1 --output_nc 1 --n_epochs_decay 50 --preprocess resize
    --save_epoch_freq=5 --netG=hybrid --dataset_mode unaligned_mask --gpu_ids -1
    """
)
SCHEMAS = {
    "train.py": [schema for model in MODELS for schema in schemas(model, "unaligned")],
    "test.py": [test_options.TestOptions],
    "preprocessing_images.py": [
        preprocess_options.OutputOptions,
        preprocess_options.VolumeOptions,
        preprocess_options.BenchmarkOptions,
    ],
}
RESNET, NO_SGP, NO_LSC = "--netG=resnet_6blocks", "--sgp_match=none", "--pretext_adv=none"
TRAINED = ("--sgp_weights=S", "--lsc_weights=L")
ALL_LAMBDAS = tuple(f"--lambda_{name}=1" for name in ("syn", "syn_A", "idt", "cycle", "adv", "seg"))

# an option, options beside which it does nothing, and options beside which it does something
IDLE_IN_TRAINING: list[tuple[str, Sequence[str], Sequence[str]]] = [
    *((option, [RESNET], []) for option in (
        "--hybrid_width=96", "--hybrid_depth=2", "--hybrid_heads=6", "--hybrid_mlp=64", "--hybrid_patch=8",
        "--hybrid_features=8", "--hybrid_window=3", "--no_hybrid_residual", "--fth=0.25", "--structured_shape_iter=9",
        "--lambda_seg=0.7")),
    ("--lambda_seg=0.7", ["--model=cycle_gan", RESNET], ["--model=cycle_gan"]),
    *((option, [], [generator]) for option in ("--ngf=32", "--dropout") for generator in (RESNET, "--netG=unet_128")),
    ("--n_layers_D=2", [], ["--netD=n_layers"]),
    ("--n_layers_D=2", ["--netD=pixel"], ["--netD=n_layers"]),
    ("--init_gain=0.1", ["--init_type=kaiming"], ["--init_type=kaiming", "--norm_D=batch"]),
    ("--lambda_gp=1.0", [], ["--gan_mode=wgangp"]),
    *((option, ["--gan_mode=wgangp"], ["--gan_mode=vanilla"]) for option in ("--real_label=1.0", "--fake_label=0.0")),
    ("--lr_decay_iters=9", ["--lr_policy=cosine"], ["--lr_policy=step"]),
    ("--refine_ssim=0.5", [], ["--n_epochs_refine=1"]),
    ("--lf_shading=random", [], ["--n_epochs_refine=1"]),
    ("--refine_physics=0.5", [], ["--n_epochs_refine=1"]),
    *((option, ["--n_epochs_refine=1"], ["--n_epochs_refine=1", "--refine_physics=0.5"]) for option in (
        "--lf_resolution=0.5", "--lf_contrast=0.5", "--lf_tone=none", "--lf_spread=0.2")),
    *((option, ["--refine_physics=0"], ["--model=degrade"]) for option in (
        "--lf_resolution=0.5", "--lf_contrast=0.5", "--lf_tone=none", "--lf_spread=0.2")),
    ("--lf_band=0.5", ["--lf_bias=0.1"], ["--lf_noise=0.1"]),
    ("--loss_preset=paper", ALL_LAMBDAS, ALL_LAMBDAS[1:]),
    ("--loss_preset=paper", [RESNET, *ALL_LAMBDAS[:-1]], ALL_LAMBDAS[:-1]),
    ("--syn_form=cos", ["--lambda_syn=0", "--lambda_syn_A=0"], ["--lambda_syn=0"]),
    ("--syn_form=cos", ["--loss_preset=released"], ["--loss_preset=paper"]),
    ("--sgp_bank_k=2", ["--sgp_match=batch"], []),
    ("--sgp_window=0.1", ["--sgp_match=none"], []),
    ("--align_levels", TRAINED, [*TRAINED, "--sgp_window=0.1"]),
    ("--align_levels", ["--model=sgp"], ["--model=cycle_gan"]),
    ("--align_levels", ["--model=pix2pix"], ["--model=degrade"]),
    *((option, [NO_SGP], [NO_SGP, "--syn_form=cos"]) for option in (
        "--sgp_input=64", "--sgp_patch=8", "--sgp_width=128", "--sgp_depth=2", "--sgp_heads=2", "--sgp_embedding=64",
        "--sgp_steps=9", "--sgp_batch_size=32", "--sgp_views=2", "--sgp_lr=0.01", "--sgp_soft_sigma=0.1",
        "--sgp_weights=S",
        "--level_crop=0.2")),
    *((option, TRAINED[:1], []) for option in (
        "--sgp_steps=9", "--sgp_batch_size=32", "--sgp_views=2", "--sgp_lr=0.01", "--sgp_soft_sigma=0.1",
        "--level_crop=0.2")),
    ("--sgp_batch_size=8", [], ["--batch_size=4"]),
    *((option, [NO_LSC], []) for option in (
        "--lsc_blocks=8", "--rotate_ratio=0.1", "--mask_ratio=0.1", "--lsc_features=8", "--lsc_steps=9",
        "--lsc_batch_size=32", "--lsc_lr=0.01", "--lsc_weights=L", "--no_lsc_fill")),
    ("--no_lsc_fill", ["--mask_ratio=0"], ["--mask_ratio=0.1"]),
    *((option, TRAINED[1:], []) for option in ("--lsc_steps=9", "--lsc_batch_size=32", "--lsc_lr=0.01")),
    ("--lsc_batch_size=4", [], ["--batch_size=4"]),
    ("--load_size=96", ["--preprocess=none"], ["--preprocess=crop"]),
    ("--load_size=96", ["--preprocess=crop", "--crop_size=64"], ["--preprocess=resize_and_crop", "--crop_size=64"]),
    ("--crop_size=64", [], ["--preprocess=crop"]),
    ("--serial_batches", ["--model=sgp"], ["--model=lsc"]),
    ("--level_tolerance=0.1", TRAINED, [*TRAINED, "--n_epochs_refine=1", "--lf_shading=random"]),
    ("--level_tolerance=0.1", [*TRAINED, "--n_epochs_refine=1"], [TRAINED[1], "--sgp_match=none"]),
    ("--level_crop=0.2", ["--model=cycle_gan"], ["--model=sgp"]),
    ("--batch_size=8", ["--model=sgp"], ["--model=sgp", "--sgp_batch_size=4"]),
    ("--batch_size=4", ["--model=lsc", "--lsc_batch_size=16"], ["--model=lsc"]),
    *((option, [f"--model={model}"], []) for option in ("--micro_batch=4", "--checkpoint_activations")
      for model in ("sgp", "lsc")),
    ("--val_epoch_freq=1", ["--model=cycle_gan"], ["--model=lsc"]),
    ("--val_epoch_freq=1", TRAINED, TRAINED[:1]),
    *((option, ["--model=cut", "--lambda_nce=0", "--lambda_nce_idt=0"], ["--model=cut", "--lambda_nce=0"])
      for option in ("--nce_tau=0.1", "--nce_patches=9")),
    ("--val_epoch_freq=1", ["--model=cut"], ["--model=supervised"]),
    ("--lambda_sb=0.5", ["--model=unsb", "--sb_tau=0"], ["--model=unsb"]),
    ("--level_tolerance=0.1", ["--model=pix2pix"], ["--model=degrade"]),
    ("--update_html_freq=9", ["--no_html"], []),
    ("--display_ncols=2", ["--no_html"], ["--no_html", "--display_id=1"]),
    *((option, ["--display_id=-1"], ["--display_id=1"]) for option in (
        "--display_server=http://gpu", "--display_port=9000", "--display_env=mine", "--display_freq=9")),
    ("--display_freq=9", [], ["--tensorboard"]),
]  # fmt: skip

VOLUMES, SIMULATED = ("--input_A=V",), ("--simulate",)
IDLE_IN_PREPROCESSING: list[tuple[str, Sequence[str], Sequence[str]]] = [
    *((option, SIMULATED, VOLUMES) for option in (
        "--input_B=W", "--truth_A=T", "--val_fraction=0.3", "--test_fraction=0.3", "--all_test", "--slice_axis=R",
        "--pixel_mm=1.0", "--fov_mm=240.0", "--thickness_mm=5.0", "--like=D", "--window_low=1.0",
        "--window_high=99.0", "--check_data", "--skip_bad", "--contrast_A=T2w")),
    ("--contrast_A=T2w", ("--input_B=W",), VOLUMES),
    ("--contrast_B=T2w", VOLUMES, (*VOLUMES, "--input_B=W")),
    *((option, (*VOLUMES, "--like=D"), VOLUMES) for option in (
        "--slice_axis=R", "--pixel_mm=1.0", "--fov_mm=240.0", "--thickness_mm=5.0")),
    ("--input_A=V", SIMULATED, []),
    *((option, VOLUMES, SIMULATED) for option in (
        "--n_train=2", "--n_val=2", "--n_test=2", "--people=P", "--matrix=64", "--protocol_A=0.3T-T1w",
        "--protocol_B=3T-T1w", "--nifti", "--anatomy=N", "--deformation=0.5", "--ventricles=2.0", "--sulci_mm=0.5",
        "--age=70.0", "--lesions=wmh", "--faults=noise",
        *(f"--{name}_{domain}={value}" for domain in "AB"
          for name, value in {
              "tr": 9000.0, "te": 100.0, "ti": 1.0, "flip": 1.0, "thickness": 1.0, "partial_fourier": 1.0,
              "snr": 1.0}.items()))),
    *((option, (*VOLUMES, "--all_test"), VOLUMES) for option in ("--val_fraction=0.3", "--test_fraction=0.3")),
    ("--seed=3", (*VOLUMES, "--all_test"), VOLUMES),
    ("--seed=3", (*VOLUMES, "--val_fraction=0", "--test_fraction=0"), (*VOLUMES, "--val_fraction=0")),
    ("--people=P", (*SIMULATED, "--anatomy=N"), SIMULATED),
    ("--n_lesions=2", SIMULATED, (*SIMULATED, "--lesions=wmh")),
    ("--lesions_in=all", SIMULATED, (*SIMULATED, "--lesions=wmh")),
    ("--lesions=wmh", (*SIMULATED, "--n_test=0"), (*SIMULATED, "--n_test=0", "--lesions_in=train")),
    ("--fault_probability=0.5", SIMULATED, (*SIMULATED, "--faults=noise")),
]  # fmt: skip

IDLE_IN_TESTS = [
    *("--average_mirrored", "--eval_encoder=E", "--inception_weights=I", "--lpips_weights=L", "--no_baselines"),
    *("--protocol=pta", "--trust"),
]
IDLE_WITH_SCANS = [
    *("--phase=val", "--num_test=3", "--cache_dir=C", "--revalidate", "--eval_encoder=E", "--inception_weights=I"),
    *("--lpips_weights=L", "--protocol=pta", "--no_baselines"),
]
IDLE_WITHOUT_SCANS = ["--contrast=T2w"]
IDLE_BESIDE_PRETRAINED = ["--name=run", "--epoch=5"]


def named(cases: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> list[str]:
    return [" ".join((option, "|", *beside)) for option, beside, _ in cases]


def spelled(option: str) -> str:
    """How a refusal begins."""
    return f"{option.replace('=', ' ')} does nothing "


# idle options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "idle", "useful"), IDLE_IN_TRAINING, ids=named(IDLE_IN_TRAINING))
def test_an_option_of_training_that_does_nothing(option: str, idle: Sequence[str], useful: Sequence[str]) -> None:
    with pytest.raises(UserError) as refused:
        parse(["--dataroot=D", *idle, option])
    assert str(refused.value).startswith(spelled(option))
    parse(["--dataroot=D", *useful, option])


@pytest.mark.parametrize(("option", "idle", "useful"), IDLE_IN_PREPROCESSING, ids=named(IDLE_IN_PREPROCESSING))
def test_an_option_of_preprocessing_that_does_nothing(option: str, idle: Sequence[str], useful: Sequence[str]) -> None:
    with pytest.raises(UserError) as refused:
        preprocess_options.parse(["--out=D", *idle, option])
    assert str(refused.value).startswith(spelled(option))
    preprocess_options.parse(["--out=D", *useful, option])


@pytest.mark.parametrize("option", IDLE_IN_TESTS)
def test_an_option_of_testing_that_does_nothing(option: str, tmp_path: Path) -> None:
    arguments = ["--dataroot=D", f"--checkpoints_dir={tmp_path}", "--name=run", option]
    (tmp_path / "run").mkdir()
    for content in ('{"model": "cycle_gan"}', '{"model": "made by hand"}', "[]", "no JSON"):
        (tmp_path / "run" / OPTIONS_NAME).write_text(content)
        test_options.parse(arguments)  # where the file is damaged, whoever reads all of it says so
    (tmp_path / "run" / OPTIONS_NAME).write_text('{"model": "sgp"}')
    with pytest.raises(UserError) as refused:
        test_options.parse(arguments)
    assert str(refused.value).startswith(spelled(option))
    test_options.parse(arguments[:-1])
    (tmp_path / "run" / OPTIONS_NAME).unlink()
    test_options.parse(arguments)


@pytest.mark.parametrize("option", [*IDLE_WITH_SCANS, *IDLE_WITHOUT_SCANS])
def test_an_option_of_testing_that_does_nothing_for_scans_or_without_them(option: str, tmp_path: Path) -> None:
    slices = ["--dataroot=D", f"--checkpoints_dir={tmp_path}", option]
    scans = [*slices, "--dataset_mode=volume"]
    idle, useful = (scans, slices) if option in IDLE_WITH_SCANS else (slices, scans)
    with pytest.raises(UserError) as refused:
        test_options.parse(idle)
    assert str(refused.value).startswith(spelled(option))
    test_options.parse(useful)


@pytest.mark.parametrize("option", IDLE_BESIDE_PRETRAINED)
def test_an_option_of_ones_own_run_does_nothing_beside_a_shipped_model(option: str) -> None:
    with pytest.raises(UserError) as refused:
        test_options.parse(["--dataroot=D", "--pretrained=ulf_to_3t", option])
    assert str(refused.value).startswith(spelled(option))
    test_options.parse(["--dataroot=D", option])


def test_every_condition_is_tried_above() -> None:
    of_tests = (*IDLE_IN_TESTS, *IDLE_WITH_SCANS, *IDLE_WITHOUT_SCANS, *IDLE_BESIDE_PRETRAINED)
    tried = {option.split("=")[0].removeprefix("--").removeprefix("no_") for option in of_tests}
    for option, _, _ in (*IDLE_IN_TRAINING, *IDLE_IN_PREPROCESSING):
        tried.add(option.split("=")[0].removeprefix("--").removeprefix("no_"))
    declared = (
        field for schemas_of in SCHEMAS.values() for schema in schemas_of for field in dataclasses.fields(schema)
    )
    assert {field.name for field in declared if field.metadata["needs"]} == tried


def test_the_published_command_runs_verbatim_and_defaults_may_be_repeated() -> None:
    run = parse(PUBLISHED)
    typed = [f"--{name}={value}" for name, value in run.flat().items() if type(value) in (int, float, str)]
    beside = [RESNET, "--gan_mode=wgangp", NO_SGP, NO_LSC, "--preprocess=none", "--no_html"]
    assert parse([*typed, *beside]).network.netG == "resnet_6blocks"


def test_a_pretext_task_has_no_options_that_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("sgp", "lsc"):
        for option in ("--lr=0.5", "--beta1=0.9", "--lr_policy=step", "--lr_decay_iters=9", "--n_epochs_refine=1"):
            with pytest.raises(SystemExit):
                parse(["--dataroot=D", f"--model={model}", option])
            assert option in capsys.readouterr().err
        assert parse(["--dataroot=D", f"--model={model}", "--n_epochs=2"]).network.n_epochs == 2


def test_a_need_of_a_missing_option_is_a_mistake_of_ours() -> None:
    with pytest.raises(AttributeError):
        given("no_such_option").holds(parse(PUBLISHED).together())


# registries -----------------------------------------------------------------------------------------------------------


def fields_of(model: str) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(MODELS[model].Options)}


def test_choices_are_those_that_exist() -> None:
    registries = {
        "netG": GENERATORS, "netD": DISCRIMINATORS, "norm": NORMS, "init_type": INITS, "loss_preset": LOSS_PRESETS,
        "norm_D": ("same", *NORMS), "lr_policy": LR_POLICIES, "gan_mode": (*LABELLED_LOSSES, "wgangp"),
    }  # fmt: skip
    fields = fields_of("pta_hybrid")
    for name, registry in registries.items():
        assert tuple(fields[name].metadata["choices"]) == tuple(registry)


def test_the_losses_that_take_labels_are_those_that_exist() -> None:
    for mode in fields_of("pta_hybrid")["gan_mode"].metadata["choices"]:
        (need,) = fields_of("pta_hybrid")["real_label"].metadata["needs"]
        assert need.holds(Together([], gan_mode=mode)) == (mode in LABELLED_LOSSES)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_its_options_lie_beside_each_other(name: str) -> None:
    """`MODELS` knows the options without the model, so that `--help` needs no torch."""
    entry = MODELS[name]
    assert entry.options is entry.load().Options
    assert entry.options.__module__.removesuffix("_options") == entry.load().__module__.removesuffix("_model")


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_and_its_options_lie_beside_each_other(name: str) -> None:
    assert DATASETS[name].options is DATASETS[name].load().Options


# earlier runs ---------------------------------------------------------------------------------------------------------

RENAMED = {"lf_noise": "low_noise", "lf_band": "low_band", "lf_bias": "low_bias"}


def as_saved_before(argv: Sequence[str], **idle: Any) -> dict[str, Any]:
    """An options.json of before the renaming, which may hold what did nothing."""
    flat = {RENAMED.get(name, name): value for name, value in parse(argv).flat().items()}
    return json.loads(json.dumps({**flat, **idle}))


def test_old_spellings_are_the_same_options() -> None:
    old = ["--dataroot=D", "--low_noise=.1", "--low_band=.7", "--low_bias=.2"]
    new = ["--dataroot=D", "--lf_noise=.1", "--lf_band=.7", "--lf_bias=.2"]
    assert parse(old) == parse(new)
    saved = as_saved_before(old)
    assert saved["low_noise"] == 0.1 and "lf_noise" not in saved
    found = build(MODELS["pta_hybrid"].Options, saved)
    assert (found.lf_noise, found.lf_band, found.lf_bias) == (0.1, 0.7, 0.2)
    assert differences(saved, parse(new).flat()) == []
    assert differences(saved, parse([*new, "--lf_noise=.3"]).flat()) == ["--lf_noise: 0.1 -> 0.3"]


def test_what_did_nothing_in_an_earlier_run_is_neither_refused_nor_compared() -> None:
    argv = ["--dataroot=D", "--model=cycle_gan", RESNET]
    saved = as_saved_before(argv, hybrid_width=96, refine_ssim=0.5, low_band=0.8, lambda_gp=3.0)
    assert build(MODELS["cycle_gan"].Options, saved).hybrid_width == 96
    assert differences(saved, parse(argv).flat()) == []
    assert differences(saved, parse([*argv, "--n_epochs_refine=2", "--refine_ssim=2"]).flat()) == []
    assert differences(saved, parse([*argv, "--ngf=8"]).flat()) == ["--ngf: 64 -> 8"]
    refined = as_saved_before(argv, n_epochs_refine=1, refine_ssim=0.5)
    del refined["lf_shading"]
    changed = ["--lf_shading: random -> partner", "--refine_ssim: 0.5 -> 1.0"]
    assert differences(refined, parse([*argv, "--n_epochs_refine=2"]).flat()) == changed


@pytest.mark.parametrize("model", ["sgp", "lsc"])
def test_a_pretext_run_of_before_goes_on(model: str) -> None:
    argv = ["--dataroot=D", f"--model={model}"]
    saved = as_saved_before(argv, lr=0.5, beta1=0.9, lr_policy="step", lr_decay_iters=9)
    build(MODELS[model].Options, saved)
    assert differences(saved, parse(argv).flat()) == []
    assert differences({**saved, "unheard_of": 1}, parse(argv).flat()) == ["--unheard_of: 1 -> None"]


def test_an_R_of_before_there_was_a_filling_has_none(tmp_path: Path) -> None:
    argv = ["--dataroot=D", "--model=lsc"]
    saved = as_saved_before([*argv, "--no_lsc_fill"], image_size=[32, 32])
    del saved["lsc_fill"]
    (tmp_path / "options.json").write_text(json.dumps(saved))
    assert read_options(tmp_path)[1].lsc_fill is False
    assert differences(saved, parse([*argv, "--no_lsc_fill"]).flat()) == ["--image_size: [32, 32] -> None"]
    assert "--lsc_fill: False -> True" in differences(saved, parse(argv).flat())
    of_cycle_gan = as_saved_before(["--dataroot=D", "--model=cycle_gan"])
    assert differences(of_cycle_gan, parse(["--dataroot=D", "--model=cycle_gan"]).flat()) == []


@pytest.mark.parametrize("spoiled", [{"model": ["sgp"]}, {"model": "x"}, {"dataset_mode": "x"}, {"lf_noise": "much"}])
def test_a_damaged_record_of_options_is_compared_as_it_is(spoiled: dict[str, Any]) -> None:
    run = parse(["--dataroot=D", RESNET]).flat()
    told = differences({**run, **spoiled, "hybrid_width": 96}, run)
    (name, value), = spoiled.items()  # fmt: skip
    assert f"--{name}: {value} -> {run[name]}" in told
    assert "--hybrid_width: 96 -> 768" in told


# presets --------------------------------------------------------------------------------------------------------------

PLACES = ["--dataroot=D", "--checkpoints_dir=O", "--overwrite"]
DEMO_SIZES = shlex.split(
    """
    --load_size 128 --level_crop 0 --sgp_input 48 --sgp_patch 12 --sgp_width 128 --sgp_depth 3 --sgp_embedding 128
    --sgp_batch_size 32 --sgp_lr 5e-4
    """
)
DEMO = shlex.split(
    """
    --model pta_hybrid --sgp_steps 1000 --lsc_features 8 --lsc_lr 3e-3 --lsc_steps 300
    --hybrid_width 128 --hybrid_depth 2 --hybrid_heads 4 --hybrid_mlp 256 --hybrid_features 8 --ndf 16
    --flip --batch_size 2 --n_epochs 1 --n_epochs_decay 1 --n_epochs_refine 6 --refine_ssim 3 --lr 6e-4
    --refine_physics 0.4 --lf_noise auto --lf_band auto --lf_bias auto
    """
)


def test_the_demo_trains_what_it_did_before_there_was_a_preset() -> None:
    assert parse([*PLACES, "--preset=demo"]) == parse([*PLACES, *DEMO_SIZES, *DEMO])
    encoder = ["--model=sgp", "--seed=7", "--sgp_steps=150"]
    assert parse([*PLACES, "--preset=demo", *encoder]) == parse([*PLACES, *DEMO_SIZES, *encoder])
    lines = (ROOT / "scripts" / "demo.sh").read_text().splitlines()
    assert len([line for line in lines if '"${TRAIN[@]}" --name' in line]) == 2
    assert any("--preset demo" in line and line.startswith("TRAIN=") for line in lines)


def test_the_published_preset_is_the_published_command() -> None:
    places = ["--dataroot=DATA", "--name=test", "--checkpoints_dir=OUT", "--gpu_ids=-1"]
    assert parse([*places, "--preset=published"]) == parse(PUBLISHED)
    assert parse([*places, "--preset=published", "--model=cycle_gan"]).dataset_mode == "unaligned_mask"


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("model", MODELS)
def test_a_preset_serves_every_model_and_is_a_default(name: str, model: str) -> None:
    preset, argv = PRESETS[name], ["--dataroot=D", f"--model={model}", f"--preset={name}"]
    run = parse(argv)
    flat = run.flat()
    of_model = preset.of_model.get(model, {})
    assert flat.items() >= of_model.items()
    assert flat["load_size"] == of_model.get("load_size", preset.values["load_size"])
    assert ("netG" in flat) == (model not in ("sgp", "lsc"))
    if "netG" in flat:
        assert flat["batch_size"] == {**preset.values, **preset.of_generators}["batch_size"]
    assert parse([*argv, "--load_size=64", "--seed=3"]).flat() == {**flat, "load_size": 64, "seed": 3}
    assert "preset" not in flat
    network = MODELS[model](run.network, (flat["load_size"],) * 2) if name != "published" else None  # type: ignore[call-arg]
    assert network is None or network.stages


def test_a_preset_leaves_a_model_what_it_is() -> None:
    for name in PRESETS:
        argv = ["--dataroot=D", f"--preset={name}"]
        assert parse([*argv, "--model=pta_cyclegan"]).network.netG == "resnet_9blocks"
        unet = parse([*argv, "--model=pta_unet"])
        assert unet.network.netG.startswith("unet") and unet.data.load_size % int(unet.network.netG[-3:]) == 0
        pix2pix = parse([*argv, "--model=pix2pix"])
        assert (pix2pix.network.gan_mode, pix2pix.network.pool_size, pix2pix.dataset_mode) == ("vanilla", 0, "aligned")
    small = parse(["--dataroot=D", "--preset=small", "--model=cut"]).network
    assert small.n_epochs + small.n_epochs_decay == 20  # ten, and the ten that others refine for


def test_what_a_preset_sets_for_something_else_keeps_its_default() -> None:
    demo = ["--dataroot=D", "--preset=demo"]
    plain = parse(["--dataroot=D"]).network
    resnet = parse([*demo, RESNET]).network
    assert resnet.hybrid_width == plain.hybrid_width
    assert resnet.ndf == 16
    alone = parse([*demo, NO_SGP, "--lf_noise=0"])
    assert (alone.network.sgp_width, alone.data.level_crop) == (plain.sgp_width, 0.1)
    with pytest.raises(UserError, match=r"^--lf_band 0\.5 does nothing"):
        parse([*demo, "--lf_noise=0", "--lf_band=0.5"])
    with pytest.raises(UserError, match=r"^--ngf 8 does nothing"):
        parse([*demo, "--ngf=8"])


def test_presets_name_real_options_and_a_run_goes_on_without_them() -> None:
    known = {field.name for schema in SCHEMAS["train.py"] for field in dataclasses.fields(schema)}
    for preset in PRESETS.values():
        assert {*preset.values, *preset.of_generators} <= known
        assert preset.dataset_mode in (None, *DATASETS)
    started = parse([*PLACES, "--preset=demo"]).flat()
    assert differences(started, parse([*PLACES, *DEMO_SIZES, *DEMO]).flat()) == []
    assert "--lr: 0.0006 -> 0.0002" in differences(started, parse(PLACES).flat())
    assert "lr" not in FREE_ON_RESUME


def test_where_a_synthesis_is_taken_from_the_bridge_may_change_after_the_training() -> None:
    run = [*PLACES, "--model=unsb"]
    before, now = parse(run).flat(), parse([*run, "--sb_passes=1"]).flat()
    assert before["sb_passes"] == 0 and differences(before, now) == []
    del before["sb_passes"]  # a run that is older than the option
    assert differences(before, now) == []


def test_the_scripts_command_lines_are_accepted() -> None:
    for options in (soak.TINY, (*compare_precision.NETWORKS, *compare_precision.LENGTH)):
        assert parse(["--dataroot=D", *options]).model == "pta_hybrid"


# docs/options.md ------------------------------------------------------------------------------------------------------


def test_the_page_of_options_is_current() -> None:
    current = write_options.PAGE.read_text(encoding="utf-8") == write_options.page()
    assert current, f"docs/options.md is not what the options are now; write it: {write_options.COMMAND}"


def test_the_page_tells_the_weights_of_each_set_and_the_values_of_single_models() -> None:
    page = write_options.page()
    assert "`paper` 0.5, 0, 0.2, 0.3, 0.5; `released` 0, 5, 10, 1, 0.5; `balanced` 2, 1, 5, 1, 0.5" in page
    assert "- `cut` has `--lambda_nce 20`, `--lambda_nce_idt 20`, `--lr 0.0001` in `demo` and `small`." in page


def test_the_page_lists_every_option_of_every_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_options, "PAGE", tmp_path / "options.md")
    write_options.main()
    page = (tmp_path / "options.md").read_text(encoding="utf-8")
    sections = dict(part.split("`", 1) for part in page.split("\n## `")[1:])
    assert sections.keys() == SCHEMAS.keys()
    for program, declared in SCHEMAS.items():
        rows = [line.split(" | ") for line in sections[program].splitlines() if line.startswith("| `--")]
        for field in (field for schema in declared for field in dataclasses.fields(schema)):
            flags = ", ".join(f"`--{name}`" for name in (field.name, *field.metadata["alias"]))
            row = next(row for row in rows if row[0] == f"| {flags}" and len(row) == 5)
            assert all(f"`{choice}`" in row[2] for choice in field.metadata["choices"] or ())
