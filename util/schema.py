"""Options are declared once, as frozen dataclasses whose fields carry their own help, group and range.

    @dataclass(frozen=True)
    class Options:
        lambda_cycle: float = flag(10.0, "weight of L_cycle", group="loss", low=0)

`add_flags` turns such a class into command-line flags, `build` turns parsed values, or those of an `options.json`, back
into the class and checks their ranges; util/needs.py refuses options that do nothing beside the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from util.errors import UserError
from util.nearest import nearest
from util.needs import Need
from util.version import ShowVersions

T = TypeVar("T")

AUTO = "auto"  # stands for a number that the program finds out itself


def flag(
    default: Any,
    help: str,
    *,
    group: str = "general",
    choices: Iterable[Any] | None = None,
    low: float | None = None,
    high: float | None = None,
    alias: tuple[str, ...] = (),
    needs: Need | tuple[Need, ...] = (),
    auto: bool = False,
) -> Any:
    """Declare one option of a dataclass: its only default, its help text and what values are allowed.

    Args:
        default: value when the flag is not given; its dataclass annotation gives the type.
        help: one line for `--help`, without the default, which is added.
        group: heading under which `--help` lists the flag.
        choices: allowed values; for registries pass the registry, so that the list is never written twice. What is
            added to it later is allowed too.
        low, high: inclusive range of a number. NaN is outside every range.
        alias: further spellings, without dashes, of the flag and of its value in an `options.json`.
        needs: what it takes for the option to do anything; of several all.
        auto: whether the word `auto` is allowed beside numbers.
    """
    metadata = {
        "help": help,
        "group": group,
        "choices": choices if choices is None or isinstance(choices, Mapping) else tuple(choices),
        "low": low,
        "high": high,
        "alias": alias,
        "needs": (needs,) if isinstance(needs, Need) else needs,
        "auto": auto,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _plain_type(annotation: Any) -> tuple[type, bool]:
    """The type a flag is parsed with, and whether `none` is allowed: `float | None` gives (float, True)."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        return members[0], type(None) in typing.get_args(annotation)
    return annotation, False


def _parse(text: str, kind: type, optional: bool, auto: bool = False) -> Any:
    if optional and text.lower() == "none":
        return None
    if auto and text.lower() == AUTO:
        return AUTO
    try:
        return kind(text)
    except ValueError as error:
        if auto:
            raise argparse.ArgumentTypeError(f"'{text}' is neither {KINDS[kind]} nor {AUTO}") from error
        raise argparse.ArgumentTypeError(f"'{text}' is not {'an' if kind is int else 'a'} {kind.__name__}") from error


def add_flags(parser: argparse.ArgumentParser, schema: type) -> None:
    """Add one flag per field of `schema` to `parser`. A flag with two owners is an error of ours and raises.

    What is not typed is left out of the parsed values: `build` knows the defaults.
    """
    annotations = typing.get_type_hints(schema)
    groups = {group.title: group for group in parser._action_groups}
    for field in dataclasses.fields(schema):
        meta = field.metadata
        group = groups.get(meta["group"]) or parser.add_argument_group(meta["group"])
        groups[meta["group"]] = group
        names = [f"--{name}" for name in (field.name, *meta["alias"])]
        kind, optional = _plain_type(annotations[field.name])
        needs = f" [needs: {'; '.join(need.words for need in meta['needs'])}]" if meta["needs"] else ""
        text = f"{meta['help']} [default: {field.default}]{needs}".replace("%", "%%")
        if kind is bool:
            group.add_argument(*names, dest=field.name, action="store_true", default=argparse.SUPPRESS, help=text)
            group.add_argument(
                *(name.replace("--", "--no_", 1) for name in names),
                dest=field.name,
                action="store_false",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS if not field.default else f"turn --{field.name} off",
            )
            continue
        group.add_argument(
            *names,
            dest=field.name,
            type=partial(_parse, kind=kind, optional=optional, auto=meta["auto"]),
            choices=None if meta["choices"] is None else tuple(meta["choices"]),
            default=argparse.SUPPRESS,
            metavar=kind.__name__.upper() + "|auto" * meta["auto"] if meta["choices"] is None else None,
            help=text,
        )


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _fits(value: Any, kind: type, optional: bool) -> bool:
    """Whether a value is of a field's type: whole numbers are numbers, but true and false are neither."""
    if value is None:
        return optional
    return isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool)


def check(options: Any) -> None:
    """Raise UserError for the first field whose value is not of its type, or outside its choices or range."""
    annotations = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value, meta = getattr(options, field.name), field.metadata
        if meta.get("auto") and value == AUTO:
            continue
        kind, optional = _plain_type(annotations[field.name])
        if kind in KINDS and not _fits(value, kind, optional):
            other = f" or {AUTO}" if meta.get("auto") else ""
            raise UserError(f"--{field.name} is {str(value)[:80]!r}, it must be {KINDS[kind]}{other}")
        if value is None or not meta:
            continue
        if meta["choices"] is not None and value not in meta["choices"]:
            raise UserError(f"--{field.name} is '{value}', allowed are {', '.join(map(str, meta['choices']))}")
        low = -float("inf") if meta["low"] is None else meta["low"]
        high = float("inf") if meta["high"] is None else meta["high"]
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if numeric and not low <= value <= high:  # written so that NaN fails
            span = f"at least {meta['low']}" if meta["high"] is None else f"between {low} and {high}"
            raise UserError(f"--{field.name} is {value}, it must be {span}")


def build(schema: type[T], values: Mapping[str, Any]) -> T:
    """Make a checked `schema` from a flat mapping; names the schema lacks belong to others and are left alone.

    What is missing has its default. A value may stand under an alias, as in an `options.json` of before a renaming.
    """
    found = {}
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]
        name = next((name for name in (field.name, *field.metadata.get("alias", ())) if name in values), None)
        if name is not None:
            found[field.name] = values[name]
    options = schema(**found)
    check(options)
    return options


def png_file(text: str) -> Path:
    """The type of an argument that names a picture to write, refused before any work if it could not be."""
    path = Path(text)
    if path.suffix.lower() != ".png" or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"'{text}': need a name that ends with .png in a folder that can be written")
    return path


class CommandLine(argparse.ArgumentParser):
    """A strict parser: no abbreviations, defaults shown, errors as one sentence with status 2, and `--version`.

    Args: elsewhere: options that this command line does not take but another would, and what that other one needs.
    """

    def __init__(self, elsewhere: Mapping[str, str] | None = None, **settings: Any) -> None:
        settings.setdefault(
            "formatter_class", lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=120)
        )
        super().__init__(allow_abbrev=False, **settings)
        self._elsewhere = elsewhere or {}
        if self.add_help:
            self.add_argument(
                "--version", action=ShowVersions, help="show the versions of the project, torch and Python"
            )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but what is unknown is told with what may have been meant."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._guesses(unknown)}")
        return found

    def _guesses(self, unknown: Sequence[str]) -> str:
        """What every unknown option is elsewhere, or what it may have been meant to be."""
        told = []
        for name in dict.fromkeys(word.partition("=")[0] for word in unknown if word.startswith("-")):
            if name in self._elsewhere:
                told.append(f"{name} needs {self._elsewhere[name]}")
            elif meant := nearest(name, [*self._option_string_actions, *self._elsewhere]):
                there = f" (needs {self._elsewhere[meant[0]]})" if meant[0] in self._elsewhere else ""
                told.append(f"{name}: did you mean {meant[0]}{there}?")
        return f"; {'; '.join(told)}" if told else ""

    def error(self, message: str) -> typing.NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")
