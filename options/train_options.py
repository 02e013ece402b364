"""The command line of `train.py`: parsed once, frozen, written to the run's options.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.cache.place import cache_folder, check_name
from data.registry import DATASETS, PAIRED
from data.unaligned_options import UnalignedOptions
from models import MODELS
from models.older_runs import with_younger_options
from options.display_options import DisplayOptions
from options.presets import PRESETS, Preset
from util.errors import UserError
from util.needs import Need, Together, idle_options, refuse_idle
from util.schema import CommandLine, add_flags, build, flag

if TYPE_CHECKING:
    import torch

AMP = ("auto", "bf16", "fp16", "off")
BATCH = 16
SYNTHESIS = Need(
    f"--model {' or '.join(name for name, model in MODELS.items() if model.Options.can_synthesise)}",
    lambda o: MODELS[o.model].Options.can_synthesise,
)
EPOCHS = ("n_epochs", "n_epochs_decay", "n_epochs_refine")
LARGER_BATCHES = Need(
    "with --model sgp or lsc: more than --sgp_batch_size or --lsc_batch_size",
    lambda o: max(o.batch_size, BATCH) > getattr(o, "least_batch", 0),
    idle="unless it is above the batch size of --model sgp or lsc itself (--sgp_batch_size, --lsc_batch_size)",
)
MEASURED = Need(
    "an SGP or LSC to train, or pairs",
    lambda o: any(getattr(o, name, False) for name in ("trains_sgp", "trains_lsc", "paired")),
)


@dataclass(frozen=True)
class TrainOptions:
    """Where a run reads and writes, how long its steps are, how it is computed. None of it describes the model."""

    dataroot: str = flag("", "data folder, made by preprocessing_images.py (required)", group="run")
    name: str = flag("experiment", "name of the run: its folder in --checkpoints_dir", group="run")
    checkpoints_dir: str = flag("./checkpoints", "folder of all runs", group="run")
    cache_dir: str | None = flag(
        None, "folder for slices ready to be read; none: .cache in --checkpoints_dir", group="run"
    )
    revalidate: bool = flag(False, "check every slice anew and build the cache again", group="run")
    check_data: bool = flag(False, "list all bad files of --dataroot, and do nothing else", group="run")
    skip_bad: bool = flag(False, "leave bad files out instead of refusing them", group="run")
    gpu_ids: str = flag("auto", "auto: CUDA if there is any; -1: the CPU; 0, 1, …: that GPU", group="run")
    seed: int = flag(0, "seed of everything random", group="run", low=0, high=2**31 - 1)
    batch_size: int = flag(
        BATCH, "images of either domain a step, of all processes together", group="run", low=1, needs=LARGER_BATCHES
    )
    micro_batch: str = flag(
        "auto", "images computed at once; auto: as many as memory takes", group="run", needs=SYNTHESIS
    )
    amp: str = flag("auto", "mixed precision; auto: bf16 where the hardware has it", group="run", choices=AMP)
    compile: bool = flag(
        False, "compile networks at their first step; pays off in long runs (docs/scale.md)", group="run"
    )
    channels_last: bool = flag(False, "keep channels innermost in memory; may be faster on a GPU", group="run")
    checkpoint_activations: bool = flag(
        False,
        "keep less of the generators' forward pass and compute it again: less memory, more time",
        group="run",
        needs=SYNTHESIS,
    )
    cpu_threads: int | None = flag(
        None, "threads that compute on the CPU; none: OMP_NUM_THREADS, else the usable processors", group="run", low=1
    )
    num_threads: int = flag(0, "processes that load slices; 0: the training process itself", group="run", low=0)
    continue_train: bool = flag(False, "go on from latest.pt", group="run")
    overwrite: bool = flag(False, "start afresh over an earlier run of that name", group="run")
    save_epoch_freq: int = flag(5, "keep EPOCH.pt every so many epochs", group="run", low=1)
    save_latest_freq: int = flag(5000, "write latest.pt every so many images", group="run", low=1)
    keep_last: int = flag(0, "keep only so many of the newest EPOCH.pt and their weights; 0: all", group="run", low=0)
    val_epoch_freq: int = flag(5, "measure on valA, valB every so many epochs", group="run", low=1, needs=MEASURED)


@dataclass(frozen=True)
class RunOptions:
    """Everything `train.py` was asked for."""

    model: str
    dataset_mode: str
    train: TrainOptions
    display: DisplayOptions
    data: UnalignedOptions
    network: Any  # MODELS[model].Options

    @property
    def run_dir(self) -> Path:
        return Path(self.train.checkpoints_dir) / self.train.name

    @property
    def cache_dir(self) -> Path:
        return cache_folder(self.train.cache_dir, self.train.checkpoints_dir)

    def flat(self) -> dict[str, Any]:
        """All options by flag name, as options.json keeps them."""
        parts = (self.train, self.display, self.data, self.network)
        named = {"model": self.model, "dataset_mode": self.dataset_mode}
        return named | {name: value for part in parts for name, value in dataclasses.asdict(part).items()}

    def together(self) -> Together:
        """All options, and what follows from them, by attribute."""
        parts = (self.train, self.display, self.data, self.network)
        return Together(parts, model=self.model, dataset_mode=self.dataset_mode)


def for_device(run: RunOptions, device: torch.device) -> RunOptions:
    """The run with the lengths of its pretext stages filled in where the user left them to the device."""
    lengths = {
        name: steps.on(device)
        for name, steps in MODELS[run.model].Options.pretext_steps.items()
        if getattr(run.network, name) is None
    }
    return dataclasses.replace(run, network=dataclasses.replace(run.network, **lengths))


# options that may differ when a run is continued: they change neither the model's training nor what it sees
FREE_ON_RESUME = frozenset(
    {field.name for schema in (TrainOptions, DisplayOptions) for field in dataclasses.fields(schema)}
    - {"seed", "batch_size", "amp"}
) | {*EPOCHS, "sgp_weights", "lsc_weights", "sb_passes"}


def parse(argv: Sequence[str]) -> RunOptions:
    """Parse the command line of train.py.

    Raises:
        SystemExit: status 2 with one sentence for unknown, abbreviated or malformed options; 0 after `--help`.
        UserError: a value out of range, or options that contradict each other.
    """
    pick = CommandLine(prog="train.py", add_help=False)
    pick.add_argument(
        "--model", choices=tuple(MODELS), default="pta_hybrid", help="what is trained [default: pta_hybrid]"
    )
    pick.add_argument("--dataset_mode", choices=tuple(DATASETS), help="which dataset [default: the model's own]")
    pick.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="a set of options instead of the defaults (docs/options.md); an option that is typed wins",
    )
    chosen, _ = pick.parse_known_args(argv)
    preset = PRESETS[chosen.preset] if chosen.preset else Preset("", {})
    own = MODELS[chosen.model].Options
    dataset_mode = chosen.dataset_mode or ("" if own.paired else preset.dataset_mode) or own.dataset_mode
    parser = CommandLine(
        prog="train.py",
        parents=[pick],
        elsewhere=_of_other_models(chosen.model),
        description=f"Train a model. Options below are those of --model {chosen.model} --dataset_mode {dataset_mode}.",
    )
    for schema in schemas(chosen.model, dataset_mode):
        add_flags(parser, schema)
    typed = vars(parser.parse_args(argv))
    run = _with_preset(_built(chosen.model, dataset_mode, typed), preset, typed)
    refuse_idle(run.together(), typed)
    _check_together(run)
    return run


def schemas(model: str, dataset_mode: str) -> tuple[type, ...]:
    """Where the options of a run of that model on that dataset are declared."""
    return TrainOptions, DisplayOptions, DATASETS[dataset_mode].Options, MODELS[model].Options


def _of_other_models(model: str) -> dict[str, str]:
    """The flags that only other models have, each with the --model it takes."""
    owners: dict[str, list[str]] = {}
    for name, other in MODELS.items():
        for schema in schemas(name, other.Options.dataset_mode):
            for field in dataclasses.fields(schema):
                for spelling in (field.name, *field.metadata["alias"]):
                    owners.setdefault(f"--{spelling}", []).append(name)
                    if isinstance(field.default, bool):
                        owners.setdefault(f"--no_{spelling}", []).append(name)
    return {
        flag: f"--model {' or '.join(models)}, this is --model {model}"
        for flag, models in owners.items()
        if model not in models
    }


def _built(model: str, dataset_mode: str, values: Mapping[str, Any]) -> RunOptions:
    return RunOptions(model, dataset_mode, *(build(schema, values) for schema in schemas(model, dataset_mode)))


def _with_preset(run: RunOptions, preset: Preset, typed: Mapping[str, Any]) -> RunOptions:
    """The run with the preset's values, but for options that are typed and those that would do nothing beside them."""
    values = preset.of(run.model, set(run.together().fields()) - MODELS[run.model].Options.keeps)
    while True:
        found = _built(run.model, run.dataset_mode, {**values, **typed})
        idle = idle_options(found.together()).keys() & values.keys() - typed.keys()
        if not idle:
            return found
        values = {name: value for name, value in values.items() if name not in idle}


