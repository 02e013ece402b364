"""Write docs/options.md from the declarations of the options: `python -m scripts.write_options`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from data.registry import DATASETS
from models import MODELS
from models.pta_options import LOSS_PRESETS
from options.preprocess_options import DEFAULT_PRESET, BenchmarkOptions, OutputOptions, VolumeOptions
from options.presets import PRESETS
from options.test_options import TestOptions
from options.train_options import schemas
from simulation.presets import PRESETS as BENCHMARKS
from util.needs import Need

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
COMMAND = "python -m scripts.write_options"
Field = dataclasses.Field[Any]

INTRODUCTION = f"""\
<!-- written by `{COMMAND}`: change the declarations of the options, not this page -->
# Options

Every option of the three programs. `--help` prints the same, for `train.py` those of the `--model` that is given.
Spellings are strict: an unknown, abbreviated or out-of-range option ends the program with one sentence and status 2,
before any work; an option that is nearly right gets a suggestion. `--version` shows the versions of this project, of
torch and of Python. Where the default is *on* or *off*, the flag alone switches it on and `--no_FLAG` switches it off.
Where it is *none*, the word `none` can be given too.

The last column says what an option needs beside it to do anything. An option that would do nothing is refused likewise,
unless it repeats its default: `--lf_band 0.8` without `--lf_noise`, for example.
"""

WHAT_IS_TRAINED: dict[str, tuple[str, Iterable[str], str]] = {
    "model": ("`pta_hybrid`", MODELS, "what is trained"),
    "dataset_mode": (
        "the model's own",
        DATASETS,
        "`unaligned_mask` hands foreground masks to the model, `unaligned` hides them, `aligned` gives pairs",
    ),
    "preset": ("none", PRESETS, "a set of options instead of the defaults, see below; an option that is typed wins"),
}

# headings of train.py's groups, in the page's order, and what there is to say about each
GROUPS = {
    "run": ("Run", ""),
    "data": ("Data", ""),
    "optimisation": (
        "Optimisation",
        "The learning rate options and `--ema_beta` are for the generators and discriminators; SGP and LSC have their "
        "own below.",
    ),
    "networks": ("Networks", ""),
    "hybrid generator": ("Hybrid generator", "The defaults are the published sizes."),
    "loss": ("Losses", ""),
    "SGP": ("SGP", ""),
    "LSC": ("LSC", ""),
    "display": ("Display", "Every `*_freq` counts training images, not steps."),
}


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_train(), *_test(), *_preprocessing()])


def _train() -> Iterable[str]:
    owners = _owners()
    yield "## `train.py`\n"
    yield "### What is trained on what\n"
    rows = [
        (f"`--{name}`", default, _choices(choices), meaning)
        for name, (default, choices, meaning) in WHAT_IS_TRAINED.items()
    ]
    yield _table(("flag", "default", "allowed", "meaning"), rows)
    yield from _presets()
    for group, (heading, note) in GROUPS.items():
        of_group = {field: models for field, models in owners.items() if field.metadata["group"] == group}
        everyone = [model for model in MODELS if any(model in models for models in of_group.values())]
        of_whom = "" if len(everyone) == len(MODELS) else f" ({_choices(everyone)})"
        yield f"### {heading}{of_whom}\n"
        if note or group == "loss":
            yield f"{note or _loss_presets()}\n"
        yield _options({field: "" if models == everyone else _of(models) for field, models in of_group.items()})


def _owners() -> dict[Field, list[str]]:
    """The models that have each option of train.py; an option that two models declare differently is there twice."""
    owners: dict[Field, list[str]] = {}
    for model, cls in MODELS.items():
        for schema in schemas(model, cls.Options.dataset_mode):
            for field in dataclasses.fields(schema):
                owners.setdefault(field, []).append(model)
    return owners


def _of(models: Collection[str]) -> str:
    return f"--model {' or '.join(models)}"


def _presets() -> Iterable[str]:
    yield "### Presets\n"
    yield "\n".join(f"- `{name}`: {preset.about}" for name, preset in PRESETS.items()) + "\n"
    yield (
        "Where a preset says nothing, the default holds. A model goes without the options that it lacks; options that\n"
        "would do nothing beside the typed ones keep their defaults. *: not for `sgp` and `lsc`, which have it, too.\n"
        "A model without refinement has the refinement's epochs added to `--n_epochs_decay`, so that it sees as many\n"
        f"images.\n\n{_of_single_models()}"
    )
    in_use = {name for preset in PRESETS.values() for name in (*preset.values, *preset.of_generators)}
    names = dict.fromkeys(field.name for field in _owners() if field.name in in_use)
    rows = [(f"`--{name}`", *(_preset_value(preset, name) for preset in PRESETS.values())) for name in names]
    rows.append(("`--dataset_mode`", *(f"`{p.dataset_mode}`" if p.dataset_mode else "" for p in PRESETS.values())))
    yield _table(("flag", *(f"`{name}`" for name in PRESETS)), rows)


def _of_single_models() -> str:
    """A line for each model that has values of its own in presets."""
    lines: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        for model, values in preset.of_model.items():
            told = ", ".join(f"`--{option} {str(value).removesuffix('.0')}`" for option, value in values.items())
            lines.setdefault(f"`{model}` has {told}", []).append(f"`{name}`")
    return "".join(f"- {told} in {' and '.join(names)}.\n" for told, names in lines.items())


def _preset_value(preset: Any, name: str) -> str:
    if name in preset.values:
        return _value(preset.values[name])
    if name not in preset.of_generators:
        return ""
    of_pretext = any(field.name == name and "lsc" in models for field, models in _owners().items())
    return _value(preset.of_generators[name]) + " *" * of_pretext


def _loss_presets() -> str:
    terms = ("syn", "idt", "cycle", "adv", "seg")
    numbers = {name: [f"{getattr(weights, term):g}" for term in terms] for name, weights in LOSS_PRESETS.items()}
    sets = "; ".join(f"`{name}` {', '.join(of_terms)}" for name, of_terms in numbers.items())
    others = ", ".join(f"{weights.syn_A:g} in `{name}`" for name, weights in LOSS_PRESETS.items())
    return (
        f"`--loss_preset`, as weights of `{', '.join(f'L_{term}' for term in terms)}`: {sets}.\n"
        f"`--lambda_syn_A` is {others}."
    )


def _test() -> Iterable[str]:
    yield "## `test.py`\n"
    yield "Architecture and preparation of slices are read from the run.\n"
    yield _options(dict.fromkeys(dataclasses.fields(TestOptions), ""))


def _preprocessing() -> Iterable[str]:
    yield "## `preprocessing_images.py`\n"
    parts = {"Output": OutputOptions, "Volumes of your own": VolumeOptions, "The simulated benchmark": BenchmarkOptions}
    for heading, schema in parts.items():
        yield f"### {heading}\n"
        if schema is BenchmarkOptions:
            meaning = "write the embedded paired benchmark instead of reading volumes; `--simulate` alone: the default"
            row = ("`--simulate`", f"`{DEFAULT_PRESET}`", _choices(BENCHMARKS), meaning, "")
            yield _options(dict.fromkeys(dataclasses.fields(schema), ""), first=[row])
        else:
            yield _options(dict.fromkeys(dataclasses.fields(schema), ""))


def _options(of_whom: dict[Field, str], first: Sequence[Sequence[str]] = ()) -> str:
    """A table of options, each with what it needs: of models `of_whom`, and its own. What all need stands above."""
    every = [
        need for need in next(iter(of_whom)).metadata["needs"] if all(need in f.metadata["needs"] for f in of_whom)
    ]
    above = f"All of them need {' and '.join(need.words for need in every)}.\n\n" if every else ""
    rows = [_row(field, whom, every) for field, whom in of_whom.items()]
    return above + _table(("flag", "default", "allowed", "meaning", "needs"), [*first, *rows])


def _row(field: Field, of_whom: str, every: Collection[Need]) -> tuple[str, ...]:
    meta = field.metadata
    flags = ", ".join(f"`--{name}`" for name in (field.name, *meta["alias"]))
    required = " (required)" in meta["help"]
    needs = "; ".join(filter(None, (of_whom, *(need.words for need in meta["needs"] if need not in every))))
    return flags, "required" if required else _value(field.default), _allowed(meta), _meaning(meta["help"]), needs


def _meaning(text: str) -> str:
    return text.replace(" (required)", "")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"`{value}`"


def _allowed(meta: Any) -> str:
    if meta["choices"]:
        return _choices(meta["choices"])
    if meta["low"] is None:
        return ""
    to = f" to {meta['high']:.10g}" if meta["high"] is not None else ""
    return f"from {meta['low']:g}{to}" + ", or `auto`" * meta["auto"]


def _choices(choices: Iterable[Any]) -> str:
    return ", ".join(f"`{choice}`" for choice in choices)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines) + "\n"


if __name__ == "__main__":
    main()