def _check_together(run: RunOptions) -> None:
    """Refuse what no single option can know to be wrong."""
    train = run.train
    if not train.dataroot:
        raise UserError("--dataroot is missing: the data folder made by preprocessing_images.py")
    check_name(train.name)
    if train.micro_batch != "auto" and not (train.micro_batch.isdecimal() and int(train.micro_batch) >= 1):
        raise UserError(f"--micro_batch is '{train.micro_batch}', allowed are auto and whole numbers from 1")
    if train.continue_train and train.overwrite:
        raise UserError("--continue_train and --overwrite exclude each other")
    of_model = MODELS[run.model].Options
    if of_model.paired != (run.dataset_mode in PAIRED):
        allowed = ", ".join(name for name in DATASETS if (name in PAIRED) == of_model.paired)
        why = "learns from pairs" if of_model.paired else "is not to see pairs"
        raise UserError(f"--dataset_mode {run.dataset_mode}: {run.model} {why}, allowed is {allowed}")
    if run.data.direction == "BtoA" and not of_model.supports_BtoA:
        either = "; cycle_gan goes either way" * of_model.can_synthesise
        raise UserError(f"--direction BtoA: {run.model} goes from A to B only{either}")
    lengths = [name for name in EPOCHS if hasattr(run.network, name)]
    if of_model.can_synthesise and not sum(getattr(run.network, name) for name in lengths):
        raise UserError(f"{', '.join(f'--{name} 0' for name in lengths)}: no generator would be trained, need an epoch")
    for name in ("norm", "norm_D"):
        if getattr(run.network, name, "") == "batch" and train.micro_batch not in ("auto", str(train.batch_size)):
            raise UserError(f"--{name} batch needs whole batches: --micro_batch must be auto or the batch size")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines `--flag: old -> new` for options that may not change when a run is continued.

    What did nothing in the old run may change. Options that have been renamed since are the same options.
    """
    declared = [field for model in MODELS.values() for field in dataclasses.fields(model.Options)]
    renamed = {alias: field.name for field in declared for alias in field.metadata["alias"]}
    old = with_younger_options({renamed.get(name, name): value for name, value in old.items()}, new)
    free = FREE_ON_RESUME | _without_effect(old, {field.name for field in declared})
    names = sorted((old.keys() | new.keys()) - free)
    return [f"--{name}: {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def _without_effect(saved: Mapping[str, Any], of_models: set[str]) -> set[str]:
    """Options of a saved run that did nothing; its model may once have had some of them that others still have."""
    try:
        run = _built(saved["model"], saved["dataset_mode"], saved)
    except (UserError, LookupError, TypeError):
        return set()  # an options.json that is not of a run: all of it is compared
    return set(idle_options(run.together())) | (of_models - run.flat().keys())
